#!/usr/bin/env bash
# `make lint`: everything that judges the source without running it.

set -uo pipefail
cd "$(dirname "$0")/.." || exit
status=0

run() {
    echo "== $*"
    "$@" || status=1
}

run_if_there() { # TOOL, HOW_TO_INSTALL, COMMAND ...
    local tool=$1 install=$2
    shift 2
    if command -v "$tool" >/dev/null; then
        run "$@"
    else
        echo "== $*: skipped, not installed ($install)"
    fi
}

run cargo fmt --all --check
run cargo clippy --locked --all-targets -- -D warnings
run cargo clippy --locked --all-targets --all-features -- -D warnings
run_if_there cargo-deny "cargo install --locked cargo-deny" cargo deny check
run_if_there typos "cargo install --locked typos-cli" typos
run_if_there shellcheck "apt-get install shellcheck" shellcheck scripts/*.sh .ci/run
exit $status
