# shellcheck shell=bash disable=SC2154,SC2016,SC2153
# What docker-compose.yml promises, one function per promise, in the order in which a new operator
# would encounter them. Sourced by scripts/compose-test.sh.

run_checks() {
    check comes_up_without_a_secret_and_says_so_in_one_line
    check accepts_before_the_broker_is_ready
    check both_containers_become_healthy
    check secret_and_login_are_for_their_readers_only
    check the_password_was_made_here_and_stays
    check the_webhook_arrives_byte_for_byte
    check consumers_on_this_machine_can_subscribe
    check the_commands_work_inside_the_container
    check the_bridge_can_change_nothing_but_its_journal
    check the_broker_knows_one_user_who_is_no_administrator
    check only_webhooks_are_published_to_everybody
    check a_restart_of_the_broker_loses_nothing
    check a_killed_bridge_comes_back_and_loses_nothing
    check a_restart_behind_caddy_refuses_nobody
    check https_lets_webhooks_through_and_nothing_else
    check the_demo_consumers_handle_the_example_webhook
    check monitoring_scrapes_the_bridge_and_loads_the_alerts
    check a_configuration_of_ones_own_replaces_that_of_the_image
    check consumers_on_other_machines_reach_the_published_broker
    check the_image_of_make_dist_is_used_by_name
    check stops_within_its_grace_though_the_broker_is_frozen
    check an_own_broker_replaces_the_bundled_one
}

check() {
    local from=$SECONDS
    "$1"
    say "ok   ${1//_/ } ($((SECONDS - from)) s)"
}

# until_true SECONDS COMMAND...: repeats the command until it succeeds.
until_true() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "timed out: $*"
        sleep 0.2
    done
}

get() { inside curl --silent --fail --max-time 5 "$@"; }
admin() { get "http://127.0.0.1:9180/$1"; }
is_alive() { admin livez >/dev/null; }
is_up() { admin readyz >/dev/null; }
post() { inside "$deskbridge" send --url "$URL" --secret-file "$WORK/secret" "$@"; }
posts() { post "$@" >"$WORK/answer" 2>&1; }
health() { docker inspect --format '{{.State.Health.Status}}' "$(compose ps --all --quiet "$1")"; }
is_healthy() { [ "$(health "$1")" = healthy ]; }
# inspect SERVICE FORMAT
inspect() { docker inspect --format "$2" "$(compose ps --all --quiet "$1")"; }

password() { compose exec -T rabbitmq cat /run/login/password; }

# total METRIC: the sum of all its series.
total() { admin metrics | awk -v name="deskbridge_$1" '
    $1 == name || index($1, name "{") == 1 { sum += $2 } END { printf "%d", sum }'; }

is_forwarded() {
    [ "$(total journal_backlog_events)" = 0 ] && [ "$(total sessions_accepted_total)" -ge "$1" ]
}

# Without subscribers, all events wait in the queue of unrouted events.
held_by_the_broker() {
    compose exec -T rabbitmq rabbitmqctl --quiet list_queues name messages |
        awk '$1 == "chat-sessions.unrouted" { print $2 }'
}

nothing_is_lost() {
    local accepted
    accepted=$(total sessions_accepted_total)
    until_true 60 is_forwarded "$accepted"
    # The broker updates the count of a quorum queue every 5 s.
    until_true 20 holds "$((accepted - subscribed))"
    say "     $accepted sessions accepted, $held unrouted in the broker, $subscribed received by a subscriber"
}

holds() {
    held=$(held_by_the_broker)
    [ "$held" -ge "$1" ]
}

comes_up_without_a_secret_and_says_so_in_one_line() {
    compose up --detach --build >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "compose up"; }
    until_true 30 is_alive
    ! is_up || fail "ready without a secret"
    local lines
    lines=$(compose logs --no-color bridge | grep -F secrets/deskdirector || true)
    [ "$(echo "$lines" | grep -c .)" = 1 ] || fail "not one line about the secret: $lines"
    say "     ${lines#*| }"
    printf '%s\n' "$SECRET" >"$WORK/secret"
    ! posts tests/data/completed.json || fail "accepted without a secret"
}

