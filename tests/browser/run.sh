#!/bin/sh
# Clicks through the storefront in a headless Chromium. Installs what it needs where it is missing: Chromium, and the
# Python package that drives it, the latter below target/. Pictures of the page go to target/browser.
set -eu
cd "$(dirname "$0")/../.."

tools=target/tools/browser
fail() {
    echo "tests/browser/run.sh: $*" >&2
    exit 1
}

find_chromium() {
    for name in ${CHROMIUM:-} chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null; then
            command -v "$name"
            return
        fi
    done
    # What the driver downloads itself.
    find "$PWD/$tools/browsers" -type f \( -name chrome -o -name headless_shell -o -name chrome-headless-shell \) 2>/dev/null |
        head -n 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

command -v python3 >/dev/null || fail "python3 is missing"
if ! PYTHONPATH=$tools python3 -c "import playwright" 2>/dev/null; then
    python3 -m pip install --quiet --disable-pip-version-check --target "$tools" "playwright>=1.40,<2" ||
        fail "the package playwright could not be installed"
fi
if [ -z "$(find_chromium)" ]; then
    echo "tests/browser/run.sh: installing Chromium" >&2
    if command -v apt-get >/dev/null; then
        as_root apt-get update -q >&2 || true
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium >&2 || true
    fi
    # On some systems the package is only a hint where to get it elsewhere.
    if [ -z "$(find_chromium)" ]; then
        PLAYWRIGHT_BROWSERS_PATH=$PWD/$tools/browsers PYTHONPATH=$tools python3 -m playwright install --with-deps chromium >&2 ||
            true
    fi
fi
chromium=$(find_chromium)
[ -n "$chromium" ] || fail "Chromium is missing and could not be installed: install it, or name it in CHROMIUM"

cargo build --all-features --example storefront
CHROMIUM=$chromium PYTHONPATH=$tools python3 tests/browser/storefront.py "$@"
