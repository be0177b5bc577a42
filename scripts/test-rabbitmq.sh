#!/usr/bin/env bash
# `make test-rabbitmq VERSION=4.0`: the tests against another RabbitMQ than the distribution's, from
# a small Debian system of its own (made once, some 400 MB). Needs root: it runs in a chroot.
#
#   scripts/test-rabbitmq.sh VERSION [ARGUMENTS OF cargo test ...]
#
# RABBITMQ_ROOT  the system to use, or to make (default: .dev/rabbitmq-VERSION)

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
    echo "making a system with RabbitMQ $VERSION in $RABBITMQ_ROOT" >&2
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
    *) fail "$RABBITMQ_ROOT holds ${installed:-no RabbitMQ}, not $VERSION" ;;
esac

# What is mounted here is gone with the last process of this namespace.
if [ -z "${IN_NAMESPACE-}" ]; then
    IN_NAMESPACE=yes exec unshare --mount "$0" "$VERSION" "$@"
fi
mount --bind /proc "$RABBITMQ_ROOT/proc"
# RabbitMQ 4 looks this machine's name up for every connection: without it there, names are asked for
# elsewhere, which may take longer than a connection may.
mount --bind /etc/hosts "$RABBITMQ_ROOT/etc/hosts"
mount --bind "${TMPDIR:-/tmp}" "$RABBITMQ_ROOT/${TMPDIR:-tmp}"
exec scripts/test.sh "$@"
