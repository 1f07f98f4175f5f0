#!/usr/bin/env bash
# Runs a command with another Debian's PostgreSQL and pgvector, in a chroot that is made once and kept.
#
#   tests/chroot.sh trixie make test           PostgreSQL 17 of Debian 13
#   tests/chroot.sh testing make test          PostgreSQL 18 of Debian testing
#   tests/chroot.sh trixie make bench-index    the index beside pgvector
#   tests/chroot.sh trixie                     a shell
#   tests/chroot.sh trixie --prepare           only make the chroot
#   tests/chroot.sh trixie --remove            remove it and all that was built in it
#
# Needs root and a Debian archive; installs debootstrap if that is missing. The first run makes the
# chroot, in a few minutes, below /var/tmp: CHROOT names another directory, MIRROR another archive than
# the one that this machine's apt uses. The checkout and the Rust toolchain are bind-mounted, in a mount
# namespace that ends with this script; inside, `target` is a directory of the chroot, one for each
# checkout, so that builds for two servers do not meet. Tests that need pgvector or Java are told that
# they are there: with IMGVEC_REQUIRE_PGVECTOR and IMGVEC_REQUIRE_JAVA they fail where they would skip.
#
# Exit status 75 says that the archive did not provide the chroot: nothing was run.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "chroot: $*" >&2; }
die() { say "$*"; exit 1; }
unavailable() { say "$*"; exit 75; }

suite=${1:-}
case $suite in
    trixie) major=17 ;;
    testing) major=18 ;;
    *) die "usage: tests/chroot.sh trixie|testing [command...]" ;;
esac
chroot=${CHROOT:-/var/tmp/imgvec-$suite}
# What building and testing needs, then what tests with clients need.
packages=(postgresql-$major postgresql-server-dev-$major postgresql-$major-pgvector
    gcc libc6-dev make pkg-config clang libclang-dev ca-certificates python3 python3-pip git
    python3-venv nodejs npm pgbouncer default-jdk-headless libpostgresql-jdbc-java)

[ "$(id -u)" = 0 ] || unavailable "root is needed to make and enter a chroot; run this with sudo"

# Everything else happens where mounts are ours alone and disappear with the last process.
if [ -z "${IMGVEC_CHROOT_NAMESPACE:-}" ]; then
    IMGVEC_CHROOT_NAMESPACE=1 exec unshare --mount --propagation private "tests/${0##*/}" "$@"
fi
shift
if [ "${1:-}" = --remove ]; then
    rm -rf "$chroot"
    exit
fi

mkdir -p "$chroot"
# Two runs do not make it at the same time.
exec 9>"$chroot.lock"
flock 9

inside() { env -i HOME="$HOME" PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 chroot "$chroot" "$@"; }
inside_apt() { inside env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>"$chroot.log" 2>&1; }

if [ ! -e "$chroot/etc/imgvec-suite" ]; then
    if ! command -v debootstrap >/dev/null; then
        { apt-get -qq update && apt-get -qq install --yes --no-install-recommends debootstrap; } >"$chroot.log" 2>&1 ||
            unavailable "debootstrap cannot be installed; see $chroot.log"
    fi
    say "making $chroot from $suite; this takes minutes"
    mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)}
    rm -rf "$chroot"
    debootstrap --variant=minbase "$suite" "$chroot" ${mirror:+"$mirror"} >"$chroot.log" 2>&1 ||
        unavailable "debootstrap failed; see $chroot.log"
    # The package would make a cluster that nobody asked for; tests make their own.
    mkdir -p "$chroot/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$chroot/etc/postgresql-common/createcluster.d/imgvec.conf"
    # What a power failure damages is made again.
    echo force-unsafe-io >"$chroot/etc/dpkg/dpkg.cfg.d/imgvec"
    echo "$suite" >"$chroot/etc/imgvec-suite"
