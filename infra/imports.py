#!/usr/bin/env python3
"""Refuses import circles and upward imports within each crate, and upward dependencies between crates.

An arrow runs from a file to each file of its crate whose items it names, in `use` lines and in paths such as
`queue::offer`; names that a module hands on (`pub use`) lead to the file that defines them, a glob to its module
and to whatever the file takes from it. In a folder, `x.rs` and the files below `x/` count as one part.

1. Circles: between files, and between the parts of one folder.
2. Floors: a part imports only from the floors below its own, in the order of FLOORS; so do crates, in that of CRATES.

Reads the text of the Rust files; compiles nothing. Test modules are left out. Prints nothing on success;
otherwise each breach with the paths that cause it, and exit code 1. `--arrows` prints every arrow instead;
`--self-test` plants known breaches in a copy of jobs/fleet and expects each to be found.
"""

import pathlib
import re
import shutil
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The parts of each crate, lowest floor first; parts between two `<` do not import each other. `lib` and `main` are
# the root file: low where it hands on names of other crates, high where it uses the parts.
FLOORS = {
    "stages/spec": "family names seed text json message < digest < content record run < stage < artifact memory plan"
                   " < cost manifest results scorer < lib",
    "stages/mathematics": "braces expression patterns < lexer python value < normalise numerical < evaluate"
                          " < calculus nodes < real_sets < grammar < extract < compare < lib",
    "stages/grading": "boxes hendrycks problem subset < custom data grade prompts < agrpo d1 truth < protocol < lib",
    "stages/compute": "lib error dedup blocks < device folder tasks tensors < kernels threads < model optimizer"
                      " < estimator sampler text fuzz_entry_points < problems < policy_cache < context"
                      " < gradient reward rollout sft"
                      " < evaluation shard update < updates < execute",
    "jobs/store": "failpoints metrics paths redact < error < regular retry span < objects < cas fetch records"
                  " < store < lib",
    "jobs/fleet": "lib metrics < coordination events planning stage < maintenance preflight status fuzz"
                  " < coordinator < executor < worker < control local < batch",
    "src/programs": "family fault launch < group pipes < folder < running < process < pool < lib",
    "src/view": "lib guard text history statistics trajectory < listener live player plot samples"
                " < figures timeline < page sections < pages report watch < serve",
    "src/export": "columns < history < rows < tensorboard card shards < lib",
    "src/lab": "lib < compare gpu_bench tune",
    "src": "exit run_summary shell supervisor < machine output secrets < progress settings"
           " < args failpoints gpu libtorch metrics < numerics session telemetry < device signals"
           " < commands < main",
    "tests/decoders": "edits spec tensors text < fleet < decoder < lib",
}
CRATES = "mathematics spec < grading store < compute fleet programs < view < export lab < agrpo decoders"

STRINGS = re.compile(r'//[^\n]*|/\*.*?\*/|b?r(#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.[^\']*|[^\'\\])\'', re.S)
PUB = r"(\bpub(?:\s*\([^)]*\))?\s+)?"
TEST_MODULE = re.compile(rf"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*{PUB}\bmod (\w+)\s*(;|\{{)")
INLINE_MODULE = re.compile(rf"{PUB}\bmod (\w+)\s*\{{")
MODULE = re.compile(rf"{PUB}\bmod (\w+);")
USE = re.compile(rf"{PUB}\buse\s+([^;<]+);")
ITEM = re.compile(r"\b(?:fn|struct|enum|union|trait|type|const(?!\s+fn)|static|macro_rules!)\s+(\w+)")
PATH = re.compile(r"(?<![\w:])((?:crate|super|self|\w+)(?:::\w+)+)")


def block_end(text, at):
    """The index after the brace that closes the block which is open at `at`."""
    depth = 1
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return at


def code_of(text):
    """The text without comments, strings and test modules."""
    text = STRINGS.sub(lambda found: " " if found[0][0] == "/" else '""', text)
    while found := TEST_MODULE.search(text):
        end = block_end(text, found.end()) if found[3] == "{" else found.end()
        text = text[: found.start()] + text[end:]
    return text


