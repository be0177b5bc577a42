#!/usr/bin/env bash
# `make simulate`: as many seeds as wanted of the forwarder's simulation, on every core. The code
# under test is optimised like a release, and its overflow checks stay.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
export SEEDS=${1:-1000000} FROM=${2:-0}
export CARGO_PROFILE_TEST_OPT_LEVEL=3
cargo test --locked --lib -- --ignored --exact --nocapture \
    forwarder::flow::tests::simulation::campaign::as_many_worlds_as_wanted
