#!/usr/bin/env bash
# Installs what the tests need and this machine does not have.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

missing=()
[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=(rabbitmq-server)
for tool in strace sqlite3 prometheus; do
    command -v $tool >/dev/null || missing+=("$tool")
done
# mkfs is where only root looks.
PATH=$PATH:/usr/sbin command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
for library in libeatmydata1:libeatmydata.so libfaketime:faketime/libfaketime.so.1; do
    compgen -G "/usr/lib/*/${library#*:}" >/dev/null || missing+=("${library%%:*}")
done
# The examples of consumers and the validators of schemas.
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ ${#missing[@]} = 0 ] || scripts/install.sh "${missing[@]}"
scripts/test-packages.sh
