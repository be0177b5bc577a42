# shellcheck shell=bash disable=SC2154,SC2016
# What an operator of the package sees, one function per promise, in the order of its life. Sourced by
# scripts/package-test.sh.

SECRET=package-test-secret-0123456789
SECRET_2=package-test-secret-abcdefghij
PASSWORD=package-test-password
SECRETS=/etc/deskbridge/secrets
STATE=/var/lib/deskbridge

run_checks() {
    check installs_without_starting
    check a_missing_secret_is_named
    check runs_after_one_edit
    check the_operator_runs_commands
    check a_webhook_reaches_a_subscriber
    check the_service_can_change_nothing_but_its_journal
    check reload_reads_the_configuration
    check a_half_written_configuration_is_refused
    check restarts_under_load_refuse_nothing
    check a_killed_bridge_comes_back
    check a_frozen_bridge_is_restarted
    check a_taken_port_is_named
    check an_unsupported_broker_is_named_and_used
    check an_upgrade_under_load_keeps_journal_and_configuration
    check a_journal_of_an_older_release_is_migrated
    check a_backup_under_load_can_be_restored
    check a_downgrade_is_refused_if_the_journal_is_newer
    check removal_keeps_journal_and_secrets
    check installed_again_it_knows_its_journal
    check a_purge_leaves_nothing
    check the_rpm_installs_the_same_service
    check an_upgrade_of_the_rpm_under_load_refuses_nothing
    check removal_of_the_rpm_keeps_journal_and_secrets
}

check() {
    local from=$SECONDS
    "$1"
    say "ok   ${1//_/ } ($((SECONDS - from)) s)"
}

