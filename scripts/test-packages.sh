#!/usr/bin/env bash
# Installs the pinned Python and Node.js packages of the tests, if they are not there yet: the
# validators (tests/validators) and what the examples of consumers need. Compiles TypeScript.

set -euo pipefail
cd "$(dirname "$0")/.."

python=.dev/python
requirements=(tests/validators/requirements.txt examples/consumers/python/requirements.txt)
wanted=$(cat "${requirements[@]}" | sha256sum)
if [ "$(cat $python/installed 2>/dev/null)" != "$wanted" ]; then
    echo "installing Python packages into $python" >&2
    rm -rf $python
    python3 -m venv $python
    $python/bin/pip install --quiet --disable-pip-version-check "${requirements[@]/#/--requirement=}"
    echo "$wanted" >$python/installed
fi

typescript=examples/consumers/typescript
for folder in tests/validators $typescript; do
    wanted=$(sha256sum <"$folder/package-lock.json")
    [ "$(cat "$folder/node_modules/.installed" 2>/dev/null)" != "$wanted" ] || continue
    echo "installing Node.js packages into $folder/node_modules" >&2
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent)
    echo "$wanted" >"$folder/node_modules/.installed"
done
if [ -z "$(find $typescript/dist -newer $typescript/src/consumer.ts -newer $typescript/src/chats.ts -name chats.js 2>/dev/null)" ]; then
    (cd $typescript && npm run --silent build)
fi
