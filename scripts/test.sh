#!/usr/bin/env bash
# `make test`: installs what the tests need, runs all tests, runs a failed test once more alone, and lists the
# skipped ones at the end.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

DESKBRIDGE_TEST_SKIPS=$(mktemp)
export DESKBRIDGE_TEST_SKIPS
needs_log=$(mktemp)
log=$(mktemp)
chaos_log=$(mktemp)
trap 'wait; rm -f "$DESKBRIDGE_TEST_SKIPS" "$needs_log" "$log" "$chaos_log"' EXIT

# Most of the installation is waiting, so the tests are compiled meanwhile.
scripts/test-needs.sh >"$needs_log" 2>&1 &
needs=$!
cargo test --locked --no-run --features failpoints,otel "$@"
wait $needs || { cat "$needs_log" >&2; exit 1; }
cat "$needs_log"

# With failpoints, where tests end the bridge; release builds cannot enable them (src/failpoint.rs).
run() {
    cargo test --locked --no-fail-fast --features failpoints,otel "$@" 2>&1
}
# Many tests wait for a broker or a timer, so twice as many of them run as there are cores. More would
# take as long, and slow down those that measure time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
failed_runs=0
if [ $# != 0 ]; then
    run "$@" | tee "$log" || failed_runs=1
else
    # The campaign of tests/chaos mostly waits, so it runs beside the others.
    run --test chaos >"$chaos_log" &
    chaos=$!
    run --lib --bins --test it | tee "$log" || failed_runs=$((failed_runs + 1))
    wait $chaos || failed_runs=$((failed_runs + 1))
    tee -a "$log" <"$chaos_log"
fi
status=0
[ $failed_runs = 0 ] || scripts/rerun-failed.sh "$log" $failed_runs || status=$?
echo "skipped: $(sort -u "$DESKBRIDGE_TEST_SKIPS" | wc -l)"
sort -u "$DESKBRIDGE_TEST_SKIPS"
exit $status
