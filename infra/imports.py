#!/usr/bin/env python3
"""Finds import circles: between the files of a crate, and between the folders and files of one folder.

An arrow runs from a file to each file of its crate whose items it names, in `use` lines and in paths such as
`queue::offer`; names that a module hands on (`pub use`) lead to the file that defines them. In a folder, `x.rs`
and the files below `x/` count as one. Where no circle is, the parts of a folder have an order in which they can
be read, and no import runs against it.

Reads the text of the Rust files; compiles nothing. Test modules are left out. Silent when there is no circle;
otherwise one line for each circle with what ties it, and exit code 1. `--arrows` prints every arrow instead.
"""

import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent

STRINGS = re.compile(r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.S)
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?mod (\w+)\s*(;|\{)")
MODULE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?mod (\w+);", re.M)
USE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use ([^;]+);", re.M)
PATH = re.compile(r"(?<![\w:])((?:crate|super|self|\w+)(?:::\w+)+)")


def code_of(text):
    """The text without comments, strings and test modules."""
    text = STRINGS.sub(lambda found: " " if found.group(0)[0] == "/" else '""', text)
    while found := TEST_MODULE.search(text):
        end = found.end()
        if found.group(2) == "{":
            depth = 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: found.start()] + text[end:]
    return text


def branches(tree):
    """`a::{b, c::d as e}` as (name, path) pairs; the name of a glob is `*`."""
    tree = " ".join(tree.split())
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::")]
        yield alias or (parts[-2] if parts[-1] == "self" else parts[-1]), [p for p in parts if p != "self" or p is parts[0]]
        return
    prefix, depth, start = tree[:brace], 0, brace + 1
    for at in range(brace + 1, len(tree)):
        depth += {"{": 1, "}": -1}.get(tree[at], 0)
        if (tree[at] == "," and depth == 0) or depth < 0:
            if inner := tree[start:at].strip():
                yield from branches(prefix + inner)
            start = at + 1


class Crate:
    """The modules of a crate: a tuple of names for each, () for the root."""

    def __init__(self, root):
        self.root, self.files, self.code, self.uses = root, {}, {}, {}
        self.read((), root)

    def read(self, module, file):
        self.files[module], self.code[module] = file, code_of(file.read_text())
        # In place of uses: what each name stands for.
        self.uses[module] = [pair for tree in USE.findall(self.code[module]) for pair in branches(tree)]
        folder = file.parent if file.name in ("lib.rs", "main.rs", "mod.rs") else file.with_suffix("")
        for name in MODULE.findall(self.code[module]):
            child = folder / f"{name}.rs"
            self.read((*module, name), child if child.exists() else folder / name / "mod.rs")

    def definer(self, module, path, seen=frozenset()):
        """The module that defines what a path leads to, or None outside of the crate."""
        if (module, tuple(path)) in seen:
            return None
        seen = seen | {(module, tuple(path))}
        head, rest = path[0], path[1:]
        if head == "crate":
            return self.within((), rest, seen)
        if head == "self":
            return self.within(module, rest, seen)
        if head == "super":
            return self.within(module[:-1], rest, seen)
        if (*module, head) in self.files:
            return self.within((*module, head), rest, seen)
        for name, target in self.uses[module]:
            if name == head and target != path:
                return self.definer(module, target + rest, seen)
        return None

    def within(self, module, path, seen):
        """As `definer`, for a path that starts inside a module."""
        if not path:
            return module
        if path[0] == "super":
            return self.within(module[:-1], path[1:], seen)
        if (*module, path[0]) in self.files:
            return self.within((*module, path[0]), path[1:], seen)
        for name, target in self.uses[module]:
            if name == path[0]:
                return self.definer(module, target + path[1:], seen) or module
        return module

    def arrows(self):
        """(from file, to file) -> the paths that make it."""
        found = {}
        for module, code in self.code.items():
            paths = [target for _, target in self.uses[module] if target[-1] != "*"]
            paths += [path.split("::") for path in PATH.findall(USE.sub("", code))]
            handed_on = {"::".join(p) for t in re.findall(r"^\s*pub(?:\([^)]*\))? use ([^;]+);", code, re.M) for _, p in branches(t)}
            for path in paths:
                target = self.definer(module, path)
                # A module that hands a name of its own child on does not use it.
                if target in (None, module) or "::".join(path) in handed_on:
                    continue
                pair = (self.files[module], self.files[target])
                found.setdefault(pair, set()).add("::".join(path))
        return found


def circles(arrows):
    """The strongly connected parts with more than one member, by Tarjan's algorithm."""
    graph, index, low, stack, found = {}, {}, {}, [], []
    for a, b in arrows:
        graph.setdefault(a, []).append(b)
        graph.setdefault(b, [])

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while not part or part[-1] != node:
                part.append(stack.pop())
            if len(part) > 1:
                found.append(sorted(part))

    sys.setrecursionlimit(10_000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def folders(arrows, root):
    """The same arrows between the parts of each folder: folder -> {(part, part): file pairs}."""
    found = {}
    for a, b in arrows:
        a_parts, b_parts = (file.relative_to(root).with_suffix("").parts for file in (a, b))
        shared = 0
        while shared < min(len(a_parts), len(b_parts)) and a_parts[shared] == b_parts[shared]:
            shared += 1
        # A file and the folder of its name are one part.
        if shared < min(len(a_parts), len(b_parts)):
            pair = (a_parts[shared], b_parts[shared])
            found.setdefault(a_parts[:shared], {}).setdefault(pair, []).append((a, b))
    return found


def roots():
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    yield ROOT / "src/main.rs"
    for member in workspace["members"]:
        if (ROOT / member / "lib.rs").exists():
            yield ROOT / member / "lib.rs"


def breaches(root):
    arrows = Crate(root).arrows()
    name = lambda file: file.relative_to(ROOT).as_posix()
    tie = lambda a, b: f"    {name(a)} -> {name(b)}: {', '.join(sorted(arrows[a, b]))}"
    for circle in circles(arrows):
        ties = [tie(a, b) for a, b in sorted(arrows) if a in circle and b in circle]
        yield "\n".join([f"circle of files: {' '.join(map(name, circle))}", *ties])
    for folder, parts in sorted(folders(arrows, root.parent).items()):
        for circle in circles(parts):
            pairs = sorted({pair for (a, b), files in parts.items() if a in circle and b in circle for pair in files})
            where = name(root.parent.joinpath(*folder))
            yield "\n".join([f"circle of parts in {where}/: {' '.join(circle)}", *(tie(a, b) for a, b in pairs)])


def main():
    if sys.argv[1:] == ["--arrows"]:
        for root in roots():
            for (a, b), paths in sorted(Crate(root).arrows().items()):
                print(a.relative_to(ROOT), "->", b.relative_to(ROOT), ", ".join(sorted(paths)))
        return
    found = [breach for root in roots() for breach in breaches(root)]
    for breach in found:
        print(f"error: {breach}", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
