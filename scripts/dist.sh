#!/usr/bin/env bash
# `make dist`: one release build, and from it in dist/ the Debian package, the rpm, the tarball, the
# container image, the list of crates (SBOM, CycloneDX) and their checksums. The same commit gives the same
# bytes, in any folder: scripts/dist-reproducible.sh.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

AUDITABLE=0.7.7
CYCLONEDX=0.5.9
ABOUT=0.9.3

dist=${DIST:-dist}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
target=${CARGO_TARGET_DIR:-target}/dist

cargo install --quiet --locked --root .dev/cargo "cargo-auditable@$AUDITABLE" "cargo-cyclonedx@$CYCLONEDX"
cargo install --quiet --locked --root .dev/cargo --features cli "cargo-about@$ABOUT"
PATH=$PWD/.dev/cargo/bin:$PATH

# No path of this machine in the binary: it would differ in another folder.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home=cargo"
export CFLAGS="-g0 -ffile-prefix-map=$PWD=. -ffile-prefix-map=$cargo_home=cargo"
# The variables that `cargo auditable` sets, but with a name instead of a path: cargo hashes it into the
# names of our symbols, and the binary would differ in another folder.
export CARGO_AUDITABLE_ORIG_ARGS='{"offline":false,"locked":true,"frozen":false,"config":[]}'
RUSTC_WORKSPACE_WRAPPER=cargo-auditable cargo build --release --locked --features otel --target-dir "$target"

mkdir -p "$dist"
binary=$target/release/deskbridge
sbom=$dist/deskbridge-$("$binary" --version | cut -d' ' -f2).cdx.json
cargo cyclonedx --quiet --features otel --format json --spec-version 1.5 --describe binaries --target "$(rustc -vV | sed -n 's/^host: //p')"
mv deskbridge_bin.cdx.json "$sbom"
python3 scripts/sbom.py "$binary" "$sbom"
cargo about generate --offline --locked --features otel --fail --config packaging/about.toml packaging/licences.hbs \
    --output-file "$target/release/licences.txt"
scripts/pack.sh "$binary"
