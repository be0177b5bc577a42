#!/usr/bin/env bash
# Installs what the tests need and this machine does not have.

set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
for tool in strace sqlite3; do
    command -v $tool >/dev/null || missing+=("$tool")
done
[ ${#missing[@]} = 0 ] || scripts/install.sh "${missing[@]}"
