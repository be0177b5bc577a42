#!/usr/bin/env bash
# Installs Debian packages, with sudo if necessary, without starting their services.
#
#   scripts/install.sh PACKAGE ...

. "$(dirname "$0")/strict.sh" || exit

fail() { echo "$*" >&2; exit 1; }

command -v apt-get >/dev/null || fail "please install: $* (apt-get is missing on this machine)"
root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "please run as root: apt-get install $*"
    root=(sudo)
fi

echo "installing $*" >&2
"${root[@]}" apt-get update -qq >&2 || echo "apt-get update failed; trying to install anyway" >&2
masked=
services=(rabbitmq-server prometheus)
if [ -d /run/systemd/system ]; then
    "${root[@]}" systemctl mask --runtime --quiet "${services[@]}" && masked=yes
fi
status=0
"${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" >&2 || status=$?
[ -z "$masked" ] || "${root[@]}" systemctl unmask --runtime --quiet "${services[@]}"
[ $status = 0 ] || echo "apt-get could not install $*: see above; is the network available?" >&2
exit $status
