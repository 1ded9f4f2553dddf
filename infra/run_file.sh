#!/usr/bin/env bash
# Prints the file of a run, or lists all runs.
#
#   run_file.sh NAME      prints jobs/runs/NAME.toml if it exists
#   run_file.sh --list    prints every run with the first comment of its file
set -euo pipefail
cd "$(dirname "$0")/.."

names() {
    find jobs/runs -maxdepth 1 -name '*.toml' -printf '%f\n' | sed 's/\.toml$//' | sort
}

if [[ ${1:-} == --list ]]; then
    names | while read -r name; do
        printf '  %-27s %s\n' "$name" "$(sed -n '1s/^#[# ]*//p' "jobs/runs/$name.toml")"
    done
    exit
fi

name=${1:-}
file=jobs/runs/$name.toml
if [[ ! $name =~ ^[A-Za-z0-9_.-]+$ || ! -f $file ]]; then
    [[ -n $name ]] && trouble="RUN=$name names no run" || trouble="which run? say RUN=NAME"
    echo "error: $trouble; there are: $(names | paste -sd ' ')" >&2
    exit 2
fi
echo "$file"