accepts_before_the_broker_is_ready() {
    (umask 077 && cp "$WORK/secret" "$WORK/checkout/secrets/deskdirector")
    compose run --rm init >"$WORK/init" 2>&1 || fail "init: $(cat "$WORK/init")"
    # As in secrets/README.md. After `docker kill --signal HUP` the engine would consider the bridge
    # stopped by hand and not restart it after a crash.
    compose exec -T bridge sh -c 'kill -HUP 1'
    until_true 10 posts tests/data/completed.json
    ! is_healthy rabbitmq || fail "the broker was ready first"
    [ "$(inspect bridge '{{.RestartCount}}')" = 0 ] || fail "the bridge was restarted"
    say "     $(head -n 1 "$WORK/answer"), the broker is $(health rabbitmq)"
}

both_containers_become_healthy() {
    until_true 120 is_healthy bridge
    until_true 120 is_healthy rabbitmq
}

secret_and_login_are_for_their_readers_only() {
    local seen
    seen=$(compose exec -T bridge stat --format '%n %a %u' secrets/deskdirector login/bridge)
    [ "$seen" = "secrets/deskdirector 400 10001"$'\n'"login/bridge 400 10001" ] || fail "$seen"
    ! compose exec -T bridge cat login/password >"$WORK/cat" 2>&1 || fail "the bridge reads the password"
    ! compose exec -T bridge cat login/consumers >"$WORK/cat" 2>&1 || fail "the bridge reads others' login"
}

