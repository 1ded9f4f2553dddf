#!/usr/bin/env python3
"""Checks our dependencies against deny.toml: licences, banned crates, and sources.

Needs cargo, Python and the crates of the build, and nothing else. Reads cargo-deny's deny.toml and understands
the keys used there: the allow-list with its exceptions per crate, banned crates with their permitted dependants
(`wrappers`), wildcard versions, and the rule that every crate comes from the registry. Does not look for
advisories: `make advisories` does.
Prints nothing on success; otherwise one line for each crate, and exit code 1.
"""

import json
import pathlib
import re
import subprocess
import sys

try:
    import tomllib
except ImportError:  # Python before 3.11: pip contains tomli
    from pip._vendor import tomli as tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGISTRY = "registry+"


def allowed(expression, names):
    """Whether an SPDX expression can be met with the licences in `names`."""
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        met = both()
        while tokens and tokens[0].upper() == "OR":
            tokens.pop(0)
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0].upper() == "AND":
            tokens.pop(0)
            met = one() and met
        return met

    def one():
        token = tokens.pop(0)
        if token == "(":
            met = either()
            tokens.pop(0)
            return met
        if tokens and tokens[0].upper() == "WITH":
            tokens.pop(0)
            token += f" WITH {tokens.pop(0)}"
        return token in names

    return either()


def licence_faults(packages, rules):
    extra = {entry["crate"]: entry["allow"] for entry in rules.get("exceptions", [])}
    for package in packages:
        names = {*rules["allow"], *extra.get(package["name"], [])}
        if not package["license"]:
            yield f"{label(package)} names no licence; look at its files, then replace it or add an exception to deny.toml"
        elif not allowed(package["license"], names):
            yield f"{label(package)} is under {package['license']}; allowed are those of [licenses] in deny.toml"


def ban_faults(packages, parents, rules):
    for rule in rules.get("deny", []):
        for package in packages:
            if package["name"] != rule["crate"]:
                continue
            for parent in sorted(parents.get(package["id"], {"the workspace"})):
                if parent not in rule.get("wrappers", []):
                    yield f"{parent} may not use {label(package)}: {rule['reason']}"
    for package in packages:
        for dependency in package["dependencies"]:
            if package["source"] is None and dependency["req"] == "*" and "path" not in dependency:
                yield f"{package['name']} takes any version of {dependency['name']}; name one"


def source_faults(packages):
    for package in packages:
        if package["source"] and not package["source"].startswith(REGISTRY):
            yield f"{label(package)} comes from {package['source']}; only crates of the registry are taken"


def label(package):
    return f"{package['name']} {package['version']}"


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    for target in rules["graph"]["targets"]:
        command += ["--filter-platform", target]
    answer = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE)
    if answer.returncode != 0:
        sys.exit(answer.returncode)
    metadata = json.loads(answer.stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in nodes]
    names = {package["id"]: package["name"] for package in packages}
    parents = {}
    for node in nodes.values():
        for dependency in node["deps"]:
            parents.setdefault(dependency["pkg"], set()).add(names[node["id"]])
    faults = [
        *licence_faults(packages, rules["licenses"]),
        *ban_faults(packages, parents, rules["bans"]),
        *source_faults(packages),
    ]
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
