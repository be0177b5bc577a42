#!/usr/bin/env bash
# A private RabbitMQ node in its own directory, for `make run` and the tests.
#
# Uses the distribution's rabbitmq-server (installs it if it is missing). It does not affect a RabbitMQ
# that the system runs: it has its own ports, epmd, cookie and data. Any user can run it.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

usage() {
    cat <<'TEXT'
usage: scripts/broker.sh COMMAND DIR

  up DIR        start the node, unless it is running, and wait until it answers
  down DIR      stop the node and its epmd
  kill DIR      the same at once (SIGKILL), in any state
  hold DIR      `up`, print `ready`, wait for the end of standard input, then kill it and delete DIR
  status DIR    report whether it is running (exit code 0 or 1)
  env DIR       print RABBITMQ_URL, MANAGEMENT_URL, ports and pids of the node
  ctl DIR ...   run rabbitmqctl with the node

DIR/extra.conf is appended to rabbitmq.conf (@TLS_PORT@ stands for a free port).
DIR/seed contains the directory of another node; the new node joins its cluster.
BROKER_PLUGINS  plugins to enable (default: rabbitmq_management,rabbitmq_prometheus)
RABBITMQ_ROOT   root file system whose RabbitMQ to run (`debootstrap --include=rabbitmq-server`; as
                root); /proc must be mounted in it, and DIR must have the same path in it
TEXT
}

BIN=/usr/lib/rabbitmq/bin
ROOT=${RABBITMQ_ROOT-}
INSIDE=(${ROOT:+chroot "$ROOT"})
PLUGINS=${BROKER_PLUGINS-rabbitmq_management,rabbitmq_prometheus}
# Erlang's schedulers do not spin while they have nothing to do: several nodes share few cores.
IDLE="+sbwt none +sbwtdcpu none +sbwtdio none"
START_SECONDS_MAX=60
STOP_SECONDS_MAX=15

say() { echo "broker: $*" >&2; }
fail() { say "$*"; exit 1; }

install_if_missing() {
    [ -z "$ROOT" ] || [ -x "$ROOT$BIN/rabbitmq-server" ] || fail "no RabbitMQ in RABBITMQ_ROOT, $ROOT"
    [ -x "$BIN/rabbitmq-server" ] || [ -n "$ROOT" ] || scripts/install.sh rabbitmq-server \
        || fail "rabbitmq-server could not be installed; install RabbitMQ, or set RABBITMQ_URL"
}

# --- state of the node in $DIR ---

load() {
    [ -f "$DIR/env" ] || fail "no node in $DIR"
    # shellcheck disable=SC1091
    . "$DIR/env"
}
is_in_cluster() { [ -f "$DIR/seed" ] || [ -f "$DIR/is-seed" ]; }

