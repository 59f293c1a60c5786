#!/usr/bin/env bash
# Prints the path of a Chromium for the browser tests; installs Debian's where there is none.
# As root or with sudo it becomes a package of the system, otherwise it is unpacked in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=$PWD/.cache/browser

say() {
    printf '%s\n' "$*" >&2
}

found() {
    local name
    for name in ${CHROMIUM:-} "$cache/chromium" chromium chromium-browser google-chrome; do
        # Ubuntu has a script of that name which only tells people to install a snap.
        if "$name" --version > /dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    return 1
}

install_as_root() {
    local root=(env DEBIAN_FRONTEND=noninteractive)
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2> /dev/null || return 1
        root=(sudo -n "${root[@]}")
    fi
    say "Installing Chromium with apt-get ..."
    "${root[@]}" apt-get -qq update >&2
    "${root[@]}" apt-get -qq install -y --no-install-recommends chromium > /dev/null
}

# apt-get with lists, cache and locks in a folder of ours: any user may run it.
own_apt_get() {
    apt-get -qq -o Dir::State="$cache/state" -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache="$cache/apt" -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
}

unpack_as_user() {
    local package libraries root=$cache/root
    say "Unpacking Chromium into .cache/browser ..."
    rm -rf "$cache"
    mkdir -p "$cache"/state/lists/partial "$cache"/apt/archives/partial "$root"
    own_apt_get update >&2
    own_apt_get install -y --no-install-recommends --download-only chromium > /dev/null
    for package in "$cache"/apt/archives/*.deb; do
        dpkg -x "$package" "$root"
    done
    rm -rf "$cache/apt" "$cache/state"
    # Some packages keep libraries in a folder of their own, known to them by its usual place.
    libraries=$(find "$root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
    cat > "$cache/chromium" << EOF
#!/bin/sh
export LD_LIBRARY_PATH="$libraries"
export FONTCONFIG_PATH="\$([ -d /etc/fonts ] && echo /etc/fonts || echo "$root/etc/fonts")"
exec "$root/usr/lib/chromium/chromium" "\$@"
EOF
    chmod +x "$cache/chromium"
}

if ! found; then
    if ! command -v apt-get > /dev/null; then
        say "The browser tests need Chromium: install it, or name one by CHROMIUM=/path/to/it."
        exit 1
    fi
    install_as_root || unpack_as_user
    found || { say "Chromium was installed but does not start."; exit 1; }
fi
