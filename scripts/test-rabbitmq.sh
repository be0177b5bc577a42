#!/usr/bin/env bash
# `make test-rabbitmq VERSION=4.0`: runs the tests against another RabbitMQ than the distribution's. It
# runs in a chroot with a small Debian system (created once, about 400 MB), so this needs root.
#
#   scripts/test-rabbitmq.sh VERSION [ARGUMENTS OF cargo test ...]
#
# RABBITMQ_ROOT  the Debian system to use or to create (default: .dev/rabbitmq-VERSION)

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

fail() { echo "$*" >&2; exit 1; }

VERSION=${1-}
case $VERSION in
    4.0) SUITE=trixie ;;
    4.3) SUITE=sid ;;
    *) fail "usage: make test-rabbitmq VERSION=4.0 (or 4.3)" ;;
esac
shift
[ "$(id -u)" = 0 ] || fail "please run as root: RabbitMQ $VERSION runs in a chroot"
export RABBITMQ_ROOT=${RABBITMQ_ROOT:-$PWD/.dev/rabbitmq-$VERSION}

make_root() {
    local url
    url=$(scripts/mirror.sh)
    command -v debootstrap >/dev/null || scripts/install.sh debootstrap
    echo "creating a Debian system with RabbitMQ $VERSION in $RABBITMQ_ROOT" >&2
    rm -rf "$RABBITMQ_ROOT.new"
    mkdir -p "$(dirname "$RABBITMQ_ROOT")"
    debootstrap --variant=minbase --include=rabbitmq-server "$SUITE" "$RABBITMQ_ROOT.new" "$url" >&2
    grep -qw localhost "$RABBITMQ_ROOT.new/etc/hosts" 2>/dev/null \
        || echo "127.0.0.1 localhost" >>"$RABBITMQ_ROOT.new/etc/hosts"
    mv "$RABBITMQ_ROOT.new" "$RABBITMQ_ROOT"
}

[ -x "$RABBITMQ_ROOT/usr/lib/rabbitmq/bin/rabbitmq-server" ] || make_root
installed=$(basename "$(find "$RABBITMQ_ROOT/usr/lib/rabbitmq/lib" -maxdepth 1 -name 'rabbitmq_server-*')")
case $installed in
    rabbitmq_server-"$VERSION".*) echo "== ${installed#rabbitmq_server-}" ;;
    *) fail "$RABBITMQ_ROOT contains ${installed:-no RabbitMQ}, not $VERSION" ;;
esac

# Mounts in this namespace disappear with its last process.
if [ -z "${IN_NAMESPACE-}" ]; then
    IN_NAMESPACE=yes exec unshare --mount "$0" "$VERSION" "$@"
fi
mount --bind /proc "$RABBITMQ_ROOT/proc"
# RabbitMQ 4 resolves this machine's host name for every connection. Without /etc/hosts that would be a
# DNS query, which may take longer than the connect timeout.
mount --bind /etc/hosts "$RABBITMQ_ROOT/etc/hosts"
mount --bind "${TMPDIR:-/tmp}" "$RABBITMQ_ROOT/${TMPDIR:-tmp}"
exec scripts/test.sh "$@"
