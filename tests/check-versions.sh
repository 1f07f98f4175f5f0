#!/usr/bin/env bash
# Compiles the extension for server versions that no Debian release has; nothing is linked or run.
#
#   tests/check-versions.sh 14 16
#
# 16 is checked against the headers of 16.2, which a Python wheel carries with a whole server; pgrx generates its
# bindings from them as for any server. For 14 no headers can be had: there, and for 16 on machines that the wheel
# is not for, the types are checked against the bindings that pgrx generated at its release and ships.
set -euo pipefail
cd "$(dirname "$0")/.."

wheel_sha256=1a5d07c61d51f2abfef4ef61e2ef5cd014b994f7e09de8d3c140d2cf370e84a8
say() { echo "check-versions: $*" >&2; }

# Prints the pg_config of the wheel's server; fails if that cannot be had.
server_16() {
    local directory=target/server-16 wheel
    if [ ! -e "$directory/complete" ]; then
        [ "$(uname -m)" = x86_64 ] || return 1
        rm -rf "$directory"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$directory" \
            --python-version 3.12 --platform manylinux2014_x86_64 pgserver==0.1.4 >&2 || return 1
        wheel=$(echo "$directory"/*.whl)
        echo "$wheel_sha256  $wheel" | sha256sum --check --quiet - >&2 || return 1
        python3 -m zipfile --extract "$wheel" "$directory" && rm "$wheel" || return 1
        chmod +x "$directory"/pgserver/pginstall/bin/*
        touch "$directory/complete"
    fi
    echo "$PWD/$directory/pgserver/pginstall/bin/pg_config"
}

for major in "$@"; do
    check=(cargo check --quiet --lib --no-default-features --features "pg$major")
    if [ "$major" = 16 ] && pg_config=$(server_16); then
        say "PostgreSQL 16: the headers of $("$pg_config" --version)"
        PGRX_PG_CONFIG_PATH=$pg_config CARGO_TARGET_DIR=target/headers "${check[@]}"
    else
        say "PostgreSQL $major: the bindings that pgrx ships"
        DOCS_RS=1 RUSTC_WRAPPER=$PWD/tests/rustc-with-shipped-bindings.sh CARGO_TARGET_DIR=target/bindings "${check[@]}"
    fi
done
