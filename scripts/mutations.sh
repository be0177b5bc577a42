#!/usr/bin/env bash
# `make mutations`: applies each patch of tests/mutations to a copy of the source and checks that the
# test that it names fails. Without the patch this test must pass. Changes that are not committed are in
# the copy, too, except new files.
#
#   scripts/mutations.sh [NAME ...]   only the patches with these names

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

root=$PWD
# Always the same path, so that cargo reuses what it has built.
tree=$root/target/mutations/tree
log=$root/target/mutations/log
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/mutations/target}
# Time limit for a build and a test.
SECONDS_MAX=1200

fail() { echo "mutations: $*" >&2; exit 1; }

names=("$@")
[ $# != 0 ] || mapfile -t names < <(basename -s .patch -a tests/mutations/*.patch)

patch() { # NAME [OPTION ...]
    git -C "$tree" apply "${@:2}" "$root/tests/mutations/$1.patch"
}

# Runs the test that a patch names. Prints `ok` or `FAILED`; nothing if not exactly one test was run.
outcome() { # NAME
    local test
    read -ra test < <(sed -n 's/^Test: //p' "tests/mutations/$1.patch")
    (cd "$tree" && timeout $SECONDS_MAX cargo test --locked --features failpoints,otel "${test[@]::${#test[@]}-1}" \
        -- --exact "${test[@]: -1}") >"$log" 2>&1 || true
    sed -n 's/^test result: \(ok\)\. 1 passed.*/\1/p; s/^test result: \(FAILED\)\. 0 passed; 1 failed.*/\1/p' "$log"
}

git worktree remove --force "$tree" 2>/dev/null || rm -rf "$tree"
git worktree prune
source=$(git stash create)
git worktree add --quiet --detach "$tree" "${source:-HEAD}"
trap 'git worktree remove --force "$tree"' EXIT

for name in "${names[@]}"; do
    patch "$name" --check || fail "$name: the patch no longer applies; make it again"
done
for name in "${names[@]}"; do
    [ "$(outcome "$name")" = ok ] || { tail -20 "$log" >&2; fail "$name: its test fails without the patch"; }
done
killed=0
for name in "${names[@]}"; do
    patch "$name"
    case $(outcome "$name") in
        FAILED) verdict=killed killed=$((killed + 1)) ;;
        ok) verdict=SURVIVED ;;
        *) tail -20 "$log" >&2; verdict="NOT RUN: it cannot be built, or its test does not end" ;;
    esac
    printf '%-40s %s\n' "$name" "$verdict"
    patch "$name" --reverse
done
echo "$killed of ${#names[@]} mutations killed"
[ $killed = ${#names[@]} ] || fail "each mutation must be killed by the test that its patch names"
