#!/usr/bin/env bash
# Runs each failed test of some runs of `cargo test` once more, alone. Succeeds if at most two tests failed and
# each passes now; prints `FLAKY name` for them. A run that failed for another reason (a target that crashed or
# does not compile, a doc test) stays failed.
#
#   scripts/rerun-failed.sh LOG FAILED_RUNS

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
log=$1
failed_runs=$2
most=2
again=$(mktemp)
trap 'rm -f "$again"' EXIT

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
# A target without a result line has crashed, a run without a list of failed targets has not begun to test.
finished=$(grep -c '^test result: FAILED\.' "$log" || true)
targets=$(grep -c '^error: test failed, to rerun pass' "$log" || true)
explained=$(grep -cE '^error: [0-9]+ targets? failed:$' "$log" || true)

if [ "$count" = 0 ] || [ "$count" != "$counted" ] || [ "$finished" != "$targets" ] \
    || [ "$explained" != "$failed_runs" ]; then
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
        || ! cargo test --locked --features failpoints,otel "$target" -- --exact --include-ignored "$name" \
            </dev/null 2>&1 | tee "$again"; then
        echo "error: $name failed again"
        exit 1
    fi
    # A name that matches no test would pass, too.
    grep -q '^test result: ok\. 1 passed' "$again" || { echo "error: $name was not run again"; exit 1; }
    flaky+=("$name")
done <<<"$failed"
printf 'FLAKY %s\n' "${flaky[@]}"
