#!/usr/bin/env bash
# `make style`: the static checks that compile nothing: formatting, spelling with the words that may not come
# back (_typos.toml), shell scripts. Continues after a failure.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
status=0

# typos and shellcheck are installed as Python packages.
scripts/python.sh
cargo fmt --all --check || status=1
.dev/python/bin/typos || status=1
mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
.dev/python/bin/shellcheck "${scripts[@]}" || status=1
[ $status = 0 ] || echo "style: a check failed, see above" >&2
exit $status
