#!/usr/bin/env bash
# `make compose-test`: starts docker-compose.yml unchanged on a fresh copy of this checkout and tests
# what it promises. Not part of `make test`.
#
# If DOCKER_HOST is set, uses that engine with the real images. Otherwise it starts its own engine from
# Debian packages (as root) in its own network namespace, with stand-ins for the images, and prints
# which. It leaves only its downloads behind, in .dev/compose-test.
#
# COMPOSE_TEST_BINARY  binary for the stand-in of the builder image (default: built here, --release)
# COMPOSE_TEST_CACHE   cache of downloaded root file systems (default: .dev/compose-test)
# COMPOSE_TEST_IMAGE   image of `make dist` to try as well (default: the one in dist, if there is one)
# COMPOSE_TEST_RESTARTS  number of restarts of the bridge behind Caddy (default: 10)

. "$(dirname "$0")/strict.sh" || exit
export LC_ALL=C
cd "$(dirname "$0")/.."

CACHE=${COMPOSE_TEST_CACHE:-$PWD/.dev/compose-test}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/deskbridge-compose.XXXXXX")
SECRET=compose-test-secret-0123456789
URL=http://127.0.0.1:8080/webhooks/deskdirector
STOP_GRACE_SECONDS=15
RESTARTS=${COMPOSE_TEST_RESTARTS:-10}
IMAGE=${COMPOSE_TEST_IMAGE:-$(printf '%s\n' dist/*-oci.tar | tail -n 1)}
# Sessions that a subscriber received, so that they are not in the queue of unrouted events.
subscribed=0

say() { echo "compose-test: $*"; }
fail() { say "FAILED: $*" >&2; exit 1; }

# shellcheck source=scripts/compose-test/engine.sh
. scripts/compose-test/engine.sh
# shellcheck source=scripts/compose-test/images.sh
. scripts/compose-test/images.sh
# shellcheck source=scripts/compose-test/checks.sh
. scripts/compose-test/checks.sh

finish() {
    local code=$?
    [ $code = 0 ] || { say "ended with $code"; compose logs --no-color --tail 30 2>/dev/null || true; } >&2
    [ -z "${sender_pid:-}" ] || kill "$sender_pid" 2>/dev/null || true
    compose --profile public --profile demo --profile monitoring down --volumes --timeout 5 >/dev/null 2>&1 || true
    [ -z "${engine_pid:-}" ] || engine_stop "$WORK/engine"
    rm -rf "$WORK"
    exit $code
}

compose() { docker compose --project-directory "$WORK/checkout" "$@"; }

install_missing() {
    local packages=()
    command -v dockerd >/dev/null || packages+=(docker.io iptables)
    command -v debootstrap >/dev/null || packages+=(debootstrap)
    command -v ip >/dev/null || packages+=(iproute2)
    command -v curl >/dev/null || packages+=(curl)
    [ ${#packages[@]} -gt 0 ] || return 0
    say "installing ${packages[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null
}

# Fetches `docker compose` of a newer Debian, if it is missing.
find_compose() {
    docker compose version >/dev/null 2>&1 && return
    fetch trixie docker-compose "$CACHE/plugins"
    fetch trixie docker-buildx "$CACHE/plugins"
    export DOCKER_CONFIG=$WORK/docker
    mkdir -p "$DOCKER_CONFIG/cli-plugins"
    find "$CACHE/plugins" -type f -path '*cli-plugins/docker-*' \
        -exec ln -s {} "$DOCKER_CONFIG/cli-plugins/" \;
    docker compose version >/dev/null || fail "docker compose does not run"
}

binary() {
    if [ -z "${COMPOSE_TEST_BINARY:-}" ]; then
        say "building the bridge (--release)"
        cargo build --release --locked --features otel --quiet
        COMPOSE_TEST_BINARY=${CARGO_TARGET_DIR:-target}/release/deskbridge
    fi
    deskbridge=$(realpath "$COMPOSE_TEST_BINARY")
}

# Copies what a clone would contain, including uncommitted changes.
fresh_copy() {
    mkdir "$WORK/checkout"
    git ls-files -z --cached --others --exclude-standard |
        tar --null --files-from=- --ignore-failed-read --warning=no-failed-read -c | tar -C "$WORK/checkout" -x
    export COMPOSE_PROJECT_NAME=deskbridge-compose-test
}

prepare() {
    binary
    fresh_copy
    if [ -n "${DOCKER_HOST:-}" ]; then
        say "engine: $DOCKER_HOST, with the real images"
        return
    fi
    [ "$(id -u)" = 0 ] || fail "starting a container engine needs root; or set DOCKER_HOST"
    install_missing
    fetch_stand_ins
    find_compose
    engine_start "$WORK/engine"
    say "engine: its own, $(docker version --format '{{.Server.Version}}'), compose $(docker compose version --short)"
    make_stand_ins "$deskbridge" "$WORK/checkout"
}

trap finish EXIT
trap 'exit 130' INT TERM
started=$SECONDS
prepare
say "ready after $((SECONDS - started)) s"
run_checks
say "all checks passed in $((SECONDS - started)) s"
