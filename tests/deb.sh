#!/usr/bin/env bash
# Builds target/deb/postgresql-NN-imgvec_VERSION_ARCHITECTURE.deb from what `make build` left, for the server of PG_CONFIG.
# DEB_MAINTAINER, "Name <address>", is who answers for the package; else it is who DEBFULLNAME and DEBEMAIL name, as
# for Debian's own tools, or git.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

pg_config=${PG_CONFIG:-/usr/bin/pg_config}
major=$("$pg_config" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# 1.0.0-rc.1 comes before 1.0.0; to dpkg that is 1.0.0~rc.1, and a hyphen would begin a revision.
version=${version//-/\~}
name=${DEBFULLNAME:-$(git config user.name || true)}
address=${DEBEMAIL:-$(git config user.email || true)}
[ -n "$address" ] || { name='imgvec developers' && address=imgvec@localhost; }
maintainer=${DEB_MAINTAINER:-${name:-$address} <$address>}
architecture=$(dpkg --print-architecture)
package=postgresql-$major-imgvec
work=target/deb/work
root=$work/debian/$package

rm -rf "$work"
mkdir -p "$root/DEBIAN"
tests/install.sh "$PWD/$root"
libraries=$root$("$pg_config" --pkglibdir)
shared=$root$("$pg_config" --sharedir)
documents=$root/usr/share/doc/$package
mkdir -p "$documents"
install -m 644 README.md "$documents/"
gzip -9n <CHANGELOG.md >"$documents/changelog.gz"
tests/deb-copyright.py "$major" "${libraries#"$root/"}" "${shared#"$root/"}" >"$documents/copyright"

# The libraries that both files really need; dpkg-shlibdeps wants a source package's control file.
printf 'Source: imgvec\n\nPackage: %s\nArchitecture: any\n' "$package" >"$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O -xlibonnxruntime "${libraries#"$work/"}/imgvec.so" \
    "${libraries#"$work/"}/imgvec/libonnxruntime.so" | sed 's/^shlibs:Depends=//')
cat >"$root/DEBIAN/control" <<CONTROL
Package: $package
Version: $version
Architecture: $architecture
Maintainer: $maintainer
Section: database
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
Depends: postgresql-$major, $depends
Suggests: postgresql-$major-pgvector, libheif1
Description: image and text embeddings, a vector type and similarity search
 PostgreSQL extension that turns images and texts into vectors inside the
 server and finds neighbors with an index of its own. ONNX Runtime and a
 small model are included.
CONTROL
dpkg-deb -Zxz -z1 --root-owner-group --build "$root" target/deb >&2
du -h "$libraries/imgvec.so" "$libraries/imgvec/libonnxruntime.so" target/deb/"${package}_${version}_$architecture.deb" >&2
