#!/usr/bin/env bash
# Asks systemd-analyze whether the units are sound, without systemd running and without agrpo installed:
# on copies in a folder of their own, with a program that is there. Says so where the tool is missing.
set -euo pipefail
cd "$(dirname "$0")/systemd"

if ! command -v systemd-analyze > /dev/null; then
    echo "units: not verified, since systemd-analyze is not installed (Debian: apt install systemd)" >&2
    exit 0
fi
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
sed 's|^ExecStart=/usr/local/bin/agrpo|ExecStart=/bin/true|' agrpo-worker@.service > "$folder/agrpo-worker@0.service"
mkdir "$folder/agrpo-worker@0.service.d"
cp credentials.conf "$folder/agrpo-worker@0.service.d/"
said="$(systemd-analyze verify --man=no "$folder/agrpo-worker@0.service" 2>&1)" || true
if [[ -n "$said" ]]; then
    echo "error: systemd-analyze verify: $said" >&2
    exit 1
fi
