#!/usr/bin/env bash
# Runs the whole suite on several servers and adds the results up.
#
#   tests/matrix.sh 15 17 18 14 16        this machine's server, those of Debian 13 and testing; 14 and 16 are compiled
#   tests/matrix.sh upgrade               pg_upgrade with live indexes, from this machine's server to Debian 13's
#   tests/matrix.sh neon                  the kernels of ARM64, in an emulator
#   tests/matrix.sh cassert               PostgreSQL 15 with its own assertions, built from Debian's sources
#   tests/matrix.sh --minutes 40 15 17    the first always; the others while 40 minutes from the start are not over
#
# What no archive provides, or what the minutes do not suffice for, is skipped and says so. Without --minutes that
# is a failure. Logs: target/matrix/VERSION.log.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=
if [ "${1:-}" = --minutes ]; then
    minutes=$2
    shift 2
fi
[ "$#" -gt 0 ] || { echo "usage: tests/matrix.sh [--minutes n] version..." >&2; exit 2; }
pg_config=${PG_CONFIG:-/usr/bin/pg_config}
# Where there is no server yet, `make test` installs Debian's.
own=$("$pg_config" --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/' || true)
export own=${own:-15}
mkdir -p target/matrix

run() { # version
    case $1 in
        "$own") make test ;;
        17) tests/chroot.sh trixie make test ;;
        18) tests/chroot.sh testing make test ;;
        14 | 16) make check-versions COMPILED="$1" ;;
        neon) tests/check-neon.sh ;;
        cassert)
            pg_config=$(tests/server-with-assertions.sh) || return
            make test PG_CONFIG="$pg_config"
            ;;
        upgrade)
            make build PROFILE=checked
            # To a newer one, wherever this machine's is not the newest.
            if [ "$own" -lt 17 ]; then tests/pg-upgrade.sh trixie; else tests/pg-upgrade.sh testing; fi
            ;;
        *)
            echo "matrix: PostgreSQL $1 is in no chroot, and this machine's server is $own" >&2
            return 75
            ;;
    esac
}
export -f run

title() { # version
    case $1 in
        upgrade) echo "pg_upgrade" ;;
        neon) echo "kernels of ARM64" ;;
        cassert) echo "PostgreSQL 15 with assertions" ;;
        *) echo "PostgreSQL $1" ;;
    esac
}

# cargo ends with one line for each test program; this adds them up.
sum() {
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
         END { printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored }' "$@"
}

summary=()
skipped=
failed=
total=$(mktemp)
trap 'rm -f "$total"' EXIT
for version in "$@"; do
    log=target/matrix/$version.log
    begin=$SECONDS
    limit=()
    if [ -n "$minutes" ] && [ "${#summary[@]}" -gt 0 ]; then
        left=$((minutes * 60 - SECONDS))
        # For timeout, 0 would be no limit.
        limit=(timeout --kill-after=30 "$((left > 1 ? left : 1))")
    fi
    echo "matrix: $(title "$version")"
    status=0
    "${limit[@]}" bash -ec 'run "$1"' run "$version" 2>&1 | tee "$log" || status=$?
    result="$(sum "$log"), $((SECONDS - begin)) s"
    case $status in
        0) grep -q '^test result:' "$log" || result="compiles, $((SECONDS - begin)) s" ;;
        75) result="SKIPPED, its server cannot be had" && skipped=1 ;;
        124 | 137) result="SKIPPED, not done in time; until then $result" && skipped=1 ;;
        *) result="FAILED, $result" && failed=1 ;;
    esac
    # A test that failed before the time was over has failed.
    ! grep -q '^test result: FAILED' "$log" || failed=1
    grep '^test result:' "$log" >>"$total" || true
    summary+=("$(title "$version"): $result")
done

printf 'matrix: %s\n' "${summary[@]}"
sum "$total"
[ -z "$failed" ] || exit 1
[ -z "$skipped" ] || [ -n "$minutes" ]