fi
cp -L /etc/resolv.conf "$chroot/etc/resolv.conf"
mount -t proc proc "$chroot/proc"
# The list may have grown since the chroot was made.
if [ "$(cat "$chroot/complete" 2>/dev/null)" != "${packages[*]}" ]; then
    say "installing PostgreSQL $major and what tests need in $chroot"
    # A mirror may lag behind the lifetime of a signed list; signatures are checked all the same.
    echo 'Acquire::Check-Valid-Until "false";' >"$chroot/etc/apt/apt.conf.d/imgvec"
    # An earlier run may have been stopped half-way.
    inside dpkg --configure -a >>"$chroot.log" 2>&1 || true
    { inside_apt update && inside_apt install --yes --no-install-recommends "${packages[@]}"; } ||
        unavailable "apt-get failed; see $chroot.log"
    inside_apt clean
    echo "${packages[*]}" >"$chroot/complete"
fi
exec 9>&-
[ "${1:-}" != --prepare ] || exit 0

bind() { # directory, its place inside
    [ -d "$1" ] || return 0
    mkdir -p "$chroot$2"
    mount --bind "$1" "$chroot$2"
}
checkout=$(pwd -P)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
mount --rbind /dev "$chroot/dev"
bind "$cargo_home" "$cargo_home"
bind "$rustup_home" "$rustup_home"
# A copy: packages installed inside must not change the certificates of this machine.
[ ! -s /etc/ssl/certs/ca-certificates.crt ] ||
    cp -L /etc/ssl/certs/ca-certificates.crt "$chroot/etc/ssl/certs/ca-certificates.crt"
# Pictures and vectors that the user names, to make or in the environment, lie anywhere.
for given in "PHOTOS=${PHOTOS:-}" "VECTORS=${VECTORS:-}" "$@"; do
    case $given in PHOTOS=* | VECTORS=*) given=${given#*=} ;; *) continue ;; esac
    [ -z "$given" ] || bind "$(realpath "$(dirname "$given")")" "$(realpath "$(dirname "$given")")"
done
bind "$checkout" "$checkout"

# What was built for checkouts that are gone is of no use.
for built in "$chroot"/targets/*; do
    [ ! -e "$built/checkout" ] || [ -d "$(cat "$built/checkout")" ] || rm -rf "$built"
done
target=$chroot/targets/$(cksum <<<"$checkout" | cut -d ' ' -f 1)
mkdir -p "$checkout/target"
if [ ! -d "$target" ]; then
    rm -rf "$target.new"
    mkdir -p "$target.new"
    # Compiled dependencies are not compiled again, where they come from a Debian that is older than the chroot's;
    # cargo sees by itself what depends on the server. Its lock keeps a build here from changing them meanwhile.
    for profile in release checked; do
        built=${CARGO_TARGET_DIR:-target}/$profile
        if [ -e "$built/.cargo-lock" ] && grep -qx 'VERSION_CODENAME=bookworm' /etc/os-release; then
            flock "$built/.cargo-lock" cp -a "$built" "$target.new/"
        fi
    done
    mv "$target.new" "$target"
fi
echo "$checkout" >"$target/checkout"
# What setup would download again.
[ ! -d target/onnxruntime ] || cp -a --update target/onnxruntime "$target/"
mount --bind "$target" "$chroot$checkout/target"

[ "$#" -gt 0 ] || set -- bash
# Settings and certificates of this session pass; what names programs of this machine does not.
exec env -u PG_CONFIG -u PGRX_PG_CONFIG_PATH -u MAKEFLAGS -u MAKELEVEL -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET_DIR -u IMGVEC_CHROOT_NAMESPACE \
    HOME="$HOME" CARGO_HOME="$cargo_home" RUSTUP_HOME="$rustup_home" LC_ALL=C.UTF-8 IMGVEC_REQUIRE_PGVECTOR=1 IMGVEC_REQUIRE_JAVA=1 \
    PATH="$cargo_home/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    chroot "$chroot" sh -c 'cd "$1" && shift && exec "$@"' sh "$checkout" "$@"
