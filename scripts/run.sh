#!/usr/bin/env bash
# `make run` and `make demo`: starts broker and bridge, sends one webhook, and prints the message that a
# subscriber receives.
#
#   scripts/run.sh        keeps serving until Ctrl-C
#   scripts/run.sh demo   exits with 0 when the message has arrived
#
# All files are in .dev/. RABBITMQ_URL selects a broker to use.

# shellcheck disable=SC2317,SC2329 # functions are called by name
. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
MODE=${1:-run}
DEV=$PWD/.dev
CONFIG=.dev/deskbridge.toml
SAMPLE=tests/data/completed.json
DESKBRIDGE=${CARGO_TARGET_DIR:-target}/debug/deskbridge
SECONDS_MAX=60 # from the start of the bridge to the message
CONTAINER=deskbridge-dev-rabbitmq

step() { printf '\n== %s\n' "$*"; }
fail() { printf '\nFAILED: %s\n' "$*" >&2; exit 1; }

# --- the broker ---

# Whether guest/guest can log in at a local port.
takes_guest() { # PORT
    timeout 10 "$DESKBRIDGE" tail --count 0 --exchange amq.topic \
        --set "rabbitmq.urls=amqp://guest:guest@127.0.0.1:$1/%2f" >/dev/null 2>&1
}

# No engine, or one without access to a registry, is not an error: the caller starts a private node then.
start_container() {
    local engine port
    for engine in docker podman; do
        timeout 10 "$engine" info >/dev/null 2>&1 || continue
        echo "starting rabbitmq:4.3.6-management with $engine ..."
        timeout 180 "$engine" run -d --rm --name "$CONTAINER" -p 127.0.0.1::5672 -p 127.0.0.1::15672 \
            rabbitmq:4.3.6-management >/dev/null 2>"$DEV/engine.log" || { tail -n 1 "$DEV/engine.log"; continue; }
        STARTED_WITH=$engine
        port=$("$engine" port "$CONTAINER" 5672 | head -n 1)
        management=$("$engine" port "$CONTAINER" 15672 | head -n 1)
        for _ in $(seq 60); do
            takes_guest "${port##*:}" && break
            sleep 1
        done
        broker=amqp://guest:guest@127.0.0.1:${port##*:}/%2f
        return 0
    done
    return 1
}

choose_broker() {
    if [ -n "${RABBITMQ_URL-}" ]; then
        broker=$RABBITMQ_URL
        echo "using the broker of RABBITMQ_URL"
    elif scripts/broker.sh status "$DEV/broker" 2>/dev/null; then
        STARTED_WITH=broker.sh # by an earlier run that was killed
        use_private_node
        echo "using the private node in .dev/broker, which is already running"
    elif takes_guest 5672; then
        broker=amqp://guest:guest@127.0.0.1:5672/%2f
        echo "using the broker on this machine (port 5672, guest)"
    elif ! start_container; then
        echo "starting a private node in .dev/broker (set RABBITMQ_URL to use another broker)"
        STARTED_WITH=broker.sh
        scripts/broker.sh up "$DEV/broker" 8>&-
        use_private_node
    fi
}

use_private_node() {
    broker=$(sed -n 's/^RABBITMQ_URL=//p' "$DEV/broker/env")
    management=127.0.0.1:$(sed -n 's/^MANAGEMENT_PORT=//p' "$DEV/broker/env")
}

# --- the bridge ---

