#!/usr/bin/env bash
# Installs the pinned Python and Node.js packages of the tests, unless they are installed: the
# validators (tests/validators) and the dependencies of the example consumers. Compiles TypeScript.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

scripts/python.sh

typescript=examples/consumers/typescript
for folder in tests/validators $typescript; do
    wanted=$(sha256sum <"$folder/package-lock.json")
    [ "$(cat "$folder/node_modules/.installed" 2>/dev/null)" != "$wanted" ] || continue
    echo "installing Node.js packages into $folder/node_modules" >&2
    (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    echo "$wanted" >"$folder/node_modules/.installed"
done
if [ -z "$(find $typescript/dist -newer $typescript/src/consumer.ts -newer $typescript/src/chats.ts -name chats.js 2>/dev/null)" ]; then
    (cd $typescript && npm run --silent build)
fi
