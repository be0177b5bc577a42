# shellcheck shell=bash disable=SC2154,SC2016
# A container engine for one test, from the distribution's packages: own directories, own network
# namespace. Ports it publishes are seen by nobody else, and the internet is not reachable from it.
# Sourced by scripts/compose-test.sh; knows nothing of deskbridge.

ENGINE_SECONDS_MAX=60

# engine_start DIR: sets DOCKER_HOST and engine_pid.
engine_start() {
    local dir=$1
    mkdir -p "$dir"
    setsid unshare --net --mount sh -c '
        ip link set lo up
        exec dockerd --data-root "$0/data" --exec-root "$0/exec" --pidfile "$0/pid" \
            --host "unix://$0/docker.sock" --bip 172.30.77.1/24
    ' "$dir" >"$dir/log" 2>&1 &
    engine_pid=$!
    export DOCKER_HOST=unix://$dir/docker.sock
    local deadline=$((SECONDS + ENGINE_SECONDS_MAX))
    until docker version >/dev/null 2>&1; do
        if ! kill -0 "$engine_pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -n 20 "$dir/log" >&2
            fail "the container engine does not start"
        fi
        sleep 0.3
    done
}

# Ends the engine, its containers and its directory.
engine_stop() {
    local dir=$1 containers
    containers=$(docker ps --all --quiet 2>/dev/null || true)
    # shellcheck disable=SC2086
    [ -z "$containers" ] || docker rm --force --volumes $containers >/dev/null 2>&1 || true
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    rm -rf "$dir"
}

# inside COMMAND...: runs it where the published ports are.
inside() {
    if [ -n "${engine_pid:-}" ]; then
        nsenter --target "$engine_pid" --net "$@"
    else
        "$@"
    fi
}
