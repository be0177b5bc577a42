#!/usr/bin/env bash
# `make simulate`: runs the forwarder's simulation with many seeds on all cores. The code under test is
# optimized like a release, with overflow checks enabled.
#
#   scripts/simulate.sh [SEEDS [FROM]]

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
export SEEDS=${1:-1000000} FROM=${2:-0}
cargo test --locked --config profile.dev.package.deskbridge.opt-level=3 --lib -- --ignored --exact --nocapture \
    forwarder::flow::tests::simulation::campaign::seed_campaign
