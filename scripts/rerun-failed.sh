#!/usr/bin/env bash
# Runs each failed test of a run of `cargo test` once more, alone. Succeeds if at most two tests failed and
# each passes now; prints `FLAKY name` for them. A target that did not finish, does not compile, or failed in
# a doc test is not run again.
#
#   scripts/rerun-failed.sh LOG

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
log=$1
most=2

# The lines `TARGET NAME` of all failed tests.
failed=$(awk '
    /^ +Running unittests src\/main\.rs \(/ { target = "--bins" }
    /^ +Running unittests src\/lib\.rs \(/ { target = "--lib" }
    /^ +Running tests\/.* \(/ { split($2, path, "[/.]"); target = "--test=" path[2] }
    /^ +Doc-tests / { target = "--doc" }
    /^test .* \.\.\. FAILED$/ { print target, $2 }
' "$log")
count=$(grep -c . <<<"$failed" || true)
counted=$(awk '/^test result: FAILED\./ { for (i = 2; i <= NF; i++) if ($i == "failed;") sum += $(i - 1) } END { print sum + 0 }' "$log")
# Without a result line of its own, a target has crashed or has not been compiled.
finished=$(grep -c '^test result: FAILED\.' "$log" || true)
targets=$(grep -c '^error: test failed, to rerun pass' "$log" || true)

if [ "$count" = 0 ] || [ "$count" != "$counted" ] || [ "$finished" != "$targets" ]; then
    echo "error: not only tests failed, see above"
    exit 1
fi
if [ "$count" -gt $most ]; then
    echo "error: $count tests failed; at most $most are run again"
    exit 1
fi
flaky=()
while read -r target name; do
    echo "== once more, alone: $name"
    if [ "$target" = --doc ] \
        || ! cargo test --locked --features failpoints,otel "$target" -- --exact --include-ignored "$name" </dev/null; then
        echo "error: $name failed again"
        exit 1
    fi
    flaky+=("$name")
done <<<"$failed"
printf 'FLAKY %s\n' "${flaky[@]}"
