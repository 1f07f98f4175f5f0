#!/usr/bin/env bash
# Upgrades this machine's PostgreSQL, with live ann indexes, to that of another Debian: runs the test of pg_upgrade
# in the chroot of tests/chroot.sh, where it finds a copy of this machine's server with the extension in it.
#
#   tests/pg-upgrade.sh trixie      from this machine's version to PostgreSQL 17
#   tests/pg-upgrade.sh testing     to PostgreSQL 18
#
# Needs `make build PROFILE=checked` done here. The server of the older Debian runs in the newer one with the few libraries that
# the newer one lacks; its C library runs older programs.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=${1:?usage: tests/pg-upgrade.sh trixie|testing}
case $suite in
    trixie) major=17 ;;
    testing) major=18 ;;
    *) echo "upgrade: unknown suite $suite" >&2; exit 1 ;;
esac
chroot=${CHROOT:-/var/tmp/imgvec-$suite}
tests/chroot.sh "$suite" --prepare

# The stage lies at the same path inside; links to this machine's files are followed. One for each checkout.
export IMGVEC_PROFILE=checked
stage=$(env -u PG_CONFIG tests/stage.sh)
old=/opt/imgvec-old-$(pwd -P | cksum | cut -d ' ' -f 1)
rm -rf "${chroot:?}$old"
mkdir -p "$chroot$old"
trap 'rm -rf "${chroot:?}$old"' EXIT
bindir=$(pg_config --bindir)
pkglibdir=$(pg_config --pkglibdir)
sharedir=$(pg_config --sharedir)
tar --create --dereference --directory "$stage" "${bindir#/}" "${pkglibdir#/}" "${sharedir#/}" |
    tar --extract --directory "$chroot$old"
ln -s "$old$bindir" "$chroot$old/bin"

# Libraries of programs, of what they load and of those in turn, unless the chroot has one of that name.
mkdir "$chroot$old/missing"
ldd "$bindir"/* 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
    while read -r name path; do
        compgen -G "$chroot/usr/lib/*/$name" >/dev/null || compgen -G "$chroot/lib*/$name" >/dev/null ||
            cp -L "$path" "$chroot$old/missing/$name"
    done

# Only the test itself is to see them: cargo would build anew for an environment that differs.
runner="target.'cfg(unix)'.runner = ['env', 'LD_LIBRARY_PATH=$old/missing']"
feature="--no-default-features --features pg$major"
tests/chroot.sh "$suite" bash -c "
    set -euo pipefail
    cargo build --profile checked $feature
    cargo test --profile checked --test server --no-run $feature
    export IMGVEC_STAGE=\$(tests/stage.sh) IMGVEC_OLD_STAGE=$old IMGVEC_REQUIRE_OLD_STAGE=1
    cargo test --profile checked --test server $feature --config \"$runner\" -- operations::upgrade"