is_free() { ! (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

first_free_port() { # FROM
    local port=$1
    until is_free "$port"; do port=$((port + 1)); done
    [ "$port" = "$1" ] || echo "port $1 is in use; using $port" >&2
    echo "$port"
}

write_config() {
    [ -s "$DEV/secret" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$DEV/secret"
    cat >"$CONFIG" <<TOML
# Written by scripts/run.sh at each start.
[http]
listen = "127.0.0.1:$http"
[admin]
listen = "127.0.0.1:$admin"
[sources.deskdirector]
secret_files = ["$DEV/secret"]
[rabbitmq]
urls = ["$broker"]
[journal]
dir = "$DEV/journal"
TOML
}

get() { # PORT PATH
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
        timeout 5 cat <&3
    ) 2>/dev/null
}

wait_for() { # WHAT, COMMAND ...
    local what=$1
    shift
    until "$@"; do
        kill -0 "$bridge" 2>/dev/null || { tail -n 20 .dev/bridge.log; fail "the bridge ended"; }
        [ $SECONDS -lt "$deadline" ] || { tail -n 20 .dev/bridge.log; fail "timed out after $SECONDS_MAX s: $what"; }
        sleep 0.1
    done
}

is_healthy() { "$DESKBRIDGE" --config "$CONFIG" health >/dev/null 2>&1; }
is_connected() { get "$admin" /status | grep -q '"state": *"connected"'; }
is_subscribed() { grep -q '^waiting for' .dev/tail.log; }
has_arrived() { grep -qF "$session" .dev/received.txt; }

# Ends processes of an earlier run that was killed. The lock guarantees that no other run uses them.
end_orphans() {
    local pid
    touch .dev/pids
    while read -r pid; do
        if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" = "$PWD" ] \
            && grep -qF deskbridge.toml "/proc/$pid/cmdline" 2>/dev/null; then
            kill -9 "$pid" && echo "ended process $pid of an earlier run"
        fi
    done <.dev/pids
    : >.dev/pids
}

clean_up() {
    local status=$?
    # The processes end by a signal here, which is not a failure.
    trap - ERR
    trap '' INT TERM
    set +e
    for pid in ${tail-} ${bridge-}; do
        kill "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    case ${STARTED_WITH-} in
        broker.sh) scripts/broker.sh down "$DEV/broker" ;;
        docker | podman) "$STARTED_WITH" stop "$CONTAINER" >/dev/null ;;
    esac
    exit "$status"
}

# --- main ---

umask 077
mkdir -p "$DEV"
exec 8>"$DEV/lock" # children close it, so the lock ends with this script
flock -n 8 || fail "make run is already running in this checkout; end it first (Ctrl-C)"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

end_orphans

step "Build (takes some minutes the first time)"
command -v cargo >/dev/null || fail "cargo is missing: install Rust from https://rustup.rs"
cargo build --locked

step "Broker"
choose_broker

step "Bridge"
http=$(first_free_port 8080)
admin=$(first_free_port 9180)
write_config
deadline=$((SECONDS + SECONDS_MAX))
"$DESKBRIDGE" --config "$CONFIG" serve >.dev/bridge.log 2>&1 8>&- &
bridge=$!
echo $bridge >>.dev/pids
wait_for "the bridge accepts webhooks" is_healthy
wait_for "the bridge is connected to the broker" is_connected
echo "http://127.0.0.1:$http/webhooks/deskdirector accepts webhooks (log: .dev/bridge.log)"

step "Subscriber: deskbridge tail --body 'chat-session.#'"
: >.dev/received.txt
: >.dev/tail.log
"$DESKBRIDGE" --config "$CONFIG" tail --body 'chat-session.#' > >(exec tee .dev/received.txt 8>&-) 2>.dev/tail.log 8>&- &
tail=$!
echo $tail >>.dev/pids
wait_for "the subscriber is bound" is_subscribed

step "Sender: deskbridge send $SAMPLE"
session=$(grep -o '"id": *"[^"]*"' "$SAMPLE" | head -n 1 | cut -d'"' -f4)
"$DESKBRIDGE" --config "$CONFIG" send "$SAMPLE" || fail "the webhook was not accepted"
wait_for "the session $session reaches the subscriber" has_arrived
sleep 0.2 # give tee time to print it

if [ "$MODE" = demo ]; then
    step "The session $session has arrived"
    exit 0
fi

step "It works. Further messages are printed here. In another terminal, try"
cat <<TEXT
  $DESKBRIDGE --config $CONFIG send $SAMPLE
  $DESKBRIDGE --config $CONFIG send --count 100 --rate 10/s
  $DESKBRIDGE --config $CONFIG tail --json 'chat-session.completed'
  http://127.0.0.1:$admin/status      http://127.0.0.1:$admin/metrics
TEXT
[ -z "${management-}" ] || echo "  http://$management/  (RabbitMQ, guest/guest)"
echo "Ctrl-C ends bridge and broker; journal and secret stay in .dev/."
echo
wait "$bridge" || true
fail "the bridge ended: see .dev/bridge.log"
