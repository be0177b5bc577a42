# shellcheck shell=bash disable=SC2154,SC2016
# A container engine for one test, from the distribution's packages, with its own directories and its
# own network namespace: its published ports are not visible outside, and it cannot reach the internet.
# Sourced by scripts/compose-test.sh; independent of deskbridge.

ENGINE_SECONDS_MAX=60

# engine_start DIR: starts the engine, sets DOCKER_HOST and engine_pid.
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

# engine_stop DIR: removes the containers, stops the engine and deletes its directory.
engine_stop() {
    local dir=$1 containers
    containers=$(docker ps --all --quiet 2>/dev/null || true)
    # shellcheck disable=SC2086
    [ -z "$containers" ] || docker rm --force --volumes $containers >/dev/null 2>&1 || true
    kill "$engine_pid" 2>/dev/null || true
    wait "$engine_pid" 2>/dev/null || true
    rm -rf "$dir"
}

# inside COMMAND...: runs the command in the network namespace of the published ports.
inside() {
    if [ -n "${engine_pid:-}" ]; then
        nsenter --target "$engine_pid" --net "$@"
    else
        "$@"
    fi
}
