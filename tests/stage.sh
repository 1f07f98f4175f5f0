#!/usr/bin/env bash
# Builds a private copy of the server with the extension installed in it, and prints its path.
#
# PostgreSQL before 18 finds extensions only below its own directories, and tests must not write
# there. A server program derives those directories from its own real path, relative to the layout
# it was compiled with. So the programs are copied to STAGE/<bindir>, everything else is linked at
# STAGE/<pkglibdir> and STAGE/<sharedir>, and tests/install.sh does the rest.
#
# The stage is below /tmp because a checkout below /root is closed to the unprivileged user that
# runs the servers. There is one for each checkout, server, user and build profile (IMGVEC_PROFILE: release, or
# checked); `make clean` removes them.
#
#   tests/stage.sh            make or refresh the stage
#   tests/stage.sh --remove   remove every stage of this checkout
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

pg_config=${PG_CONFIG:-/usr/bin/pg_config}
prefix=/tmp/imgvec-$(id -u)-$(pwd -P | cksum | cut -d ' ' -f 1)
if [ "${1:-}" = --remove ]; then
    rm -rf "$prefix"-*
    exit
fi
bindir=$("$pg_config" --bindir)
sharedir=$("$pg_config" --sharedir)
pkglibdir=$("$pg_config" --pkglibdir)
# Two installations of one version differ in their directories.
stage=$prefix-$({ "$pg_config" --version && "$pg_config" --bindir; } | cksum | cut -d ' ' -f 1)-${IMGVEC_PROFILE:-release}

# Two runs at the same time take turns. Nobody else may have prepared our directory for us.
mkdir -p "$stage"
[ -O "$stage" ] && [ ! -L "$stage" ] || { echo "stage: $stage belongs to somebody else" >&2; exit 1; }
exec 9>"$stage/lock"
flock 9

link_all() { # source directory, target directory
    mkdir -p "$2"
    find "$1" -mindepth 1 -maxdepth 1 ! -name 'imgvec*' -exec ln -sfn -t "$2" {} +
}
if [ ! "$stage/complete" -nt "$bindir/postgres" ]; then
    rm -rf "${stage:?}$bindir" "$stage$pkglibdir" "$stage$sharedir" "$stage"/template-*
    link_all "$pkglibdir" "$stage$pkglibdir"
    link_all "$sharedir" "$stage$sharedir"
    rm "$stage$sharedir/extension"
    link_all "$sharedir/extension" "$stage$sharedir/extension"
    mkdir -p "$stage$bindir"
    cp -L "$bindir"/* "$stage$bindir"
    ln -sfn "$stage$bindir" "$stage/bin"
    touch "$stage/complete"
fi
tests/install.sh "$stage"
echo "$stage"