# Start time of a process in ticks since boot; empty if it has ended. A zombie that still has threads
# counts as running: the ports are closed when its last thread ends.
started() { # PID
    local stat threads
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
    read -ra stat <<<"${stat##*) }"
    threads=("/proc/$1/task"/*)
    [ "${stat[0]}" != Z ] || [ ${#threads[@]} -gt 1 ] || return 0
    echo "${stat[19]}"
}

# A recorded pid counts only with the recorded start time: the kernel may have reused the number.
note() { # PID, FILE
    echo "$1 $(started "$1")" >"$2.new"
    mv "$2.new" "$2"
}
noted() { # FILE
    local pid start
    [ -f "$1" ] && read -r pid start <"$1" || return 1
    [ -n "$start" ] && [ "$(started "$pid")" = "$start" ] && echo "$pid"
}
node_pid() { noted "$DIR/node.pid"; }
epmd_pid() { noted "$DIR/epmd.pid"; }

refused() { ! (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# 32 ports below the kernel's ephemeral range.
pick_ports() {
    local base try
    for try in $(seq 50); do
        base=$((20000 + 32 * (RANDOM % 380)))
        refused "$base" && refused $((base + 1)) && refused $((base + 2)) \
            && refused $((base + 3)) && refused $((base + 4)) && refused $((base + 5)) && break
        [ "$try" -lt 50 ] || fail "no free ports found between 20000 and 32160"
    done
    local epmd=$base
    [ ! -f "$DIR/seed" ] || epmd=$(sed -n 's/^EPMD_PORT=//p' "$(cat "$DIR/seed")/env")
    cat >"$DIR/env" <<TEXT
RABBITMQ_URL=amqp://guest:guest@127.0.0.1:$((base + 1))/%2f
MANAGEMENT_URL=http://guest:guest@127.0.0.1:$((base + 3))
NODE=deskbridge$base@localhost
EPMD_PORT=$epmd
AMQP_PORT=$((base + 1))
DIST_PORT=$((base + 2))
MANAGEMENT_PORT=$((base + 3))
PROMETHEUS_PORT=$((base + 4))
TLS_PORT=$((base + 5))
CTL_PORT=$((base + 6))
TEXT
}

write_config() {
    mkdir -p "$DIR/home" "$DIR/data" "$DIR/log"
    if [ -f "$DIR/seed" ]; then
        cp -f "$(cat "$DIR/seed")/home/.erlang.cookie" "$DIR/home/.erlang.cookie"
    elif [ ! -f "$DIR/home/.erlang.cookie" ]; then
        od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$DIR/home/.erlang.cookie"
        chmod 0400 "$DIR/home/.erlang.cookie"
    fi
    echo "[$PLUGINS]." >"$DIR/enabled_plugins"
    echo "[]." >"$DIR/advanced.config"
    {
        echo "disk_free_limit.absolute = 50MB"
        echo "vm_memory_high_watermark.absolute = 1GB"
        case $PLUGINS in *management*)
            echo "management.tcp.ip = 127.0.0.1"
            echo "management.tcp.port = $MANAGEMENT_PORT" ;;
        esac
        case $PLUGINS in *prometheus*)
            echo "prometheus.tcp.ip = 127.0.0.1"
            echo "prometheus.tcp.port = $PROMETHEUS_PORT" ;;
        esac
        [ ! -f "$DIR/extra.conf" ] || sed "s/@TLS_PORT@/$TLS_PORT/g" "$DIR/extra.conf"
    } >"$DIR/rabbitmq.conf"
}

# Replaces the shell by the command. (/usr/sbin/rabbitmq* switch the user and read the system's
# configuration; the programs in $BIN do not. As under systemd, the scripts exec the node, so the pid
# is that of the node.)
become_in_node_env() {
    exec "${INSIDE[@]}" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$DIR/home" LANG=C.UTF-8 \
        ERL_CRASH_DUMP="$DIR/log/erl_crash.dump" \
        RABBITMQ_CONF_ENV_FILE=/dev/null RABBITMQ_NODENAME="$NODE" \
        RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$AMQP_PORT" \
        RABBITMQ_DIST_PORT="$DIST_PORT" \
        RABBITMQ_CTL_DIST_PORT_MIN="$CTL_PORT" RABBITMQ_CTL_DIST_PORT_MAX=$((CTL_PORT + 25)) \
        RABBITMQ_MNESIA_BASE="$DIR/data" RABBITMQ_LOG_BASE="$DIR/log" \
        RABBITMQ_ENABLED_PLUGINS_FILE="$DIR/enabled_plugins" \
        RABBITMQ_CONFIG_FILE="$DIR/rabbitmq.conf" \
        RABBITMQ_ADVANCED_CONFIG_FILE="$DIR/advanced.config" \
        ERL_EPMD_PORT="$EPMD_PORT" ERL_EPMD_ADDRESS=127.0.0.1 ERL_FLAGS="-start_epmd false" \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1} $IDLE" \
        RUNNING_UNDER_SYSTEMD=1 \
        "$@"
}

# An AMQP server answers the protocol header with a method frame, whose first byte is 1.
answers() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$AMQP_PORT"
        printf 'AMQP\0\0\11\1' >&3
        [ "$(timeout 2 head -c 1 <&3 | od -An -tx1)" = " 01" ]
    ) 2>/dev/null || return 1
    case $PLUGINS in *management*) ! refused "$MANAGEMENT_PORT" ;; esac
}

launch() {
    load
    write_config
    if [ ! -f "$DIR/seed" ] && ! epmd_pid >/dev/null; then
        setsid "${INSIDE[@]}" epmd -port "$EPMD_PORT" -address 127.0.0.1 -relaxed_command_check \
            </dev/null >"$DIR/log/epmd.log" 2>&1 9>&- &
        note $! "$DIR/epmd.pid"
        # The node does not start epmd itself (-start_epmd false): nothing would end that process.
        while refused "$EPMD_PORT" && epmd_pid >/dev/null; do sleep 0.02; done
    fi
    (cd "$DIR" && become_in_node_env setsid "$BIN/rabbitmq-server") </dev/null >"$DIR/log/console.log" 2>&1 9>&- &
    local pid=$! deadline=$((SECONDS + START_SECONDS_MAX))
    note $pid "$DIR/node.pid"
    disown # otherwise the shell reports its end
    until answers; do
        kill -0 $pid 2>/dev/null || return 1
        [ $SECONDS -lt $deadline ] || { kill -9 $pid; return 1; }
        sleep 0.1
    done
}

# Leaves its own single-node cluster and joins the seed's.
join() {
    [ -f "$DIR/seed" ] && [ ! -f "$DIR/joined" ] || return 0
    local verb seed_node
    seed_node=$(sed -n 's/^NODE=//p' "$(cat "$DIR/seed")/env")
    touch "$(cat "$DIR/seed")/is-seed"
    for verb in stop_app "join_cluster $seed_node" start_app; do
        # shellcheck disable=SC2086 # two words
        (become_in_node_env "$BIN/rabbitmqctl" -q $verb) >&2 9>&- || fail "the node could not $verb"
    done
    touch "$DIR/joined"
}

# --- commands ---

up() {
    install_if_missing
    mkdir -p "$DIR"
    exec 9>"$DIR/lock"
    flock 9
    if [ -f "$DIR/env" ]; then
        load
        if node_pid >/dev/null && answers; then
            say "already running: $RABBITMQ_URL"
            return
        fi
        end_node KILL
    else
        pick_ports
    fi
    local begin=$SECONDS try
    for try in 1 2 3; do
        if launch; then
            join
            say "running after $((SECONDS - begin)) s: $RABBITMQ_URL"
            exec 9>&-
            return
        fi
        end KILL
        [ ! -e "$DIR/ending" ] || fail "not wanted any more"
        # Another program may use one of the ports by now. A new port changes the node's name, which
        # needs a new data directory.
        if [ "$try" != 1 ] || [ ! -e "$DIR/data/$NODE" ]; then
            rm -rf "$DIR/data"
            pick_ports
        fi
    done
    tail -n 20 "$DIR/log/console.log" >&2
    fail "the node did not start; its log is in $DIR/log"
}

end_node() { # SIGNAL
    local pid waited=0
    if pid=$(node_pid); then
        kill "-$1" "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
        while node_pid >/dev/null; do
            [ $waited -lt $((STOP_SECONDS_MAX * 20)) ] || kill -9 "$pid" 2>/dev/null || true
            waited=$((waited + 1))
            sleep 0.05
        done
    fi
}

end() { # SIGNAL
    end_node "$1"
    local pid
    if pid=$(epmd_pid); then
        kill "$pid" 2>/dev/null || true
    fi
}

# In a cluster epmd keeps running: the other nodes use it.
stop() { # SIGNAL
    load
    if is_in_cluster; then end_node "$1"; else end "$1"; fi
}

# Watches standard input also while the node starts.
hold() {
    (up && echo ready) &
    starting=$!
    exec >&-
    trap release EXIT
    trap 'exit 1' INT TERM HUP
    cat <&0 >/dev/null &
    wait $!
}

release() {
    mkdir -p "$DIR"
    touch "$DIR/ending"
    while kill -0 "$starting" 2>/dev/null; do
        end KILL
        sleep 0.05
    done
    end KILL
    rm -rf "$DIR"
}

case ${1-} in help | --help | -h) usage && exit 0 ;; esac
[ $# -ge 2 ] || { usage >&2; exit 2; }
command=$1
DIR=$(realpath -m "$2")
shift 2

case $command in
    up) up ;;
    down) [ ! -f "$DIR/env" ] || stop TERM ;;
    kill) [ ! -f "$DIR/env" ] || stop KILL ;;
    hold) hold ;;
    status)
        [ -f "$DIR/env" ] || fail "no node in $DIR"
        load
        node_pid >/dev/null || fail "not running in $DIR"
        answers || fail "not answering in $DIR"
        say "running: $RABBITMQ_URL" ;;
    env)
        load
        cat "$DIR/env"
        echo "NODE_PID=$(node_pid || true)"
        echo "EPMD_PID=$(epmd_pid || true)" ;;
    ctl) load; become_in_node_env "$BIN/rabbitmqctl" "$@" ;;
    *) usage >&2; exit 2 ;;
esac
