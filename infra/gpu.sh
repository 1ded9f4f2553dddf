#!/usr/bin/env bash
# Measures a GPU: gpu.sh PROGRAM [OPTIONS of agrpo bench-gpu]. `make gpu` calls it; a machine without make can, too.
# gpu.sh --pack PROGRAM packs a program into PROGRAM.xz, for `make gpu-program`.
#
# PROGRAM is an agrpo, or a packed one (its name ends in .xz; Python unpacks it, as some machines have no xz). DEVICE is cuda:0, another cuda:N, or
# cpu. A GPU needs a CUDA build of libtorch 2.11.0: AGRPO_LIBTORCH, else the torch of python3. GPU_JSON names the
# document, by default docs/bench/gpu-cuda-0.json; a page of Markdown is written beside it. Builds and downloads nothing.
set -euo pipefail

if [[ "${1:-}" == --pack ]]; then
    python3 -c 'import lzma, sys; lzma.open(sys.argv[1] + ".xz", "wb", preset=9).write(open(sys.argv[1], "rb").read())' "$2"
    size="$(stat --format %s "$2.xz")"
    if (( size > 20000000 )); then
        echo "error: $2.xz has $size bytes, more than 20 MB" >&2
        exit 1
    fi
    echo "$2.xz $size bytes"
    exit
fi

program="$(realpath "${1:?usage: gpu.sh PROGRAM [OPTIONS]}")"
if [[ -n "${AGRPO_LIBTORCH:-}" ]]; then AGRPO_LIBTORCH="$(realpath "$AGRPO_LIBTORCH")"; fi
shift
device="${DEVICE:-cuda:0}"
cd "$(dirname "$0")/.."

if [[ "$device" != cpu && -z "${AGRPO_LIBTORCH:-}" ]]; then
    find_torch='import importlib.util; print(importlib.util.find_spec("torch").submodule_search_locations[0])'
    AGRPO_LIBTORCH="$(python3 -c "$find_torch" 2> /dev/null)" || {
        echo "error: no CUDA build of libtorch 2.11.0: python3 has no torch, and AGRPO_LIBTORCH is not set; see docs/gpu.md" >&2
        exit 1
    }
fi
if [[ -n "${AGRPO_LIBTORCH:-}" ]]; then
    export AGRPO_LIBTORCH
    # A program that was built elsewhere does not find libtorch by itself.
    export LD_LIBRARY_PATH="$AGRPO_LIBTORCH/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
if [[ "$program" == *.xz ]]; then
    # What was unpacked before stays until the whole file is read.
    unpacked="${program%.xz}"
    if ! python3 -c 'import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())' "$program" > "$unpacked.part" 2> /dev/null; then
        rm -f "$unpacked.part"
        echo "error: $program cannot be unpacked" >&2
        exit 2
    fi
    mv "$unpacked.part" "$unpacked"
    program="$unpacked"
    chmod +x "$program"
fi
json="${GPU_JSON:-docs/bench/gpu-${device/:/-}.json}"
mkdir -p "$(dirname "$json")"
began="$(mktemp)"; trap 'rm -f "$began"' EXIT
ended=0
"$program" bench-gpu --device "$device" --output "$json" "$@" || ended=$?
if [[ "$json" -nt "$began" ]]; then echo "$json ${json%.json}.md"; fi
exit "$ended"
