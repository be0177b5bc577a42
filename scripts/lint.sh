#!/usr/bin/env bash
# `make lint`: all static checks of the source. Continues after a failure and lists all failures at the
# end.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
failed=()

run() {
    echo "== $*"
    "$@" || failed+=("$*")
}

run scripts/style.sh
run cargo clippy --locked --all-targets -- -D warnings
run cargo clippy --locked --all-targets --all-features -- -D warnings
run scripts/dependencies.sh

[ ${#failed[@]} = 0 ] || {
    printf 'lint: failed, or could not be run: %s\n' "${failed[@]}" >&2
    exit 1
}