def branches(tree):
    """`a::{b, c::d as e}` as (name, path) pairs; the name of a glob is `*`."""
    tree = " ".join(tree.split())
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = tree.partition(" as ")
        parts = [part.strip() for part in path.split("::")]
        name = alias or (parts[-2] if parts[-1] == "self" else parts[-1])
        yield name, tuple(p for p in parts if p != "self" or p is parts[0])
        return
    prefix, depth, start = tree[:brace], 0, brace + 1
    for at in range(brace + 1, len(tree)):
        depth += {"{": 1, "}": -1}.get(tree[at], 0)
        if (tree[at] == "," and depth == 0) or depth < 0:
            if inner := tree[start:at].strip():
                yield from branches(prefix + inner)
            start = at + 1


class Crate:
    """The modules of a crate, inline ones too: ("crate", "a", "b") for `crate::a::b`."""

    def __init__(self, root):
        self.files, self.body, self.items, self.uses = {}, {}, {}, {}
        self.read(("crate",), root, root.parent, code_of(root.read_text()))

    def read(self, module, file, folder, code):
        """A module's own code; `folder` is where its children lie."""
        while found := INLINE_MODULE.search(code):
            end = block_end(code, found.end())
            self.read((*module, found[2]), file, folder / found[2], code[found.end() : end - 1])
            code = code[: found.start()] + code[end:]
        self.files[module] = file
        # `pub(in crate::a)` names a module and imports nothing.
        self.body[module] = re.sub(PUB, "", MODULE.sub("", USE.sub("", code)))
        self.items[module] = set(ITEM.findall(code))
        # Whether it is handed on, the name in this module, the path that it stands for.
        self.uses[module] = [(bool(pub), *pair) for pub, tree in USE.findall(code) for pair in branches(tree)]
        for _, name in MODULE.findall(code):
            child = folder / f"{name}.rs"
            child = child if child.exists() else folder / name / "mod.rs"
            self.read((*module, name), child, folder / name, code_of(child.read_text()))

    def find(self, module, path, seen=frozenset()):
        """The module that defines what a path leads to, or None where the module does not know its first name."""
        if not path:
            return module
        if (module, path) in seen:
            return None
        seen = seen | {(module, path)}
        head, rest = path[0], path[1:]
        ahead = {"crate": ("crate",), "self": module, "super": module[:-1]}.get(head, (*module, head))
        if ahead in self.files:
            return self.find(ahead, rest, seen) or ahead
        for _, name, target in self.uses[module]:
            if name == head:
                return self.find(module, target + rest, seen) or module
        if head in self.items[module]:
            return module
        for glob in self.globs(module):
            if (base := self.find(module, glob, seen)) and (found := self.find(base, path, seen)):
                return found
        return None

    def globs(self, module):
        return [target[:-1] for _, name, target in self.uses[module] if name == "*"]

    def paths(self, module):
        """The paths that a module uses, those aside that it only hands on from modules below it."""
        words = set(re.findall(r"(?<![\w:])\w+", self.body[module]))
        for pub, name, target in self.uses[module]:
            target = target[:-1] if name == "*" else target
            below = (self.find(module, target) or ())[: len(module)] == module
            if name == "*":
                yield from ((*target, word) for word in words)
            if not (pub and below and name not in words):
                yield target
        yield from (tuple(path.split("::")) for path in PATH.findall(self.body[module]))

    def arrows(self):
        """(from file, to file) -> the paths that make it."""
        found = {}
        for module, file in self.files.items():
            for path in self.paths(module):
                target = self.find(module, path)
                if target and self.files[target] != file:
                    found.setdefault((file, self.files[target]), set()).add("::".join(path))
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


def climbing(order, pairs):
    """The pairs that do not lead to a lower floor; a part that the order does not name is below nothing."""
    floor = {part: number for number, parts in enumerate(order.split("<")) for part in parts.split()}
    return [(a, b) for a, b in sorted(pairs) if floor.get(a, -1) <= floor.get(b, len(order))]


