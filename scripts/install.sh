#!/usr/bin/env bash
# Makes .venv and installs the project into it: scripts/install.sh local|dev
# Does nothing when that has been done for this pyproject.toml, and mends a half-made .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

extra=$1
venv=.venv
stamp=$venv/installed-$extra
# A virtual environment cannot be moved, so the stamp holds its place, too.
wanted="$PWD $(cksum < pyproject.toml)"

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; name one by: make run PYTHON=/path/to/python3"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif sudo -n true 2> /dev/null; then
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    else
        return 1
    fi
}

# Debian keeps ensurepip, which venv needs, in a package of its own.
install_ensurepip() {
    local package
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    command -v apt-get > /dev/null || fail "$1 has no ensurepip: install it, then try again."
    echo "Installing $package ..."
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get -qq update > /dev/null \
        && as_root apt-get -qq install -y --no-install-recommends "$package" > /dev/null \
        || fail "$1 cannot make virtual environments: run \`apt-get install $package\` as root."
}

make_venv() {
    local python
    python=$(find_python)
    "$python" -c 'import ensurepip' 2> /dev/null || install_ensurepip "$python"
    echo "Making $venv with $("$python" --version) ..."
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && [ -x $venv/bin/python ]; then
    exit 0
fi
if ! $venv/bin/python -m pip --version > /dev/null 2>&1 \
    || { [ -f $venv/place ] && [ "$(cat $venv/place)" != "$PWD" ]; }; then
    make_venv
fi
pwd > $venv/place
rm -f "$stamp"

echo "Installing into $venv (up to 6 GB the first time, mostly PyTorch; a few minutes) ..."
# Of what pip has to say, the large downloads show that it is alive; errors come through.
PYTHONUNBUFFERED=1 $venv/bin/python -m pip install --disable-pip-version-check \
    --progress-bar off --editable ".[$extra]" \
    | sed -unE -e 's/^ *(Downloading .*\(([0-9]{3,}\.[0-9]+ MB|.* GB)\)).*/  \1/p' \
        -e 's/^Installing collected.*/  Unpacking .../p'
echo "$wanted" > "$stamp"
