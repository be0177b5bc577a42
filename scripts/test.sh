#!/usr/bin/env bash
# `make test`: installs what the tests need, runs all of them, names those that were skipped, ends
# with the runner's own summary.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
scripts/test-needs.sh

DESKBRIDGE_TEST_SKIPS=$(mktemp)
export DESKBRIDGE_TEST_SKIPS
trap 'rm -f "$DESKBRIDGE_TEST_SKIPS"' EXIT

# With the places where tests end the bridge; a release cannot have them (src/failpoint.rs).
# Most of a test is waiting for a broker or a timer, so more of them run than there are cores;
# too many, and those that measure time measure each other.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
status=0
cargo test --locked --no-fail-fast --features failpoints "$@" || status=$?
echo "skipped: $(wc -l <"$DESKBRIDGE_TEST_SKIPS")"
sort "$DESKBRIDGE_TEST_SKIPS"
exit $status