the_password_was_made_here_and_stays() {
    local made service
    made=$(password)
    [ ${#made} = 48 ] || fail "not a password of 48 digits"
    for service in bridge rabbitmq init; do
        ! inspect "$service" '{{json .Config}}' | grep -qF "$made" || fail "$service shows the password"
    done
    ! compose exec -T rabbitmq rabbitmqctl --quiet authenticate_user guest guest >"$WORK/guest" 2>&1 ||
        fail "guest may log in"
    compose run --rm init >"$WORK/init" 2>&1 || fail "init: $(cat "$WORK/init")"
    [ "$(password)" = "$made" ] || fail "another password"
}

the_webhook_arrives_byte_for_byte() {
    until_true 30 is_forwarded 1
    local message
    message=$(get --user "deskbridge:$(password)" --header 'Content-Type: application/json' \
        --data '{"count":1,"ackmode":"ack_requeue_true","encoding":"base64"}' \
        http://127.0.0.1:15672/api/queues/%2f/chat-sessions.unrouted/get)
    grep -q '"routing_key":"chat-session.completed"' <<<"$message" || fail "$message"
    grep -o '"payload":"[^"]*"' <<<"$message" | cut -d'"' -f4 | base64 -d >"$WORK/body"
    # The element without the surrounding brackets.
    tail -c +5 tests/data/completed.json | head -c 1537 | cmp - "$WORK/body" || fail "other bytes"
}

consumers_on_this_machine_can_subscribe() {
    inside "$deskbridge" tail --count 1 --json 'chat-session.#' --config config/docker.toml \
        --set "rabbitmq.urls=amqp://deskbridge:$(password)@127.0.0.1:5672/%2f" >"$WORK/tail" 2>"$WORK/tail.err" &
    local tail_pid=$!
    # Its queue is bound once the broker has one consumer.
    until_true 30 has_a_consumer_unless_ended "$tail_pid"
    posts tests/data/completed.json || fail "$(cat "$WORK/answer")"
    wait "$tail_pid" || fail "tail: $(cat "$WORK/tail.err")"
    grep -q 1530162945-9852 "$WORK/tail" || fail "tail: $(cat "$WORK/tail")"
    subscribed=1
}

has_a_consumer_unless_ended() {
    kill -0 "$1" 2>/dev/null || fail "tail: $(cat "$WORK/tail.err")"
    compose exec -T rabbitmq rabbitmqctl --quiet list_consumers queue_name | grep -vqx queue_name
}

the_commands_work_inside_the_container() {
    local command
    for command in health check 'send --count 1'; do
        # shellcheck disable=SC2086
        compose exec -T bridge deskbridge $command >"$WORK/command" 2>&1 ||
            fail "$command: $(cat "$WORK/command")"
    done
}

the_bridge_can_change_nothing_but_its_journal() {
    local in_bridge=(compose exec -T bridge)
    [ "$("${in_bridge[@]}" id -u)" = 10001 ] || fail "not the user 10001"
    ! "${in_bridge[@]}" touch /opt/deskbridge/x 2>"$WORK/touch" || fail "wrote to its root"
    ! "${in_bridge[@]}" touch /opt/deskbridge/secrets/x 2>>"$WORK/touch" || fail "wrote to the secrets"
    [ "$(grep -c 'Read-only file system' "$WORK/touch")" = 2 ] || fail "$(cat "$WORK/touch")"
    "${in_bridge[@]}" touch /var/lib/deskbridge/x || fail "cannot write to its journal"
    "${in_bridge[@]}" rm /var/lib/deskbridge/x
    "${in_bridge[@]}" cat /proc/1/status >"$WORK/status"
    grep -q '^CapBnd:[[:space:]]*0*$' "$WORK/status" || fail "has capabilities"
    grep -q '^NoNewPrivs:[[:space:]]*1$' "$WORK/status" || fail "can get new privileges"
}

the_broker_knows_one_user_who_is_no_administrator() {
    local users
    users=$(compose exec -T rabbitmq rabbitmqctl --quiet --no-table-headers list_users)
    [ "$(tr -s '\t ' ' ' <<<"$users")" = "deskbridge [management]" ] || fail "$users"
}

only_webhooks_are_published_to_everybody() {
    local published expected
    published=$(for service in bridge rabbitmq; do
        inspect "$service" '{{range $port, $at := .HostConfig.PortBindings}}{{range $at}}{{.HostIp}} {{$port}}{{"\n"}}{{end}}{{end}}'
    done | grep . | sort)
    expected=$(printf '%s\n' ' 8080/tcp' '127.0.0.1 15672/tcp' '127.0.0.1 5672/tcp' '127.0.0.1 9180/tcp' | sort)
    [ "${published//0.0.0.0/}" = "$expected" ] || fail "published: $published"
}

load() { # load COUNT RATE
    post --count "$1" --rate "$2" --array 2 --sessions 20 >"$WORK/load" 2>&1 &
    sender_pid=$!
}

# Waits for the load to end; it fails if any answer was not 2xx.
load_ends_well() {
    wait "$sender_pid" || { cat "$WORK/load" >&2; fail "not all were accepted"; }
    sender_pid=
    sed 's/^/compose-test:      /' "$WORK/load"
}

a_restart_of_the_broker_loses_nothing() {
    load 300 30
    sleep 1
    compose restart rabbitmq >/dev/null 2>&1
    load_ends_well
    until_true 120 is_healthy rabbitmq
    nothing_is_lost
}

a_killed_bridge_comes_back_and_loses_nothing() {
    compose stop rabbitmq >/dev/null 2>&1
    load 50 100
    load_ends_well
    [ "$(total journal_backlog_events)" = 100 ] || fail "backlog $(total journal_backlog_events)"
    # Not `docker kill`: after that the engine does not restart the container.
    kill -KILL "$(inspect bridge '{{.State.Pid}}')"
    until_true 30 was_restarted
    until_true 30 is_up
    [ "$(total journal_backlog_events)" = 100 ] || fail "backlog $(total journal_backlog_events)"
    compose start rabbitmq >/dev/null 2>&1
    until_true 120 is_healthy rabbitmq
    nothing_is_lost
}

was_restarted() { [ "$(inspect bridge '{{.RestartCount}}')" = 1 ]; }

a_restart_behind_caddy_refuses_nobody() {
    # Plain HTTP, because the sender does not trust Caddy's local certificate.
    DESKBRIDGE_DOMAIN=http://localhost compose --profile public up --detach >"$WORK/up.log" 2>&1 ||
        { cat "$WORK/up.log" >&2; fail "compose --profile public up"; }
    local URL=http://localhost/webhooks/deskdirector round
    until_true 30 posts tests/data/completed.json
    # A restart takes at least 1.5 s.
    load $((150 * RESTARTS)) 50
    for ((round = 0; round < RESTARTS; round++)); do
        compose restart bridge >/dev/null 2>&1
    done
    kill -0 "$sender_pid" 2>/dev/null || fail "the load ended before the $RESTARTS restarts"
    say "     $RESTARTS restarts"
    load_ends_well
    until_true 30 is_up
    nothing_is_lost
}

https_lets_webhooks_through_and_nothing_else() {
    compose --profile public up --detach >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    until_true 30 answers 401 https://localhost/webhooks/deskdirector
    until_true 10 answers 404 https://localhost/metrics
    until_true 10 answers 404 https://localhost/
    compose --profile public rm --stop --force caddy >/dev/null 2>&1
}

answers() { # answers CODE URL
    [ "$(inside curl --silent --insecure --max-time 5 --output /dev/null --write-out '%{http_code}' \
        --data '[]' "$2")" = "$1" ]
}

the_demo_consumers_handle_the_example_webhook() {
    compose --profile demo up --detach --build >"$WORK/up.log" 2>&1 ||
        { cat "$WORK/up.log" >&2; fail "compose --profile demo up"; }
    local language
    for language in python typescript; do
        until_true 60 says "$language" "consuming example-$language"
    done
    posts tests/data/completed.json || fail "$(cat "$WORK/answer")"
    # The same session as a missed one, which the consumers report to a manager.
    sed 's/"status": "completed"/"status": "missed"/' tests/data/completed.json >"$WORK/missed.json"
    posts "$WORK/missed.json" || fail "$(cat "$WORK/answer")"
    for language in python typescript; do
        until_true 30 says "$language" 'Missed: .* (1530162945-9852)'
        until_true 30 has_handled_all "example-$language"
        [ "$(inspect "consumer-$language" '{{.RestartCount}}')" = 0 ] || fail "consumer-$language was restarted"
        compose stop "consumer-$language" >/dev/null 2>&1
        [ "$(inspect "consumer-$language" '{{.State.ExitCode}}')" = 0 ] || fail "consumer-$language: exit code"
        say "     $language: $(compose logs --no-color "consumer-$language" | sed -n 's/.*Missed: /Missed: /p' | tail -n 1)"
    done
}

says() { # says LANGUAGE WORDS
    [ "$(compose logs --no-color "consumer-$1" | grep -c -- "$2")" -gt 0 ]
}

# Counts ready and unacknowledged messages; the count of a quorum queue is updated every 5 s.
has_handled_all() {
    compose exec -T rabbitmq rabbitmqctl --quiet list_queues name messages |
        awk -v name="$1" '$1 == name && $2 == 0 { none = 1 } END { exit !none }'
}

monitoring_scrapes_the_bridge_and_loads_the_alerts() {
    # Grafana only with the real images.
    local services=(prometheus)
    [ -n "${engine_pid:-}" ] || services+=(grafana)
    compose --profile monitoring up --detach "${services[@]}" >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    until_true 60 prometheus_has 'up{job="deskbridge"} == 1'
    local alerts
    alerts=$(get http://127.0.0.1:9090/api/v1/rules | grep -o '"type":"alerting"' | grep -c .)
    [ "$alerts" = "$(grep -c -- '- alert:' config/prometheus/alerts.yml)" ] || fail "$alerts alerts"
    say "     $alerts alerts"
    if [ -z "${engine_pid:-}" ]; then
        until_true 120 get http://127.0.0.1:3000/api/dashboards/uid/deskbridge --output "$WORK/dashboard"
    fi
    compose --profile monitoring rm --stop --force "${services[@]}" >/dev/null 2>&1
}

prometheus_has() { # prometheus_has EXPRESSION: it has a value
    get --get --data-urlencode "query=$1" http://127.0.0.1:9090/api/v1/query | grep -q '"value"'
}

a_configuration_of_ones_own_replaces_that_of_the_image() {
    local toml=$WORK/checkout/config/deskbridge.toml
    (umask 077 && { cat "$WORK/checkout/config/docker.toml" && printf '[sources.own]\nsignature = "none"\n'; } >"$toml")
    compose run --rm init >"$WORK/init" 2>&1 || fail "init: $(cat "$WORK/init")"
    compose exec -T bridge sh -c 'kill -HUP 1'
    until_true 10 answers 202 http://127.0.0.1:8080/webhooks/own
    rm "$toml"
    compose run --rm init >"$WORK/init" 2>&1 || fail "init: $(cat "$WORK/init")"
    compose exec -T bridge sh -c 'kill -HUP 1'
    until_true 10 answers 404 http://127.0.0.1:8080/webhooks/own
}

consumers_on_other_machines_reach_the_published_broker() {
    AMQP_PUBLISH=0.0.0.0:5679 compose up --detach rabbitmq >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    local at
    at=$(inspect rabbitmq '{{range (index .HostConfig.PortBindings "5672/tcp")}}{{.HostIp}}:{{.HostPort}}{{end}}')
    [ "$at" = 0.0.0.0:5679 ] || fail "published: $at"
    compose up --detach rabbitmq >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    until_true 120 is_healthy rabbitmq
}

the_image_of_make_dist_is_used_by_name() {
    local image accepted
    [ -f "$IMAGE" ] || { say "     skipped: no image in dist; make it with: make dist"; return; }
    image=$(docker load --quiet --input "$IMAGE")
    image=${image#Loaded image: }
    DESKBRIDGE_IMAGE=$image compose up --detach bridge >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    [ "$(inspect bridge '{{.Config.Image}}')" = "$image" ] || fail "not from $image"
    until_true 60 is_healthy bridge
    accepted=$(total sessions_accepted_total)
    posts tests/data/completed.json || fail "$(cat "$WORK/answer")"
    until_true 60 is_forwarded "$((accepted + 1))"
    say "     $image, $(docker image inspect --format '{{.Size}}' "$image") bytes unpacked"
    compose up --detach bridge >"$WORK/up.log" 2>&1 || fail "$(cat "$WORK/up.log")"
    until_true 60 is_healthy bridge
}

an_own_broker_replaces_the_bundled_one() {
    # The bundled one under another name, as if it were not of this project.
    local network password
    password=$(docker run --rm --volume "${COMPOSE_PROJECT_NAME}_login:/run/login" "$(docker inspect --format '{{.Config.Image}}' "$(compose ps --all --quiet init)")" cat /run/login/password)
    network=${COMPOSE_PROJECT_NAME}_default
    docker run --detach --name own-broker --hostname rabbitmq --network "$network" --network-alias own-broker \
        --volume "${COMPOSE_PROJECT_NAME}_rabbitmq:/var/lib/rabbitmq" \
        "$(docker inspect --format '{{.Config.Image}}' "$(compose ps --all --quiet rabbitmq)")" >/dev/null
    compose rm --stop --force rabbitmq >/dev/null 2>&1
    echo "RABBITMQ_URL=amqp://deskbridge:$password@own-broker:5672/%2f" >"$WORK/checkout/.env"
    compose up --detach >"$WORK/up.log" 2>&1 || { cat "$WORK/up.log" >&2; fail "compose up"; }
    local services
    services=$(compose ps --all --services | sort | tr '\n' ' ')
    ! grep -q rabbitmq <<<"$services" || fail "the bundled broker is there: $services"
    until_true 60 is_up
    local accepted
    accepted=$(total sessions_accepted_total)
    posts tests/data/completed.json || fail "$(cat "$WORK/answer")"
    until_true 60 is_forwarded "$((accepted + 1))"
    compose stop >/dev/null 2>&1
    docker rm --force own-broker >/dev/null
}

stops_within_its_grace_though_the_broker_is_frozen() {
    compose pause rabbitmq >/dev/null 2>&1
    posts tests/data/completed.json || fail "$(cat "$WORK/answer")"
    local from=$SECONDS code
    compose stop bridge >/dev/null 2>&1
    [ $((SECONDS - from)) -lt "$STOP_GRACE_SECONDS" ] || fail "took $((SECONDS - from)) s"
    code=$(inspect bridge '{{.State.ExitCode}}')
    [ "$code" = 0 ] || fail "exit code $code"
    compose unpause rabbitmq >/dev/null 2>&1
    compose stop >/dev/null 2>&1
    [ "$(inspect rabbitmq '{{.State.ExitCode}}')" != 137 ] || fail "the broker had to be killed"
}
