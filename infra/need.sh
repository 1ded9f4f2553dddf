#!/usr/bin/env bash
# Finds programs, or reports in one line what is missing and how to install it.
#
#   need.sh build           a Rust toolchain, a C++ compiler, Python 3 with pip
#   need.sh redis-server    prints its path; installs Debian's package if it may (root, or sudo without a password)
#   need.sh chromedriver    the same, with the browser that it drives
#
# Never asks for a password and never replaces an installed program. Prints the path to standard output.
set -euo pipefail

missing() {
    echo "error: $1" >&2
    exit 1
}

build() {
    command -v cargo > /dev/null || missing "no Rust toolchain found; install one with rustup (Rust 1.95 or newer), then open a new shell"
    command -v c++ > /dev/null || missing "no C++ compiler found; on Debian or Ubuntu: sudo apt-get install build-essential"
    command -v python3 > /dev/null || missing "no python3 found; on Debian or Ubuntu: sudo apt-get install python3 python3-pip"
}

# debian PROGRAM PACKAGES ADVICE: prints the program's path; first installs Debian's packages if it is missing.
debian() {
    local program=$1 packages=$2 advice=$3
    if [[ -z $(type -P "$program") ]]; then
        local as=()
        if [[ $EUID -ne 0 ]]; then
            as=(sudo -n)
            sudo -n true 2> /dev/null ||
                missing "$program is not installed and this user may not install it; ask for: sudo apt-get install $packages"
        fi
        type -P apt-get > /dev/null || missing "$program is not installed; $advice with this system's package manager"
        echo "installing $packages (once)" >&2
        local log
        log=$(mktemp)
        # The package lists may be old or absent, so they are fetched first; a list that fails to load is ignored.
        "${as[@]}" env DEBIAN_FRONTEND=noninteractive bash -c \
            "apt-get update; apt-get install --yes --no-install-recommends $packages" < /dev/null > "$log" 2>&1 ||
            missing "apt-get could not install $packages: $(grep -E '^E:' "$log" | head -n 1) (all of it in $log)"
        rm -f "$log"
    fi
    type -P "$program" || missing "$program is installed but not on the PATH; add its folder and run the same command again"
}

case ${1:-} in
    build) build ;;
    redis-server) debian redis-server redis-server "install Redis 6.2 or newer" ;;
    chromedriver) debian chromedriver "chromium chromium-driver" "install Chromium and its WebDriver" ;;
    *) missing "usage: need.sh build|redis-server|chromedriver" ;;
esac
