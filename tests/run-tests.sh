#!/usr/bin/env bash
# Runs `cargo test`, as given, for all tests or for those whose names contain one of the words of the first argument. Then it lists, in
# one block, what was skipped and why, and how to run each test that failed alone.
#
#   tests/run-tests.sh "" cargo test --workspace
#   tests/run-tests.sh "vacuum cancel" cargo test --workspace
#
# A word that fits no test is a failure: a typing error must not read as success.
set -euo pipefail

read -ra words <<<"$1"
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
if [ "${#words[@]}" = 0 ]; then
    "$@" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
else
    "$@" -- "${words[@]}" 2>&1 | grep -v '^$\|^running 0 tests\|Running .*/deps/\|   Doc-tests\|^test result: ok. 0 passed; 0 failed; 0 ignored' |
        tee "$log" || status=${PIPESTATUS[0]}
    grep -q '^test .* \.\.\. \|^test result: FAILED' "$log" || {
        echo "no test has a name that contains one of: ${words[*]}" >&2
        exit 1
    }
fi

# Tests say `SKIPPED name: reason`, sometimes behind the harness's `test name ... `; tests/setup.sh keeps what it could not install.
skipped=$(
    {
        if [ "${#words[@]}" = 0 ]; then cat target/setup-skipped 2>/dev/null || true; fi
        sed -n 's/^.*SKIPPED //p; s/^test \(.*\) \.\.\. ignored\(, \)*/\1: ignored. /p' "$log"
    } | sort -u
)
failed=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
# Several tests at a time write to one line; the list at the end of a program is whole.
failed=$({
    echo "$failed"
    awk '/^failures:$/ { listed = 1; next } /^test result:/ { listed = 0 } listed && /^    [a-z_:0-9]+$/ { print $1 }' "$log"
} | sed '/^$/d' | sort -u)

if [ -n "$skipped" ]; then
    echo
    echo "Skipped, and proved nothing:"
    sed 's/^/  /' <<<"$skipped"
fi
if [ -n "$failed" ]; then
    echo
    echo "Failed. To run one alone:"
    sed 's/^/  make test T=/' <<<"$failed"
fi
exit "$status"
