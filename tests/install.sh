#!/usr/bin/env bash
# Copies the built extension into the server that PG_CONFIG belongs to, below $1 if given.
#
#   $(pkglibdir)/imgvec.so                       the extension
#   $(pkglibdir)/imgvec/libonnxruntime.so        ONNX Runtime, with its licence
#   $(sharedir)/extension/imgvec*.control        with the version of Cargo.toml
#   $(sharedir)/extension/imgvec*--<version>.sql sql/imgvec*.sql, and the upgrade scripts of sql/;
#                                                the install scripts of released versions: sql/released
#   $(sharedir)/imgvec/models/starter            the model that works with no download
#
# The extension loses its debug information, nine tenths of it, unless it is the build that tests run (profile checked) or
# IMGVEC_KEEP_DEBUG is set.
#
# A file that is the same already is left alone; any other is renamed into place, because running
# backends keep the old library mapped.
set -euo pipefail
cd "$(dirname "$0")/.."

root=${1:-}
pg_config=${PG_CONFIG:-/usr/bin/pg_config}
libraries=$root$("$pg_config" --pkglibdir)
shared=$root$("$pg_config" --sharedir)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

place() { # source, target, mode
    cmp -s "$1" "$2" && return
    mkdir -p "${2%/*}"
    install -m "$3" "$1" "$2.new"
    mv -f "$2.new" "$2"
}

# Where cargo puts it, in the profile that is asked for: release, or checked for tests.
extension=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}/${IMGVEC_PROFILE:-release}/libimgvec.so
[ -f "$extension" ] || { echo "install: $extension is missing; run make build" >&2; exit 1; }
stripped=
filled=
trap 'rm -f "$stripped" "$filled"' EXIT
if [ "${IMGVEC_PROFILE:-release}" = release ] && [ -z "${IMGVEC_KEEP_DEBUG:-}" ]; then
    if command -v strip >/dev/null; then
        stripped=$(mktemp)
        strip --strip-unneeded -o "$stripped" "$extension"
        extension=$stripped
    else
        echo "install: strip, of binutils, is not here: imgvec.so keeps its debug information" >&2
    fi
fi
place "$extension" "$libraries/imgvec.so" 755

for file in target/onnxruntime/*; do
    case ${file##*/} in
        source) ;;
        *) place "$file" "$libraries/imgvec/${file##*/}" 644 ;;
    esac
done

for file in *.control; do
    filled=$(mktemp)
    sed "s/@CARGO_VERSION@/$version/" "$file" >"$filled"
    place "$filled" "$shared/extension/$file" 644
    rm -f "$filled"
done
for extension in imgvec imgvec_pgvector; do
    place "sql/$extension.sql" "$shared/extension/$extension--$version.sql" 644
done
for file in sql/imgvec*--*--*.sql sql/released/imgvec*--*.sql; do
    [ ! -f "$file" ] || place "$file" "$shared/extension/${file##*/}" 644
done

# Only what a model package consists of: how the model was trained stays in the source tree.
for file in $(find models/starter -maxdepth 1 -type f; find models/starter/onnx -type f 2>/dev/null); do
    place "$file" "$shared/imgvec/$file" 644
done