# put PATH: writes standard input to a file of the container, for root only.
put() { inside sh -c "umask 077; cat >'$1'"; }
package() { put "/root/$1.deb" <"$WORK/$1.deb"; }
apt() {
    inside apt-get --quiet=2 --yes --no-install-recommends --allow-downgrades "$@" >"$WORK/apt" 2>&1 ||
        { cat "$WORK/apt" >&2; fail "apt-get $*"; }
}
# The operator uses `sudo -u deskbridge`; the test is root already.
bridge() { inside runuser --user deskbridge -- deskbridge "$@"; }
admin() { inside curl --silent --fail --max-time 5 "http://127.0.0.1:9180/$1"; }
is_ready() { admin readyz >/dev/null 2>&1; }
is_active() { inside systemctl --quiet is-active "$1"; }
is_failed() { inside systemctl --quiet is-failed "$1"; }
sends() { bridge send "$@" >"$WORK/answer" 2>&1; }
state() { inside systemctl show --property "$1" --value deskbridge.service; }
is_forwarded() { [ "$(total journal_backlog_events)" = 0 ]; }
total() { admin metrics | awk -v name="deskbridge_$1" '
    $1 == name || index($1, name "{") == 1 { sum += $2 } END { printf "%d", sum }'; }

# status_says WORDS...: one line of `systemctl status` has all of them.
status_says() {
    local deadline=$((SECONDS + 10))
    until has_line "$@"; do
        [ $SECONDS -lt $deadline ] || fail "systemctl status does not say $*: $(cat "$WORK/status")"
        sleep 0.2
    done
    say "     ${line#*]: }"
}

has_line() {
    local word
    inside systemctl status --no-pager --full deskbridge.service >"$WORK/status" 2>&1 || true
    line=$(cat "$WORK/status")
    for word in "$@"; do
        line=$(grep -F -- "$word" <<<"$line") || return
    done
    line=$(head -n 1 <<<"$line")
}

does_not_start() {
    inside systemctl restart deskbridge >"$WORK/start" 2>&1 || true
    until_true 10 is_failed deskbridge.service
}

installs_without_starting() {
    if [ -n "${PACKAGE_TEST_FILES:-}" ]; then
        tar -C "$PACKAGE_TEST_FILES" -c . | inside tar -C / --no-overwrite-dir -x
    fi
    files >"$WORK/files"
    package "$version~before"
    apt install "/root/$version~before.deb"
    local unit
    for unit in deskbridge.socket deskbridge.service; do
        inside systemctl --quiet is-enabled $unit || fail "$unit is not enabled"
        ! is_active $unit || fail "$unit is active"
    done
    [ "$(inside stat --format '%a %U' $SECRETS)" = '700 root' ] || fail "others can read $SECRETS"
    inside systemd-analyze verify --man=no /usr/lib/systemd/system/deskbridge.service /usr/lib/systemd/system/deskbridge.socket >"$WORK/verify" 2>&1 ||
        fail "$(cat "$WORK/verify")"
    inside systemd-analyze security --threshold=15 deskbridge.service >"$WORK/exposure" || fail "$(tail -n 1 "$WORK/exposure")"
}

a_missing_secret_is_named() {
    does_not_start
    status_says "$SECRETS/deskdirector" missing
    status_says "$SECRETS" "systemctl restart deskbridge"
    [ "$(state NRestarts)" = 0 ] || fail "a restart does not help here"
}

runs_after_one_edit() {
    local from=$SECONDS
    until_true 60 inside rabbitmqctl --quiet await_startup --timeout 60
    inside rabbitmqctl --quiet add_user deskbridge "$PASSWORD"
    inside rabbitmqctl --quiet set_permissions deskbridge '^(chat-sessions|amq\.gen)' '^(chat-sessions|amq\.gen)' '^(chat-sessions|amq\.gen)'
    echo "$SECRET" | put $SECRETS/deskdirector
    echo "$SECRET_2" | put $SECRETS/deskdirector-2
    echo "amqp://deskbridge:$PASSWORD@127.0.0.1/%2f" | put $SECRETS/rabbitmq-url
    inside systemctl start deskbridge
    until_true 10 is_ready
    sends --count 1 || fail "$(cat "$WORK/answer")"
    until_true 30 is_forwarded
    local took=$((SECONDS - from))
    say "     from the secrets to the first confirmed message: $took s"
    [ $took -le 60 ] || fail "it took more than 60 s"
}

the_operator_runs_commands() {
    bridge check >"$WORK/check" 2>&1 || fail "$(cat "$WORK/check")"
    say "     check: $(tail -n 1 "$WORK/check")"
    bridge events list >"$WORK/events" 2>&1 || fail "$(cat "$WORK/events")"
    bridge health >/dev/null 2>&1 || fail "health"
    inside sh -c 'test -s /usr/share/bash-completion/completions/deskbridge'
}

a_webhook_reaches_a_subscriber() {
    bridge tail --count 1 --json 'chat-session.#' >"$WORK/tail" 2>"$WORK/tail.err" &
    local tail_pid=$!
    until_true 30 has_a_consumer_unless_ended "$tail_pid"
    inside sh -c 'cat >/tmp/webhook.json' <tests/data/completed.json
    sends /tmp/webhook.json || fail "$(cat "$WORK/answer")"
    wait "$tail_pid" || fail "tail: $(cat "$WORK/tail.err")"
    grep -q 1530162945-9852 "$WORK/tail" || fail "tail: $(cat "$WORK/tail")"
}

has_a_consumer_unless_ended() {
    kill -0 "$1" 2>/dev/null || fail "tail: $(cat "$WORK/tail.err")"
    inside rabbitmqctl --quiet list_consumers queue_name | grep -vqx queue_name
}

the_service_can_change_nothing_but_its_journal() {
    local pid status
    pid=$(state MainPID)
    status=$(inside cat "/proc/$pid/status")
    grep -q '^CapBnd:[[:space:]]*0*$' <<<"$status" || fail "has capabilities"
    grep -q '^NoNewPrivs:[[:space:]]*1$' <<<"$status" || fail "can get new privileges"
    grep -q '^Seccomp:[[:space:]]*2$' <<<"$status" || fail "no filter of system calls"
    [ "$(inside stat --format '%U' "/proc/$pid")" = deskbridge ] || fail "not its own user"
    [ "$(inside stat --format '%a %U' $STATE)" = '700 deskbridge' ] || fail "others can read the journal"
    inside awk '$5 == "/" { exit $6 !~ /^ro/ }' "/proc/$pid/mountinfo" || fail "its root is writable"
    say "     $(awk '/^VmRSS/ { print int($2 / 1024) " MiB resident" }' <<<"$status")"
}

reload_reads_the_configuration() {
    local pid
    pid=$(state MainPID)
    inside sh -c 'printf "\n[routing.statuses.missed]\nrouting_key = \"alarm\"\n" >>/etc/deskbridge/deskbridge.toml'
    inside systemctl reload deskbridge
    until_true 10 log_says 'configuration reloaded'
    [ "$(state MainPID)" = "$pid" ] || fail "the service was restarted"
}

log_says() { inside journalctl --quiet --unit deskbridge.service --output cat | grep -qF -- "$1"; }

a_half_written_configuration_is_refused() {
    inside cp /etc/deskbridge/deskbridge.toml /root/kept.toml
    inside sh -c 'echo "[retry" >>/etc/deskbridge/deskbridge.toml'
    inside systemctl reload deskbridge || true
    until_true 10 log_says 'deskbridge.toml:'
    is_ready || fail "the bridge stopped"
    does_not_start
    status_says deskbridge.toml:
    status_says "systemctl restart deskbridge"
    inside cp /root/kept.toml /etc/deskbridge/deskbridge.toml
    inside systemctl restart deskbridge
    until_true 10 is_ready
}

load() { # load SECONDS
    bridge send --count $((50 * $1)) --rate 50 --sessions 20 >"$WORK/load" 2>&1 &
    sender_pid=$!
    sleep 1
}

# Waits for the load to end; it fails if any answer was not 2xx.
load_ends_well() {
    kill -0 "$sender_pid" 2>/dev/null || fail "the load ended too early: $(cat "$WORK/load")"
    wait "$sender_pid" || { cat "$WORK/load" >&2; fail "not all were accepted"; }
    sed 's/^/package-test:      /' "$WORK/load"
    until_true 60 is_forwarded
    [ "$(total sessions_accepted_total)" = "$(total sessions_published_total)" ] || fail "not everything was published"
}

restarts_under_load_refuse_nothing() {
    local round
    load $((2 * RESTARTS + 10))
    for ((round = 0; round < RESTARTS; round++)); do
        inside systemctl restart deskbridge
        sleep 0.5
    done
    say "     $RESTARTS restarts"
    load_ends_well
}

a_killed_bridge_comes_back() {
    inside systemctl kill --signal KILL deskbridge.service
    sends --count 5 --connections 1 || fail "$(cat "$WORK/answer")"
    was_restarted 1 || fail "$(state NRestarts) restarts"
    until_true 10 is_ready
}

# systemd ends a bridge that has sent no sign of life for WatchdogSec, and starts it again.
a_frozen_bridge_is_restarted() {
    inside systemctl kill --signal STOP deskbridge.service
    until_true 90 was_restarted 2
    until_true 10 is_ready
    sends --count 1 || fail "$(cat "$WORK/answer")"
}

was_restarted() { [ "$(state NRestarts)" = "$1" ]; }

# Another program has the port.
a_taken_port_is_named() {
    inside systemctl stop deskbridge.socket deskbridge.service
    inside systemd-run --quiet --unit taken --property Type=exec \
        --socket-property ListenStream=8080 /bin/sleep infinity
    until_true 5 is_active taken.socket
    inside systemctl start deskbridge >"$WORK/start" 2>&1 || true
    status_says 8080 "in use"
    inside systemctl stop taken.socket
    inside systemctl restart deskbridge
    until_true 10 is_ready
    is_active deskbridge.socket || fail "the socket is not back"
}

# The broker of the test, with another version in its greeting.
an_unsupported_broker_is_named_and_used() {
    nsenter --target "$init_pid" --net python3 scripts/package-test/older_broker.py &
    proxy_pid=$!
    echo "amqp://deskbridge:$PASSWORD@127.0.0.1:5670/%2f" | put $SECRETS/rabbitmq-url
    inside systemctl restart deskbridge
    # The bridge reads the version once a connection has lasted for 20 s.
    until_true 60 has_line 'version is not supported' 3.8 'RabbitMQ 3.10 and newer'
    say "     ${line#*]: }"
    admin status | grep -q 'the broker has version 3.8' || fail "not in /status"
    bridge check >"$WORK/check" 2>&1 || true
    grep -q 'the broker has version 3.8' "$WORK/check" || fail "check: $(cat "$WORK/check")"
    sends --count 1 || fail "$(cat "$WORK/answer")"
    until_true 30 is_forwarded
    echo "amqp://deskbridge:$PASSWORD@127.0.0.1/%2f" | put $SECRETS/rabbitmq-url
    inside systemctl restart deskbridge
    kill "$proxy_pid"
    proxy_pid=
    until_true 10 is_ready
}

an_upgrade_under_load_keeps_journal_and_configuration() {
    local before
    before=$(total sessions_accepted_total)
    package "$version"
    load 15
    apt install "/root/$version.deb"
    load_ends_well
    [ "$(total sessions_accepted_total)" -gt "$before" ] || fail "the journal is another one"
    inside grep -q alarm /etc/deskbridge/deskbridge.toml || fail "the configuration was replaced"
    [ "$(inside dpkg-query --show --showformat '${Version}' deskbridge)" = "$version" ] || fail "not upgraded"
}

# An older release has accepted events and published none: the broker is stopped.
a_journal_of_an_older_release_is_migrated() {
    local before after events=400
    [ -n "${PACKAGE_TEST_BEFORE:-}" ] || { say "     skipped: PACKAGE_TEST_BEFORE names no binary"; return; }
    inside systemctl stop deskbridge.socket deskbridge.service
    inside mv $STATE $STATE.aside
    inside install -d -m 700 -o deskbridge -g deskbridge $STATE
    inside install -m 755 /dev/stdin /usr/local/bin/older <"$PACKAGE_TEST_BEFORE"
    inside install -m 644 /dev/stdin /opt/older.toml <<TEXT
[sources.deskdirector]
secrets = ["$SECRET"]
[rabbitmq]
urls = ["amqp://deskbridge:$PASSWORD@127.0.0.1/%2f"]
[journal]
dir = "$STATE"
TEXT
    inside rabbitmqctl --quiet stop_app
    inside systemd-run --quiet --unit older --uid deskbridge /usr/local/bin/older serve --config /opt/older.toml
    until_true 20 is_alive
    inside install -m 644 /dev/stdin /tmp/secret <<<"$SECRET"
    bridge send --count $events --sessions 20 --url http://127.0.0.1:8080/webhooks/deskdirector \
        --secret-file /tmp/secret >"$WORK/answer" 2>&1 || fail "$(cat "$WORK/answer")"
    inside systemctl stop older.service
    before=$(schema)
    inside systemctl start deskbridge
    after=$(schema)
    [ "$before" -lt "$after" ] || fail "schema $before is not older than $after"
    until_true 20 is_alive
    [ "$(total journal_backlog_events)" = $events ] || fail "$(total journal_backlog_events) of $events events"
    inside rabbitmqctl --quiet start_app
    until_true 60 is_forwarded
    [ "$(total sessions_published_total)" = $events ] || fail "$(total sessions_published_total) published"
    say "     schema $before to $after, $events of $events pending events published"
    inside systemctl stop deskbridge.socket deskbridge.service
    inside rm -r $STATE /usr/local/bin/older /opt/older.toml /tmp/secret
    inside mv $STATE.aside $STATE
    inside systemctl start deskbridge
    until_true 20 is_ready
}

is_alive() { admin livez >/dev/null 2>&1; }
schema() { inside runuser --user deskbridge -- sqlite3 $STATE/journal.db 'PRAGMA user_version'; }

# The commands of docs/installing.md.
a_backup_under_load_can_be_restored() {
    local restored
    load 8
    inside runuser --user deskbridge -- sqlite3 $STATE/journal.db "VACUUM INTO '$STATE/backup.db'"
    load_ends_well
    inside mv $STATE/backup.db /root/backup.db
    inside systemctl stop deskbridge.socket deskbridge.service
    inside mv $STATE $STATE.old
    inside install -d -m 700 -o deskbridge -g deskbridge $STATE
    inside install -m 600 -o deskbridge -g deskbridge /root/backup.db $STATE/journal.db
    inside systemctl start deskbridge
    until_true 10 is_ready
    until_true 30 is_forwarded
    restored=$(total sessions_accepted_total)
    [ "$restored" -gt 100 ] || fail "only $restored sessions in the backup"
    [ "$restored" = "$(total sessions_published_total)" ] || fail "not everything was published"
    ! log_says damaged || fail "the backup is damaged"
    bridge events list >/dev/null || fail "events"
    sends --count 1 || fail "$(cat "$WORK/answer")"
    say "     a backup of $(inside stat --format %s /root/backup.db) bytes, $restored sessions"
    inside rm -r $STATE.old /root/backup.db
}

# The journal of a later release, as far as an earlier one can tell.
a_downgrade_is_refused_if_the_journal_is_newer() {
    inside systemctl stop deskbridge.socket deskbridge.service
    local schema
    schema=$(inside runuser --user deskbridge -- sqlite3 $STATE/journal.db 'PRAGMA user_version')
    inside runuser --user deskbridge -- sqlite3 $STATE/journal.db 'PRAGMA user_version = 1000'
    inside sha256sum $STATE/journal.db >"$WORK/before"
    inside systemctl start deskbridge >"$WORK/start" 2>&1 || true
    status_says journal.db "schema version"
    inside systemctl stop deskbridge.socket deskbridge.service
    inside sha256sum $STATE/journal.db | cmp - "$WORK/before" || fail "the journal was changed"
    inside runuser --user deskbridge -- sqlite3 $STATE/journal.db "PRAGMA user_version = $schema"
    inside systemctl start deskbridge
    until_true 10 is_ready
}

removal_keeps_journal_and_secrets() {
    apt remove deskbridge
    ! is_active deskbridge.service || fail "it still runs"
    ! is_active deskbridge.socket || fail "it still listens"
    inside test -s $STATE/journal.db || fail "the journal is gone"
    inside test -s $SECRETS/deskdirector || fail "the secrets are gone"
}

installed_again_it_knows_its_journal() {
    apt install "/root/$version.deb"
    inside systemctl start deskbridge
    until_true 10 is_ready
    sends --count 1 || fail "$(cat "$WORK/answer")"
    [ "$(total sessions_accepted_total)" -gt 100 ] || fail "the journal is another one"
}

a_purge_leaves_nothing() {
    apt purge deskbridge
    files | comm -13 "$WORK/files" - >"$WORK/left"
    [ ! -s "$WORK/left" ] || fail "left: $(cat "$WORK/left")"
}

# rpm does not know what dpkg has installed: --nodeps. Debian's presets enable every service.
the_rpm_installs_the_same_service() {
    local release
    for release in 1 2; do
        put "/root/$release.rpm" <"$WORK/$release.rpm"
    done
    rpm --install --nodeps /root/1.rpm
    inside systemctl --quiet is-enabled deskbridge.service || fail "the service is not enabled"
    ! is_active deskbridge.service || fail "the service was started"
    [ "$(inside stat --format '%a %U' $SECRETS)" = '700 root' ] || fail "others can read $SECRETS"
    echo "$SECRET" | put $SECRETS/deskdirector
    echo "$SECRET_2" | put $SECRETS/deskdirector-2
    echo "amqp://deskbridge:$PASSWORD@127.0.0.1/%2f" | put $SECRETS/rabbitmq-url
    inside systemctl --quiet enable --now deskbridge
    until_true 10 is_ready
    sends --count 1 || fail "$(cat "$WORK/answer")"
    until_true 30 is_forwarded
}

rpm() { inside rpm "$@" >"$WORK/rpm" 2>&1 || fail "rpm $*: $(cat "$WORK/rpm")"; }

an_upgrade_of_the_rpm_under_load_refuses_nothing() {
    local pid
    pid=$(state MainPID)
    inside sh -c 'printf "\n[routing.statuses.missed]\nrouting_key = \"alarm\"\n" >>/etc/deskbridge/deskbridge.toml'
    load 10
    rpm --upgrade --nodeps /root/2.rpm
    load_ends_well
    [ "$(state MainPID)" != "$pid" ] || fail "the service was not restarted"
    inside grep -q alarm /etc/deskbridge/deskbridge.toml || fail "the configuration was replaced"
}

removal_of_the_rpm_keeps_journal_and_secrets() {
    rpm --erase deskbridge
    ! is_active deskbridge.service || fail "it still runs"
    ! is_active deskbridge.socket || fail "it still listens"
    inside test -s $STATE/journal.db || fail "the journal is gone"
    inside test -s $SECRETS/deskdirector || fail "the secrets are gone"
    inside test -s /etc/deskbridge/deskbridge.toml.rpmsave || fail "the configuration is gone"
    inside test ! -e /usr/bin/deskbridge || fail "the program is still there"
}

# Everything of the system that is named after the package.
files() { inside find /etc /usr /var -xdev -name '*deskbridge*' -not -path '/var/lib/rabbitmq/*' | sort; }
