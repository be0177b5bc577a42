#!/usr/bin/env bash
# `make fuzz`: runs every target in fuzz/ for the given number of seconds, one after the other. An input
# that fails is kept in fuzz/regressions, where the tests replay it, and the script exits with 1.
#
#   scripts/fuzz.sh [SECONDS [TARGETS]]

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/../fuzz"
seconds=${1:-60}
targets=${2:-split signature routing config http}

fail() { echo "fuzz: $*" >&2; exit 1; }

command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
# libFuzzer needs compiler flags that are otherwise available only in nightly builds. The bridge has no
# unsafe code, so a sanitizer would only cost time.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --sanitizer none

executions=0 findings=0
for target in $targets; do
    mkdir -p "corpus/$target" "artifacts/$target" "regressions/$target"
    log=$(mktemp)
    cargo fuzz run --sanitizer none "$target" \
        "corpus/$target" "seeds/$target" "regressions/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 </dev/null >"$log" 2>&1 || true
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    found=$(find "artifacts/$target" -type f)
    if [ -z "$runs" ] || [ -n "$found" ]; then
        grep -m1 -A2 -E 'panicked|ERROR: libFuzzer|^error' "$log" || tail -20 "$log"
        findings=$((findings + 1))
    fi
    for input in $found; do
        mv "$input" "regressions/$target/"
        echo "fuzz: $target: fuzz/regressions/$target/$(basename "$input")"
    done
    echo "fuzz: $target: ${runs:-0} executions"
    executions=$((executions + ${runs:-0}))
    rm -f "$log"
done
echo "fuzz: $executions executions, $findings findings"
[ "$findings" = 0 ] || fail "see fuzz/regressions and what is printed above"
