#!/usr/bin/env python3
"""Holds the laws of the house that Cargo and clippy cannot state by themselves.

1. Reach: which crates may not be reached from which of ours, whatever lies between them.
2. Voice: each foreign system is named in one place, and a stage does no input or output.
3. Form: every Rust file says at its head what it is, and none grows past reading.
4. Features: tests ask no crate for a feature that the program does not ask for, or it would be compiled twice.

Reads `cargo tree` and the text of the Rust files; compiles nothing. The laws are the tables below, each
with its reason. Silent when all is well; otherwise one line a breach, and exit code 1.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# From this crate, none of these may be reached by a normal dependency, at any distance.
SERVICES = ["tokio", "apalis", "apalis-core", "object_store", "redis"]
REACH = {
    "agrpo-mathematics": (["tch", "torch-sys", "clap", "agrpo-spec", *SERVICES], "answers are compared by value, and nothing else"),
    "agrpo-spec": (["tch", "torch-sys", "clap", *SERVICES], "a spec is pure"),
    "agrpo-grading": (["tch", "torch-sys", "clap", *SERVICES], "grading is pure text"),
    "agrpo-compute": (["clap", "agrpo-store", "agrpo-fleet", *SERVICES], "a stage computes and does nothing else"),
    "agrpo-export": (["tch", "torch-sys", "clap", "agrpo-compute"], "formats are written without tensors"),
    "agrpo-programs": (["tch", "torch-sys", "clap", "agrpo-compute", "agrpo-store", "agrpo-fleet", *SERVICES], "a program is run, and nothing else"),
    "agrpo-store": (["tch", "torch-sys", "clap", "apalis", "apalis-core", "redis"], "the store knows no tensors, no queue and no fleet"),
    "agrpo-fleet": (["tch", "torch-sys", "clap", "agrpo-compute"], "a job never sees a tensor"),
    "agrpo-view": (["tch", "torch-sys", "clap", "agrpo-compute"], "looking at a run needs no libtorch"),
}

# What the code in these folders may not name, outside the places listed.
VOICE = [
    (r"\bapalis(_\w+)?::", ["stages", "jobs", "src"], ["jobs/fleet/coordination/consumer.rs"], "apalis is named in jobs/fleet/coordination/consumer.rs"),
    (r"\bobject_store::", ["stages", "jobs", "src"], ["jobs/store/objects"], "object_store is named in jobs/store/objects"),
    (r"\bstd::(fs|net|process|env)\b", ["stages"], ["stages/compute/benches"], "a stage does no input or output"),
    (r"\b(std::env|env::vars?(_os)?)\b", ["jobs", "src/view"], ["jobs/fleet/benches"], "the environment is read in src/settings.rs"),
]

LONGEST = 400


def cargo_tree(form, *arguments):
    """The lines of `cargo tree`, each once."""
    command = ["cargo", "tree", "--locked", "--prefix", "none", "--no-dedupe", "--format", form, *arguments]
    tree = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if tree.returncode != 0:
        sys.exit(tree.returncode)
    return {line.strip() for line in tree.stdout.splitlines() if line}


def reach_breaches():
    for crate, (forbidden, reason) in REACH.items():
        names = {line.split()[0] for line in cargo_tree("{p}", "--package", crate, "--edges", "normal")}
        for name in sorted(names.intersection(forbidden)):
            yield f"{crate} reaches {name}: {reason} (cargo tree -p {crate} -e normal -i {name})"


def feature_breaches():
    program = cargo_tree("{p} [{f}]", "--package", "agrpo", "--edges", "normal,build")
    tests = cargo_tree("{p} [{f}]", "--workspace", "--edges", "normal,build,dev")
    crates = {line.rpartition(" [")[0] for line in program}
    for line in sorted(tests - program):
        crate, _, features = line.rpartition(" [")
        if crate in crates:
            yield f"{crate} is compiled again for tests, with features {features[:-1]}: ask for them in Cargo.toml as well"


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
            if name.split("/")[0] in folders and not name.startswith(tuple(places))
            and not name.endswith(("/tests.rs", "/testing.rs")) and "/tests/" not in name]
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
    breaches = [*reach_breaches(), *feature_breaches()]
    for path in rust_files():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        breaches += [*voice_breaches(name, text), *form_breaches(name, text)]
    for breach in breaches:
        print(f"error: {breach}", file=sys.stderr)
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
