#!/usr/bin/env bash
# Runs the index benchmark on Debian 13: PostgreSQL 17, beside pgvector 0.8, in a chroot of its own.
#
#   benches/chroot.sh                       make bench-index
#   benches/chroot.sh make bench-index ROWS=20000 SETS=manifold
#   benches/chroot.sh --remove              remove the chroot and what was built in it
#
# Needs root, debootstrap and a Debian archive. The first run makes the chroot, in a minute or a few;
# CHROOT is its directory, MIRROR the archive it comes from, by default the one that this machine's
# apt uses. The checkout and the Rust toolchain are bind-mounted, in a mount namespace that ends with
# this script; inside, `target` is a directory of the chroot, so that builds for two servers do not meet.
set -euo pipefail
cd "$(dirname "$0")/.."

suite=trixie
major=17
chroot=${CHROOT:-/var/tmp/imgvec-$suite}
packages=(postgresql-$major postgresql-server-dev-$major postgresql-$major-pgvector
    gcc libc6-dev make pkg-config clang libclang-dev ca-certificates python3 python3-pip python3-venv git)

say() { echo "chroot: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "root is needed to make and enter a chroot; run this with sudo"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"

# Everything else happens where mounts are ours alone and disappear with the last process.
if [ -z "${IMGVEC_CHROOT_NAMESPACE:-}" ]; then
    IMGVEC_CHROOT_NAMESPACE=1 exec unshare --mount --propagation private "benches/${0##*/}" "$@"
fi
if [ "${1:-}" = --remove ]; then
    rm -rf "$chroot"
    exit
fi

mkdir -p "$chroot"
# Two runs do not make it at the same time.
exec 9>"$chroot.lock"
flock 9

inside() { env -i HOME="$HOME" PATH="$PATH:/usr/sbin:/usr/bin:/sbin:/bin" LC_ALL=C.UTF-8 chroot "$chroot" "$@"; }

if [ ! -e "$chroot/complete" ]; then
    say "making $chroot from $suite; this takes minutes"
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)}
    rm -rf "$chroot"
    debootstrap --variant=minbase $suite "$chroot" ${mirror:+"$mirror"} >"$chroot.log" 2>&1 ||
        die "debootstrap failed; see $chroot.log"
    # The package would make a cluster that nobody asked for; the benchmark makes its own.
    mkdir -p "$chroot/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$chroot/etc/postgresql-common/createcluster.d/imgvec.conf"
    mount -t proc proc "$chroot/proc"
    inside env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
        "${packages[@]}" >>"$chroot.log" 2>&1 || die "apt-get failed; see $chroot.log"
    umount "$chroot/proc"
    touch "$chroot/complete"
fi

bind() { # directory, its place inside
    [ -d "$1" ] || return 0
    mkdir -p "$chroot$2"
    mount --bind "$1" "$chroot$2"
}
checkout=$(pwd -P)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
mount -t proc proc "$chroot/proc"
mount --rbind /dev "$chroot/dev"
bind "$cargo_home" "$cargo_home"
bind "$rustup_home" "$rustup_home"
bind /etc/ssl/certs /etc/ssl/certs
cp -L /etc/resolv.conf "$chroot/etc/resolv.conf"
# Pictures and vectors that the user names, to make or in the environment, lie anywhere.
for given in "PHOTOS=${PHOTOS:-}" "VECTORS=${VECTORS:-}" "$@"; do
    case $given in PHOTOS=* | VECTORS=*) given=${given#*=} ;; *) continue ;; esac
    [ -z "$given" ] || bind "$(realpath "$(dirname "$given")")" "$(realpath "$(dirname "$given")")"
done
bind "$checkout" "$checkout"
mkdir -p "$chroot/target" "$checkout/target"
# What setup would download again.
[ ! -d target/onnxruntime ] || cp -a --update target/onnxruntime "$chroot/target/"
mount --bind "$chroot/target" "$chroot$checkout/target"

[ "$#" -gt 0 ] || set -- make bench-index
# Settings and certificates of this session pass; what names programs of this machine does not.
exec 9>&-
exec env -u PG_CONFIG -u PGRX_PG_CONFIG_PATH -u MAKEFLAGS -u MAKELEVEL -u CARGO_TARGET_DIR -u IMGVEC_CHROOT_NAMESPACE \
    HOME="$HOME" CARGO_HOME="$cargo_home" RUSTUP_HOME="$rustup_home" LC_ALL=C.UTF-8 \
    PATH="$cargo_home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    chroot "$chroot" sh -c 'cd "$1" && shift && exec "$@"' sh "$checkout" "$@"
