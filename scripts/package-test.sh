#!/usr/bin/env bash
# `make package-test`: the life of the Debian package in a booted Debian 12: installation, start, a
# webhook to a subscriber, reload, restarts under load, upgrade, downgrade, removal, purge, and what
# `systemctl status` says if something is wrong. Then the life of the rpm, in the same Debian, because no
# other distribution can be installed from Debian's packages. Needs root. Keeps the Debian system in
# .dev/package-test (about 450 MB) and leaves nothing else behind.
#
#   scripts/package-test.sh [PACKAGE]    default: the one that scripts/pack.sh has put into dist
#
# PACKAGE_TEST_ROOT      the Debian system to use or to create (default: .dev/package-test/bookworm)
# PACKAGE_TEST_RESTARTS  number of restarts under load (default: 10)
# PACKAGE_TEST_BEFORE    a binary of an older release, whose journal is migrated, for example of the last
#                        commit with schema 3: git worktree add OLD 7403a06^, then cargo build there
# PACKAGE_TEST_FILES     directory whose files are copied into the system first, to try other units

. "$(dirname "$0")/strict.sh" || exit
export LC_ALL=C
cd "$(dirname "$0")/.."

say() { echo "package-test: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

# until_true SECONDS COMMAND...: repeats the command until it succeeds.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "timed out: $*"
        sleep 0.2
    done
}

PACKAGE=${1:-$(printf '%s\n' dist/deskbridge_*.deb | tail -n 1)}
ROOT=${PACKAGE_TEST_ROOT:-.dev/package-test/bookworm}
RESTARTS=${PACKAGE_TEST_RESTARTS:-10}
[ "$(id -u)" = 0 ] || fail "please run as root: the test boots a container"
[ -f "$PACKAGE" ] || fail "the package $PACKAGE is missing; make it with: scripts/pack.sh"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/deskbridge-package.XXXXXX")

# shellcheck source=scripts/package-test/machine.sh
. scripts/package-test/machine.sh
# shellcheck source=scripts/package-test/checks.sh
. scripts/package-test/checks.sh

finish() {
    local code=$?
    trap - EXIT
    if [ $code != 0 ] && [ -n "${init_pid:-}" ]; then
        inside journalctl --no-pager --lines 30 --unit 'deskbridge*' >&2 || true
    fi
    [ -z "${proxy_pid:-}" ] || kill "$proxy_pid" 2>/dev/null || true
    [ -z "${machine_pid:-}" ] || machine_stop
    rm -rf "$WORK"
    exit $code
}

install_missing() {
    local packages=()
    command -v debootstrap >/dev/null || packages+=(debootstrap)
    command -v systemd-nspawn >/dev/null || packages+=(systemd-container)
    [ ${#packages[@]} = 0 ] || scripts/install.sh "${packages[@]}"
}

# repacked VERSION: the package with another version.
repacked() {
    local root=$WORK/repacked
    dpkg-deb --raw-extract "$PACKAGE" "$root"
    sed -i "s/^Version: .*/Version: $1/" "$root/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone --build "$root" "$WORK/$1.deb" >/dev/null
    rm -rf "$root"
}

# The rpms are packed again, from the same binary: the second one needs another release.
packages() {
    local release
    version=$(dpkg-deb --field "$PACKAGE" Version)
    repacked "$version~before"
    cp "$PACKAGE" "$WORK/$version.deb"
    dpkg-deb --fsys-tarfile "$PACKAGE" | tar -C "$WORK" -x ./usr/bin/deskbridge
    for release in 1 2; do
        DIST=$WORK/$release RPM_RELEASE=$release scripts/pack.sh "$WORK/usr/bin/deskbridge" rpm >/dev/null
        mv "$WORK/$release"/*.rpm "$WORK/$release.rpm"
    done
}

trap finish EXIT
trap 'exit 130' INT TERM
started=$SECONDS
install_missing
machine_make "$ROOT"
packages
machine_start "$ROOT"
say "$(inside sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release) booted, $((SECONDS - started)) s"
run_checks
say "all checks passed in $((SECONDS - started)) s"
