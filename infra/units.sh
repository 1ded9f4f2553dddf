#!/usr/bin/env bash
# Verifies copies of the systemd units with systemd-analyze, so that neither a running systemd nor an installed agrpo
# is needed. Reports a missing systemd-analyze and succeeds.
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
