#!/usr/bin/env bash
# Installs the pinned Python packages of tests and lint into .dev/python, unless they are installed. pip
# accepts only files with a known hash.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

python=.dev/python
requirements=(scripts/requirements.txt tests/validators/requirements.txt examples/consumers/python/requirements.txt)
wanted=$(sha256sum "${requirements[@]}")
[ "$(cat $python/installed 2>/dev/null)" != "$wanted" ] || exit 0

python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/install.sh python3-venv
echo "installing Python packages into $python" >&2
rm -rf $python
python3 -m venv $python
$python/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
    "${requirements[@]/#/--requirement=}"
echo "$wanted" >$python/installed
