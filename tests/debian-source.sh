#!/usr/bin/env bash
# Downloads the upstream source of a Debian package and unpacks it; nothing on this machine is configured for that.
#
#   tests/debian-source.sh pgvector target/pgvector testing trixie    from the first release that has it
#   tests/debian-source.sh postgresql-15 DIRECTORY bookworm
#
# Exit status 75 says that no archive provided it: the directory is as it was.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$#" -ge 3 ] || { echo "usage: tests/debian-source.sh package directory release..." >&2; exit 2; }
package=$1
directory=$2
shift 2
say() { echo "debian-source: $*" >&2; }
unavailable() { say "$*"; exit 75; }

command -v apt-get >/dev/null || unavailable "there is no apt-get here"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || unavailable "the keys of Debian's archive are not here: $keyring"
mirror=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -n 1)}
[ -n "$mirror" ] || unavailable "apt here knows no Debian archive; set MIRROR to one"

# apt's own state, here and for this run only. Signatures are checked; a mirror may lag behind the lifetime of a list.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"/{lists,cache/archives}/partial "$scratch/files"
options=(-qq -o "Dir::Etc::sourcelist=$scratch/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o Acquire::Check-Valid-Until=false
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
for release in "$@"; do
    echo "deb-src [signed-by=$keyring] $mirror $release main" >"$scratch/sources.list"
    if apt-get "${options[@]}" update >"$scratch/log" 2>&1 &&
        (cd "$scratch/files" && apt-get "${options[@]}" source --download-only "$package" >>"$scratch/log" 2>&1); then
        archive=$(compgen -G "$scratch/files/*.orig.tar.*" | grep -v '\.asc$')
        say "$(basename "$archive"), of Debian's $release"
        mkdir "$scratch/tree"
        tar --extract --file "$archive" --directory "$scratch/tree" --strip-components 1
        rm -rf "$directory"
        mkdir -p "$(dirname "$directory")"
        chmod 755 "$scratch/tree"
        mv "$scratch/tree" "$directory"
        exit
    fi
    say "$package of Debian's $release cannot be had: $(grep -m 1 '^[EW]:' "$scratch/log" || tail -n 1 "$scratch/log")"
    rm -rf "$scratch"/files/* "$scratch"/lists/* && mkdir -p "$scratch/lists/partial"
done
exit 75