def breaches(root, base=ROOT):
    """The breaches in one crate of the tree that begins at `base`."""
    arrows = Crate(root).arrows()
    parts_of = folders(arrows, root.parent)
    name = lambda file: file.relative_to(base).as_posix()
    tie = lambda a, b: f"    {name(a)} -> {name(b)}: {', '.join(sorted(arrows[a, b]))}"
    for circle in circles(arrows):
        ties = [tie(a, b) for a, b in sorted(arrows) if a in circle and b in circle]
        yield "\n".join([f"circle of files: {' '.join(map(name, circle))}", *ties])
    for folder, parts in sorted(parts_of.items()):
        for circle in circles(parts):
            pairs = sorted({pair for (a, b), files in parts.items() if a in circle and b in circle for pair in files})
            where = name(root.parent.joinpath(*folder))
            yield "\n".join([f"circle of parts in {where}/: {' '.join(circle)}", *(tie(a, b) for a, b in pairs)])
    parts = parts_of.get((), {})
    for a, b in climbing(FLOORS.get(name(root.parent), ""), parts):
        what = f"upward import in {name(root.parent)}/: {a} -> {b}, which FLOORS does not place below it"
        yield "\n".join([what, *(tie(*pair) for pair in sorted(parts[a, b]))])


def upward_dependencies():
    program = tomllib.loads((ROOT / "Cargo.toml").read_text())
    members = [tomllib.loads((ROOT / member / "Cargo.toml").read_text()) for member in program["workspace"]["members"]]
    pairs = [(manifest["package"]["name"].removeprefix("agrpo-"), name.removeprefix("agrpo-"))
             for manifest in [program, *members] for name in manifest["dependencies"] if name.startswith("agrpo-")]
    for upper, lower in climbing(CRATES, pairs):
        yield f"upward dependency: {upper} -> {lower}, which CRATES does not place below it"


# What to write into which file of jobs/fleet, and what is to be found.
WALK, STATUS = "circle of files", "upward import in jobs/fleet/: coordination -> status"
PLANTS = [
    ("planning/steps.rs", "use super::walk::Walk;", WALK),
    ("planning/steps.rs", "use super::walk::*;", WALK),
    ("planning/steps.rs", "use super::*;\nfn of(_: &Walk) {}", WALK),
    ("planning/steps.rs", "pub(crate) use super::walk::Walk;\nfn of(_: &Walk) {}", WALK),
    ("planning/steps.rs", "pub(crate) use crate::planning::Walk;", WALK),
    ("planning/steps.rs", "mod inner { use super::super::walk::Walk; }", WALK),
    ("planning/steps.rs", "fn of() { super::walk::walk(); }", WALK),
    ("coordination/keys.rs", "use crate::status::RunState;", STATUS),
    ("coordination/keys.rs", "mod inner { pub use crate::status::*; }", STATUS),
]


def self_test():
    """What was planted and not found, or found without being planted."""
    with tempfile.TemporaryDirectory() as scratch:
        fleet = pathlib.Path(scratch, "jobs/fleet")
        shutil.copytree(ROOT / "jobs/fleet", fleet)
        found = lambda: list(breaches(fleet / "lib.rs", pathlib.Path(scratch)))
        yield from (f"self-test: nothing was planted: {breach}" for breach in found())
        for file, plant, expected in PLANTS:
            text = (fleet / file).read_text()
            (fleet / file).write_text(f"{plant}\n{text}")
            if not any(breach.startswith(expected) and file in breach for breach in found()):
                yield f"self-test: not found in {file}: {plant}"
            (fleet / file).write_text(text)


def main():
    if sys.argv[1:] == ["--arrows"]:
        for root in roots():
            for (a, b), paths in sorted(Crate(root).arrows().items()):
                print(a.relative_to(ROOT), "->", b.relative_to(ROOT), ", ".join(sorted(paths)))
        return
    if sys.argv[1:] == ["--self-test"]:
        found = [*self_test()]
    else:
        found = [*upward_dependencies(), *(breach for root in roots() for breach in breaches(root))]
    for breach in found:
        print(f"error: {breach}", file=sys.stderr)
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
