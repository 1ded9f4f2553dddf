#!/usr/bin/env python3
"""Checks rules of this repository that Cargo and clippy cannot express.

1. REACH: crates that one of our crates may not depend on, directly or through others.
2. NAMES: each external system is named in one place, and a stage does no input or output.
3. Files: every Rust file begins with a `//!` comment and has at most 400 lines.
4. Features: tests request no feature of a crate that the program does not request, or it would be compiled twice.

Reads `cargo tree` and the text of the Rust files; compiles nothing. The tables below state each rule
with its reason. Prints nothing on success; otherwise one line for each breach, and exit code 1.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# From this crate, no chain of normal dependencies may lead to one of these.
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
NAMES = [
    (r"\bapalis(_\w+)?::", ["stages", "jobs", "src"], ["jobs/fleet/coordination/consumer.rs"], "apalis is named in jobs/fleet/coordination/consumer.rs"),
    (r"\bobject_store::", ["stages", "jobs", "src"], ["jobs/store/objects"], "object_store is named in jobs/store/objects"),
    (r"\bstd::(fs|net|process|env)\b", ["stages"], ["stages/compute/benches"], "a stage does no input or output"),
    (r"\b(std::env|env::vars?(_os)?)\b", ["jobs", "src/view"], ["jobs/fleet/benches"], "the environment is read in src/settings.rs"),
]

LONGEST = 400


def cargo_tree(form, *arguments):
    """The distinct lines of `cargo tree`."""
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
    """The numbered lines of a file without comments and without the unit tests at its end."""
    product = text.partition("\n#[cfg(test)]\nmod tests")[0]
    for number, line in enumerate(product.splitlines(), 1):
        yield number, line.partition("//")[0]


def name_breaches(name, text):
    laws = [(pattern, reason) for pattern, folders, places, reason in NAMES
            if name.split("/")[0] in folders and not name.startswith(tuple(places))
            and not name.endswith(("/tests.rs", "/testing.rs")) and "/tests/" not in name]
    for number, line in code_of(text):
        for pattern, reason in laws:
            if found := re.search(pattern, line):
                yield f"{name}:{number} names {found.group(0)}: {reason}"


def file_breaches(name, text):
    lines = text.splitlines()
    if not text.startswith("//!"):
        yield f"{name} does not begin with a //! comment: say what it is and what it refuses to do"
    if len(lines) > LONGEST:
        yield f"{name} has {len(lines)} lines, more than {LONGEST}: move a part of it to another file"


def main():
    breaches = [*reach_breaches(), *feature_breaches()]
    for path in rust_files():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        breaches += [*name_breaches(name, text), *file_breaches(name, text)]
    for breach in breaches:
        print(f"error: {breach}", file=sys.stderr)
    sys.exit(bool(breaches))


if __name__ == "__main__":
    main()
