#!/usr/bin/env bash
# Builds the PostgreSQL of Debian's sources with its own assertions (--enable-cassert), and prints its pg_config.
#
#   PG_CONFIG=$(tests/server-with-assertions.sh) make test
#
# PostgreSQL 15 of Debian 12; nothing is patched. It is built once, in some minutes, below /var/tmp: ASSERTIONS_SERVER
# names another directory, which the tests' unprivileged user must be able to read. Exit status 75 says that its
# source cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${ASSERTIONS_SERVER:-/var/tmp/imgvec-cassert}
mkdir -p "$directory"
exec 9>"$directory/lock"
flock 9
if [ ! -e "$directory/complete" ]; then
    rm -rf "$directory/server"
    tests/debian-source.sh postgresql-15 "$directory/source" bookworm
    echo "server-with-assertions: building; the log is $directory/log" >&2
    (
        cd "$directory/source"
        # Without readline, zlib and the like: nothing beyond a C compiler is needed. MEMORY_CONTEXT_CHECKING comes with
        # the assertions: freed memory is overwritten.
        ./configure --quiet --prefix="$directory/server" --enable-cassert --enable-debug --without-readline \
            --without-zlib --with-system-tzdata=/usr/share/zoneinfo CFLAGS="-O2 -g1" &&
            make --silent -j"${ASSERTIONS_JOBS:-$(nproc)}" install && make --silent -C contrib -j"${ASSERTIONS_JOBS:-$(nproc)}" install
    ) >"$directory/log" 2>&1 || {
        tail -n 20 "$directory/log" >&2
        exit 1
    }
    rm -rf "$directory/source"
    touch "$directory/complete"
fi
echo "$directory/server/bin/pg_config"
