#!/usr/bin/env bash
# `make test`: installs what the tests need, runs all of them, ends with the runner's own summary.

set -euo pipefail
cd "$(dirname "$0")/.."
scripts/test-needs.sh

# With the places where tests end the bridge; a release cannot have them (src/failpoint.rs).
# Most of a test is waiting for a broker or a timer, so more of them run than there are cores;
# too many, and those that measure time measure each other.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$(($(nproc) * 2))}
exec cargo test --locked --no-fail-fast --features failpoints "$@"
