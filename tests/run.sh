#!/usr/bin/env bash
# Runs `cargo test`, as given, for all tests or for those whose names contain one of the words of the first argument.
#
#   tests/run.sh "" cargo test --workspace
#   tests/run.sh "vacuum cancel" cargo test --workspace
#
# A word that fits no test is a failure: a typing error must not read as success.
set -euo pipefail

read -ra words <<<"$1"
shift
[ "${#words[@]}" -gt 0 ] || exec "$@"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
"$@" -- "${words[@]}" 2>&1 | grep -v '^$\|^running 0 tests\|Running .*/deps/\|   Doc-tests\|^test result: ok. 0 passed; 0 failed; 0 ignored' |
    tee "$log" || status=${PIPESTATUS[0]}
grep -q '^test .* \.\.\. \|^test result: FAILED' "$log" || {
    echo "no test has a name that contains one of: ${words[*]}" >&2
    exit 1
}
exit "$status"
