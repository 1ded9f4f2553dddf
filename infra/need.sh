#!/usr/bin/env bash
# Finds programs, or says in one line what is missing and how to get it.
#
#   need.sh build           a Rust toolchain, a C++ compiler, Python 3 with pip
#   need.sh redis-server    prints its path; installs Debian's package where it may (root, or sudo without a password)
#
# Never asks for a password and never touches a program that is there. Standard output is the answer.
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

redis_server() {
    if [[ -z $(type -P redis-server) ]]; then
        local as=()
        if [[ $EUID -ne 0 ]]; then
            as=(sudo -n)
            sudo -n true 2> /dev/null ||
                missing "redis-server is not installed and this user may not install it; ask for: sudo apt-get install redis-server"
        fi
        type -P apt-get > /dev/null || missing "redis-server is not installed; install Redis 6.2 or newer with this system's package manager"
        echo "installing redis-server (once)" >&2
        local log
        log=$(mktemp)
        # The lists may be old or absent, so they are fetched first; one list that cannot be had is no obstacle.
        "${as[@]}" env DEBIAN_FRONTEND=noninteractive bash -c \
            'apt-get update; apt-get install --yes --no-install-recommends redis-server' < /dev/null > "$log" 2>&1 ||
            missing "apt-get could not install redis-server: $(grep -E '^E:' "$log" | head -n 1) (all of it in $log)"
        rm -f "$log"
    fi
    type -P redis-server || missing "redis-server is installed but not on the PATH; add its folder and run the same command again"
}

case ${1:-} in
    build) build ;;
    redis-server) redis_server ;;
    *) missing "usage: need.sh build|redis-server" ;;
esac
