#!/usr/bin/env bash
# Installs the programs and packages that the tests need, if they are missing.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

missing=()
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
for tool in git strace sqlite3 prometheus; do
    command -v $tool >/dev/null || missing+=("$tool")
done
# mkfs is in /usr/sbin, which is only in root's PATH.
PATH=$PATH:/usr/sbin command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
for library in libeatmydata1:libeatmydata.so libfaketime:faketime/libfaketime.so.1; do
    compgen -G "/usr/lib/*/${library#*:}" >/dev/null || missing+=("${library%%:*}")
done
# For the example consumers and the schema validators.
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} = 0 ] || scripts/install.sh "${missing[@]}"
scripts/test-packages.sh
