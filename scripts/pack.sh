#!/usr/bin/env bash
# Packs a binary, with the licences of its crates from the file licences.txt beside it. Results, in dist/: the
# Debian package, the rpm, the tarball, the container image as an OCI archive, and SHA256SUMS. Builds nothing itself, so it needs no compiler. The same binary and the same
# commit give the same bytes; the image also needs the same state of Debian's packages.
#
#   scripts/pack.sh [BINARY [FORMAT ...]]    default: target/release/deskbridge deb rpm tarball image
#
# DIST               directory of the results (default: dist)
# SOURCE_DATE_EPOCH  date of all files (default: that of the last commit)
# DEB_MAINTAINER     who answers for the packages, `NAME <ADDRESS>` (default: `authors` in Cargo.toml)
# RPM_RELEASE        release of the rpm (default: 1)

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC
umask 022

fail() { echo "pack.sh: $*" >&2; exit 1; }

# needs PROGRAM PACKAGE: installs the package if the program is missing.
needs() { command -v "$1" >/dev/null || scripts/install.sh "$2"; }

binary=${1:-target/release/deskbridge}
formats=("${@:2}")
[ ${#formats[@]} != 0 ] || formats=(deb rpm tarball image)
[ -x "$binary" ] || fail "the binary $binary is missing; build it with: cargo build --release --locked --features otel"
binary=$(realpath "$binary")
licences=$(dirname "$binary")/licences.txt
[ -f "$licences" ] || { echo "pack.sh: no $licences: not for release" >&2; licences=; }
dist=$(realpath -m "${DIST:-dist}")
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
version=$("$binary" --version | cut -d' ' -f2)
maintainer=${DEB_MAINTAINER:-$(sed -n 's/^authors = \["\(.*\)"\]$/\1/p' Cargo.toml)}

work=$(mktemp -d "${TMPDIR:-/tmp}/deskbridge-pack.XXXXXX")
trap 'rm -rf "$work"' EXIT

# shellcheck source=scripts/pack/files.sh
. scripts/pack/files.sh
# shellcheck source=scripts/pack/deb.sh
. scripts/pack/deb.sh
# shellcheck source=scripts/pack/rpm.sh
. scripts/pack/rpm.sh
# shellcheck source=scripts/pack/tarball.sh
. scripts/pack/tarball.sh
# shellcheck source=scripts/pack/image.sh
. scripts/pack/image.sh

mkdir -p "$dist"
generated "$work/generated"
for format in "${formats[@]}"; do
    case $format in
        deb | rpm | tarball | image) "pack_$format" ;;
        *) fail "does not know the format $format" ;;
    esac
done
cd "$dist"
sums=$(find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum)
echo "$sums" | tee SHA256SUMS
