#!/usr/bin/env bash
# `make dist-reproducible`: builds the last commit a second time, in another folder, with another folder of
# cargo, at another time, in another time zone and language, and compares every file of dist. Two release
# builds, if dist is not built yet.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

fail() { echo "dist-reproducible: FAILED: $*" >&2; exit 1; }

changes=$(git status --porcelain)
[ -z "$changes" ] || fail "please commit first: the second build is one of the last commit"
work=$(mktemp -d "${TMPDIR:-/tmp}/deskbridge-reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT

scripts/dist.sh
git clone --quiet . "$work/other/checkout"
mkdir "$work/cargo" "$work/other/checkout/.dev"
# The sources of the crates and the tools are the same: no need to load them again.
cp -r "${CARGO_HOME:-$HOME/.cargo}/registry" "$work/cargo/"
cp -r .dev/cargo "$work/other/checkout/.dev/"
(
    unset CARGO_TARGET_DIR DIST SOURCE_DATE_EPOCH
    export CARGO_HOME=$work/cargo TZ=Pacific/Auckland LC_ALL=C.UTF-8
    umask 077
    cd "$work/other/checkout"
    scripts/dist.sh
)
cmp "${CARGO_TARGET_DIR:-target}/dist/release/deskbridge" "$work/other/checkout/target/dist/release/deskbridge" ||
    fail "the binaries differ"
diff "${DIST:-dist}/SHA256SUMS" "$work/other/checkout/dist/SHA256SUMS" || fail "the files above differ"
echo "dist-reproducible: both builds gave the same bytes: $(wc -l <"${DIST:-dist}/SHA256SUMS") files"
