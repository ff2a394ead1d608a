#!/bin/sh
# Runs all tests, with all features, and a minute of the soak. Installs what they need where it is missing: a Redis
# server, python3 for the stress test of the Lua scripts, and into target/tools PyJWT, for a service that knows only
# JWTs, and Prometheus' own parser. Arguments go to `cargo test`, for example: sh tests/run.sh --test harness
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "tests/run.sh: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install PROGRAM APT-PACKAGE DNF-PACKAGE APK-PACKAGE BREW-PACKAGE
install() {
    echo "tests/run.sh: installing $1" >&2
    if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null && ! command -v brew >/dev/null; then
        fail "$1 is missing, and installing it needs root: install it yourself (apt-get install $2)"
    fi
    if command -v apt-get >/dev/null; then
        as_root apt-get update -q >&2 || fail "apt-get update failed, and $1 is missing"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$2" >&2 || true
    elif command -v dnf >/dev/null; then
        as_root dnf install -q -y "$3" >&2 || true
    elif command -v apk >/dev/null; then
        as_root apk add -q "$4" >&2 || true
    elif command -v brew >/dev/null; then
        brew install -q "$5" >&2 || true
    fi
}

have_redis() {
    if [ -n "${REDIS_SERVER:-}" ]; then
        command -v "$REDIS_SERVER" >/dev/null || fail "REDIS_SERVER=$REDIS_SERVER is no program"
    elif ! command -v redis-server >/dev/null; then
        # Valkey is what some systems install under the name of Redis.
        command -v valkey-server >/dev/null || return 1
        REDIS_SERVER=valkey-server
        export REDIS_SERVER
    fi
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
have_redis || install redis-server redis-server redis redis redis
have_redis || fail "redis-server is missing and could not be installed: install Redis 7.0 or newer, or Valkey"
command -v python3 >/dev/null || install python3 python3 python3 python3 python3
command -v python3 >/dev/null || fail "python3 is missing and could not be installed"

packages="PyJWT==2.15.1 prometheus-client==0.26.0"
probe="import jwt, prometheus_client.parser; jwt.InvalidAudienceError"
if ! PYTHONPATH=target/tools/python python3 -c "$probe" 2>/dev/null; then
    python3 -m pip --version >/dev/null 2>&1 || install python3-pip python3-pip python3-pip py3-pip python3
    # shellcheck disable=SC2086 # several words
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target target/tools/python \
        $packages >&2 || fail "$packages are missing and could not be installed by pip"
fi

# Tests of several processes start the gateway itself.
if [ -e examples/gateway ]; then
    cargo build --all-features --example gateway
fi
# A minute of a whole fleet under faults, and what shows that its checker sees; a crate of its own.
if [ $# = 0 ]; then
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
    export CARGO_TARGET_DIR
    cargo test --locked --manifest-path tests/soak/Cargo.toml
    cargo run --locked --manifest-path tests/soak/Cargo.toml -- --prove
    cargo run --locked --manifest-path tests/soak/Cargo.toml
fi
cargo test --all-features --no-fail-fast "$@"
# The page of the storefront, in a browser.
if [ $# = 0 ]; then
    sh tests/browser/run.sh
fi
