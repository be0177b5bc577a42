#!/usr/bin/env bash
# `make docs`: the documentation as a website with search, in book/. Checks all links.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

MDBOOK=0.5.4

cargo install --quiet --locked --root .dev/cargo --no-default-features --features search "mdbook@$MDBOOK"
command -v python3 >/dev/null || scripts/install.sh python3
rm -rf book
python3 scripts/docs.py source .dev/docs
.dev/cargo/bin/mdbook build
python3 scripts/docs.py check book
echo "open book/index.html"
