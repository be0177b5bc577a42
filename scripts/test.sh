#!/usr/bin/env bash
# `make test`: installs what the tests need, runs all tests, runs a failed test once more alone, and lists the
# skipped ones at the end.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

DESKBRIDGE_TEST_SKIPS=$(mktemp)
export DESKBRIDGE_TEST_SKIPS
needs_log=$(mktemp)
log=$(mktemp)
trap 'wait; rm -f "$DESKBRIDGE_TEST_SKIPS" "$needs_log" "$log"' EXIT

# Most of the installation is waiting, so the tests are compiled meanwhile.
scripts/test-needs.sh >"$needs_log" 2>&1 &
needs=$!
cargo test --locked --no-run --features failpoints,otel "$@"
wait $needs || { cat "$needs_log" >&2; exit 1; }
cat "$needs_log"

# With failpoints, where tests end the bridge; release builds cannot enable them (src/failpoint.rs).
# Many tests wait for a broker or a timer, so more of them run than there are cores. Twice as many take
# as long on two cores, and slow down those that measure time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 3 / 2))}
status=0
cargo test --locked --no-fail-fast --features failpoints,otel "$@" 2>&1 | tee "$log" || status=$?
if [ "$status" != 0 ] && scripts/rerun-failed.sh "$log"; then
    status=0
fi
echo "skipped: $(sort -u "$DESKBRIDGE_TEST_SKIPS" | wc -l)"
sort -u "$DESKBRIDGE_TEST_SKIPS"
exit $status
