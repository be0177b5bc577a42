#!/usr/bin/env bash
# `make repeat-tests`: runs all tests several times. Fails at the first run that fails or in which a test
# passed only when it was run again.
#
#   scripts/repeat-tests.sh [TIMES [BUSY]]    BUSY: beside two busy loops and a disk that is written to

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
times=${1:-10}
busy=${2-}
log=$(mktemp)
written=$(mktemp -p .)
others=()
trap '[ ${#others[@]} = 0 ] || kill "${others[@]}"; rm -f "$log" "$written"' EXIT

if [ -n "$busy" ]; then
    for _ in 1 2; do
        while :; do :; done &
        others+=($!)
    done
    while :; do dd if=/dev/zero of="$written" bs=1M count=256 conv=fsync status=none; done &
    others+=($!)
fi
for run in $(seq "$times"); do
    began=$SECONDS
    scripts/test.sh >"$log" 2>&1 || { cat "$log" >&2; echo "run $run of $times failed" >&2; exit 1; }
    echo "run $run of $times: passed in $((SECONDS - began)) s"
    if grep -q '^FLAKY' "$log"; then
        sed -n '/^failures:/,$p' "$log" >&2
        echo "run $run of $times failed: a test passed only when it was run again" >&2
        exit 1
    fi
done
