#!/bin/sh
# docker-compose.yml runs this before all other services, as root and without a network. It gives
# each service its own copy of the secrets that it needs. Runs again at every `docker compose up`.
#
#   /from     config/ and secrets/ of the checkout, with any owner
#   /config   the bridge's configuration: config/deskbridge.toml if it exists, else config/docker.toml
#   /secrets  a copy of secrets/, readable by the bridge only
#   /login    the broker's credentials, one file per reader

set -eu
umask 077
bridge=10001 consumers=10002

# put PATH OWNER: writes standard input to PATH atomically: a reader sees the old or the new file.
put() {
    cat >"$1.new"
    chmod 0400 "$1.new"
    chown "$2:$2" "$1.new"
    mv -f "$1.new" "$1"
}

chmod 0755 /config /secrets /login
toml=/from/config/deskbridge.toml
[ -e "$toml" ] || toml=/from/config/docker.toml
put /config/deskbridge.toml "$bridge" <"$toml"

for kept in /secrets/*; do
    [ -f "/from/secrets/${kept##*/}" ] || rm -f "$kept"
done
for secret in /from/secrets/*; do
    case ${secret##*/} in
        README.md | '*') ;;
        *) put "/secrets/${secret##*/}" "$bridge" <"$secret" ;;
    esac
done

# The password is generated at the first start, unless .env sets one, and kept in the volume.
if [ -n "${RABBITMQ_PASSWORD-}" ]; then
    printf %s "$RABBITMQ_PASSWORD" | put /login/password 0
elif [ ! -s /login/password ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | put /login/password 0
fi
url=${RABBITMQ_URL:-"amqp://deskbridge:$(cat /login/password)@rabbitmq:5672/%2f"}
printf %s "$url" | put /login/bridge "$bridge"
printf %s "$url" | put /login/consumers "$consumers"
