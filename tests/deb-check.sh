#!/usr/bin/env bash
# Installs the package of `make deb` where there is nothing but Debian and its PostgreSQL, and uses it there.
#
#   tests/deb-check.sh            install, SQL tests, first use, reinstall beside sessions, remove
#   tests/deb-check.sh --remove   remove the cached chroot
#
# Needs root and a Debian archive. The pristine chroot is made once, by debootstrap, below /var/tmp; each run
# works in a copy of it that it removes.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "deb-check: $*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "root is needed to make and enter a chroot; run this with sudo"
pg_config=${PG_CONFIG:-/usr/bin/pg_config}
major=$("$pg_config" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
pristine=${CHROOT:-/var/tmp/imgvec-$suite-plain}
if [ "${1:-}" = --remove ]; then
    rm -rf "$pristine"
    exit
fi
package=$(echo "$PWD"/target/deb/postgresql-"$major"-imgvec_*.deb)
[ -f "$package" ] || die "there is no one package in target/deb; run make deb"

# Mounts are ours alone and disappear with the last process.
if [ -z "${IMGVEC_CHROOT_NAMESPACE:-}" ]; then
    IMGVEC_CHROOT_NAMESPACE=1 exec unshare --mount --propagation private tests/deb-check.sh "$@"
fi

root=$pristine
inside() { env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
apt() { inside apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>"$pristine.log" 2>&1 || die "apt-get $* failed; see $pristine.log"; }

if [ ! -e "$pristine/complete" ]; then
    say "making $pristine; this takes a minute"
    command -v debootstrap >/dev/null || apt-get -qq install --yes --no-install-recommends debootstrap >&2
    mirror=${MIRROR:-$(command apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)}
    rm -rf "$pristine"
    debootstrap --variant=minbase "$suite" "$pristine" ${mirror:+"$mirror"} >"$pristine.log" 2>&1 ||
        die "debootstrap failed; see $pristine.log"
    mkdir -p "$pristine/etc/postgresql-common/createcluster.d"
    echo 'create_main_cluster = false' >"$pristine/etc/postgresql-common/createcluster.d/imgvec.conf"
    mount -t proc proc "$pristine/proc"
    apt install --yes --no-install-recommends "postgresql-$major"
    umount "$pristine/proc"
    touch "$pristine/complete"
fi

root=$(mktemp --directory --tmpdir=/var/tmp)
programs=/usr/lib/postgresql/$major/bin
clean_up() {
    inside runuser -u postgres -- "$programs/pg_ctl" stop --silent --mode=immediate --pgdata=/tmp/data 2>/dev/null || true
    umount "$root/proc" "$root/dev" 2>/dev/null || true
    mountpoint -q "$root/proc" || mountpoint -q "$root/dev" || rm -rf "$root"
}
trap clean_up EXIT
cp -a "$pristine/." "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/tmp/imgvec.deb"
# The SQL tests and their runner come from the side that builds.
mkdir "$root/check"
cp -a tests/pg_regress "$root/check/"
cp "$(dirname "$("$pg_config" --pgxs)")/../test/regress/pg_regress" "$root/check/runner"
cp crates/encoder/tests/data/images/files/rgb.png "$root/check/"
inside chown -R postgres /check

say "installing the package"
apt install --yes --no-install-recommends /tmp/imgvec.deb

say "reading its papers"
[[ $(dpkg-deb --field "$package" Maintainer) == ?*" <"?*@?*">" ]] || die "its maintainer has no name or no address"
version=$(dpkg-deb --field "$package" Version)
for script in sql/released/imgvec--*.sql; do
    released=${script#*--}
    dpkg --compare-versions "$version" gt "${released%.sql}" || die "version $version does not come after ${released%.sql}"
done
copyright=$root/usr/share/doc/postgresql-$major-imgvec/copyright
licenses() { # of paragraphs that begin with a field: the names after License
    awk -v RS= -v field="$1" 'index($0, field) == 1' "$copyright" | sed -n 's/^License: //p' | sed 's/,* or /\n/g; s/,* and /\n/g' | sort -u
}
unexplained=$(comm -23 <(licenses Files:) <(licenses License:) | grep -vx unknown || true)
[ -z "$unexplained" ] || die "its copyright file has no text of $unexplained"
for part in imgvec.so libonnxruntime.so models/starter vendor/pgrx- vendor/ort- vendor/tokenizers-; do
    grep -q "$part" "$copyright" || die "its copyright file does not know $part"
done

as_postgres() { inside runuser -u postgres -- "$@"; }
as_postgres "$programs/initdb" --auth=trust --no-sync --encoding=UTF8 --locale=C.UTF-8 --pgdata=/tmp/data >/dev/null
as_postgres "$programs/pg_ctl" start --silent --wait --pgdata=/tmp/data --log=/tmp/log --options='-c fsync=off'
psql() { as_postgres "$programs/psql" -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }

say "running the SQL tests"
mapfile -t tests < <(cd tests/pg_regress/sql && ls ./*.sql | sed 's|^\./||; s|\.sql$||')
as_postgres sh -c 'cd /check && exec ./runner "$@"' sh --inputdir=/check/pg_regress --outputdir=/check --bindir="$programs" \
    --dbname=contrib_regression --load-extension=imgvec "${tests[@]}" ||
    { cat "$root/check/regression.diffs" >&2; die "the SQL tests failed"; }

say "using it as a plain user"
psql -d postgres -c 'CREATE EXTENSION imgvec; CREATE ROLE painter LOGIN; CREATE SCHEMA painter AUTHORIZATION painter'
picture=$(base64 -w 0 crates/encoder/tests/data/images/files/rgb.png)
answer=$(psql -d postgres -U painter <<SQL
CREATE TABLE photos (id bigserial PRIMARY KEY, data bytea,
                     embedding imgvec(256) GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED);
INSERT INTO photos (data) VALUES (decode('$picture', 'base64'));
CREATE INDEX ON photos USING ann (embedding);
SET enable_seqscan = off;
SELECT id FROM photos ORDER BY embedding <=> embed_text('a dog on grass') LIMIT 10;
SQL
)
[ "$answer" = 1 ] || die "the search gave '$answer'"

say "reinstalling beside a session that uses it"
{
    echo "SELECT vector FROM (SELECT embed_text('a cat')::text AS vector) AS before;"
    echo '\! touch /tmp/ready'
    echo '\! while [ ! -e /tmp/reinstalled ]; do sleep 0.1; done'
    echo "SELECT embed_text('a bird', 'starter') <=> embed_text('a dog') BETWEEN 0 AND 2;"
} >"$root/tmp/session.sql"
psql -d postgres -f /tmp/session.sql >"$root/tmp/session.out" &
session=$!
while [ ! -e "$root/tmp/ready" ]; do
    kill -0 "$session" 2>/dev/null || die "the session ended early"
    sleep 0.1
done
apt install --yes --reinstall /tmp/imgvec.deb
touch "$root/tmp/reinstalled"
wait "$session" || die "the session failed after the reinstallation"
[ "$(tail -n 1 "$root/tmp/session.out")" = t ] || die "the session answered otherwise"
[ "$(psql -d postgres -c "SELECT imgvec_dims(embed_text('a fox'))")" = 256 ] || die "a new session does not embed"

say "removing it"
apt remove --yes "postgresql-$major-imgvec"
[ "$(psql -d postgres -c 'SELECT count(*) FROM pg_extension')" = 2 ] || die "the server does not answer"
psql -d postgres -c "SELECT embed_text('a fox')" 2>"$root/tmp/error" && die "the library is still there"
grep -q 'could not access file "$libdir/imgvec"' "$root/tmp/error" || die "unexpected: $(cat "$root/tmp/error")"
! grep -E 'PANIC:|was terminated by' "$root/tmp/log" || die "a server process crashed"
say "$(basename "$package") installs, passes, serves and goes"
