#!/usr/bin/env python3
"""Draws the crates and their dependencies, from `cargo metadata`, as docs/images/house.svg.

A crate stands one floor above the highest one that it depends on; an arrow that other arrows imply is left out.
`--check` writes nothing and fails if the picture is out of date. Reads no Rust files.
"""

import json
import pathlib
import subprocess
import sys
from html import escape

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/house.svg"

# The meaning and the colour of each top folder, from left to right.
WINGS = {"stages": ("what is computed", "#dbeafe"), "src": ("who asks", "#f1f5f9"), "jobs": ("where and when", "#dcfce7")}
WIDTH, HEIGHT, GAP, FLOOR, MARGIN = 208, 66, 24, 108, 20
LETTERS = 34
PROGRAM = "The command line: the one that prints, reads the environment and exits"


def crates():
    """Name -> (folder, description, the crates that it depends on); crates below tests/ are left out."""
    command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"]
    packages = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    found = {}
    for package in packages:
        folder = pathlib.Path(package["manifest_path"]).parent.relative_to(ROOT).as_posix()
        if not folder.startswith("tests/"):
            below = {d["name"] for d in package["dependencies"] if d["kind"] is None and "path" in d}
            what = PROGRAM if folder == "." else package["description"]
            found[package["name"]] = ("src" if folder == "." else folder, what, below)
    return found


def floors(crates):
    def floor(name):
        return 1 + max((floor(below) for below in crates[name][2]), default=-1)

    return {name: floor(name) for name in crates}


def built_on(crates, name):
    """All crates that a crate depends on, directly or through others."""
    below = crates[name][2]
    return below.union(*(built_on(crates, other) for other in below))


def reduced(crates):
    """The arrows that no chain of others implies."""
    for name, (_, _, below) in crates.items():
        for other in below:
            if not any(other in built_on(crates, between) for between in below - {other}):
                yield name, other


def wrapped(text):
    """A description in at most two lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= LETTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:2] if len(lines) <= 2 else [lines[0], lines[1] + " ..."]


def places(crates):
    """The middle of each box: floors from below; stages from the left, jobs from the right, src between."""
    heights = floors(crates)
    jobs = {name for name, (folder, _, _) in crates.items() if folder.startswith("jobs/")}

    def column(name):
        folder = crates[name][0]
        if folder == "src":
            return 1.5
        if not folder.startswith("src/"):
            return 0 if folder.startswith("stages/") else 3
        return 2 if jobs & built_on(crates, name) else 1

    taken, found = set(), {}
    for name in sorted(crates, key=lambda name: crates[name][0]):
        at, floor = column(name), heights[name]
        while (at, floor) in taken:
            at += -1 if name in jobs else 1
        taken.add((at, floor))
        top = max(heights.values()) - floor
        found[name] = (MARGIN + at * (WIDTH + GAP) + WIDTH / 2, MARGIN + top * FLOOR + HEIGHT / 2)
    width = 2 * MARGIN + max(at for at, _ in taken) * (WIDTH + GAP) + WIDTH
    return found, width, 2 * MARGIN + max(heights.values()) * FLOOR + HEIGHT + 34


def picture():
    known = crates()
    at, width, height = places(known)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" role="img">'
    yield "<title>The crates of agrpo: each stands above those it is built on</title>"
    yield f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    for upper, lower in sorted(reduced(known)):
        (x1, y1), (x2, y2) = at[upper], at[lower]
        y1, y2 = y1 + HEIGHT / 2, y2 - HEIGHT / 2
        bend = (y2 - y1) / 2
        yield f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" fill="none" stroke="#94a3b8"/>'
    for name, (x, y) in sorted(at.items()):
        folder, description, _ = known[name]
        colour = WINGS[folder.split("/")[0]][1]
        yield f'<rect x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="{colour}" stroke="#64748b"/>'
        yield f'<text x="{x:.0f}" y="{y - 13:.0f}" text-anchor="middle" font-size="14" font-weight="600" fill="#0f172a">{folder}</text>'
        for line, text in enumerate(wrapped(description)):
            yield f'<text x="{x:.0f}" y="{y + 6 + 15 * line:.0f}" text-anchor="middle" font-size="11" fill="#334155">{escape(text)}</text>'
    for number, (wing, (meaning, colour)) in enumerate(WINGS.items()):
        x = MARGIN + number * 200
        yield f'<rect x="{x}" y="{height - 30:.0f}" width="14" height="14" rx="3" fill="{colour}" stroke="#64748b"/>'
        yield f'<text x="{x + 22}" y="{height - 18:.0f}" font-size="12" fill="#334155">{wing}/: {meaning}</text>'
    yield "</svg>"


def main():
    drawn = "\n".join(picture()) + "\n"
    if sys.argv[1:] != ["--check"]:
        PICTURE.write_text(drawn)
    elif not PICTURE.exists() or PICTURE.read_text() != drawn:
        sys.exit("error: docs/images/house.svg is out of date: run infra/house.py")


if __name__ == "__main__":
    main()
