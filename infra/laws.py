#!/usr/bin/env python3
"""Holds the laws of the house that Cargo and clippy cannot state by themselves.

1. Reach: which crates may not be reached from which of ours, whatever lies between them.
2. Voice: each foreign system is named in one place, and a stage does no input or output.
3. Form: every Rust file says at its head what it is, and none grows past reading.

Reads `cargo tree` and the text of the Rust files; compiles nothing. The laws are the tables below, each
with its reason. Silent when all is well; otherwise one line a breach, and exit code 1.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# From this crate, none of these may be reached by a normal dependency, at any distance.
SERVICES = ["tokio", "apalis", "apalis-redis", "object_store", "redis"]
REACH = {
    "agrpo-spec": (["tch", "torch-sys", "clap", *SERVICES], "a spec is pure"),
    "agrpo-protocols": (["tch", "torch-sys", "clap", *SERVICES], "grading is pure text"),
    "agrpo-stages": (["clap", "agrpo-jobs", *SERVICES], "a stage computes and does nothing else"),
    "agrpo-export": (["tch", "torch-sys", "clap", "agrpo-stages"], "formats are written without tensors"),
    "agrpo-scorer": (["tch", "torch-sys", "clap", "agrpo-stages", "agrpo-jobs", *SERVICES], "a program is run, and nothing else"),
    "agrpo-jobs": (["tch", "torch-sys", "clap", "agrpo-stages"], "a job never sees a tensor"),
    "agrpo-view": (["tch", "torch-sys", "clap", "agrpo-stages"], "looking at a run needs no libtorch"),
}

# What the code in these folders may not name, outside the places listed.
VOICE = [
    (r"\bapalis(_\w+)?::", ["stages", "jobs", "src"], ["jobs/queue"], "the queue is spoken to in jobs/queue.rs"),
    (r"\bobject_store::", ["stages", "jobs", "src"], ["jobs/store"], "the store is spoken to in jobs/store.rs"),
    (r"\bstd::(fs|net|process|env)\b", ["stages"], ["stages/benches"], "a stage does no input or output"),
    (r"\b(std::env|env::vars?(_os)?)\b", ["jobs", "src/view"], ["jobs/benches"], "the environment is read in src/settings.rs"),
]

LONGEST = 400


def reach_breaches():
    for crate, (forbidden, reason) in REACH.items():
        command = ["cargo", "tree", "--locked", "--package", crate, "--edges", "normal", "--prefix", "none", "--format", "{p}"]
        tree = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if tree.returncode != 0:
            sys.exit(tree.returncode)
        for name in sorted({line.split()[0] for line in tree.stdout.splitlines() if line}.intersection(forbidden)):
            yield f"{crate} reaches {name}: {reason} (cargo tree -p {crate} -e normal -i {name})"


def rust_files():
    for folder in ("stages", "jobs", "src", "tests"):
        yield from sorted((ROOT / folder).rglob("*.rs"))
    yield from sorted(ROOT.glob("*.rs"))


def code_of(text):
    """The lines of a file that are code of the product: comments blanked, unit tests at the end left out."""
    product = text.partition("\n#[cfg(test)]\nmod tests")[0]
    for number, line in enumerate(product.splitlines(), 1):
        yield number, line.partition("//")[0]


def voice_breaches(name, text):
    laws = [(pattern, reason) for pattern, folders, places, reason in VOICE
            if name.split("/")[0] in folders and not name.startswith(tuple(places)) and not name.endswith("/tests.rs")]
    for number, line in code_of(text):
        for pattern, reason in laws:
            if found := re.search(pattern, line):
                yield f"{name}:{number} names {found.group(0)}: {reason}"


def form_breaches(name, text):
    lines = text.splitlines()
    if not text.startswith("//!"):
        yield f"{name} does not open with a //! header: say what it is and what it refuses to do"
    if len(lines) > LONGEST:
        yield f"{name} has {len(lines)} lines, more than {LONGEST}: give a part of it a file of its own"


def main():
    breaches = [*reach_breaches()]
    for path in rust_files():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        breaches += [*voice_breaches(name, text), *form_breaches(name, text)]
    for breach in breaches:
        print(f"error: {breach}", file=sys.stderr)
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
