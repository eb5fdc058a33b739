#!/bin/bash
# Make .venv with the given Python (3.11 or newer), or say what is missing. Called by `make install`.
set -euo pipefail
python=${1:-python3}

if ! command -v "$python" >/dev/null; then
    echo "lading: $python not found. Install Python 3.11 or newer, or name one: make install PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "lading: $("$python" -V) is too old. Python 3.11 or newer is needed: make install PYTHON=python3.11" >&2
    exit 1
fi
if [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1; then
    exit 0
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    # Debian and Ubuntu keep ensurepip in a package of its own.
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "lading: this Python cannot make a virtual environment with pip. On Debian and Ubuntu:" >&2
    echo "    apt-get install python$version-venv" >&2
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        exit 1
    fi
    bash "$(dirname "$0")/packages.sh" "no-such-command=python$version-venv"
fi
rm -rf .venv
"$python" -m venv .venv
