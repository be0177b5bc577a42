#!/bin/sh
# What docker-compose.yml runs before everything else, as root and without a network: gives each
# service its own copy of what it may know. Runs again at every `docker compose up`.
#
#   /from     secrets/ of the checkout, whoever owns it there
#   /secrets  the same for the bridge, readable by nobody else
#   /login    the login at the broker, one file a reader

set -eu
umask 077
bridge=10001 consumers=10002

# put PATH OWNER: writes standard input; a reader finds the old one or the new one, whole.
put() {
    cat >"$1.new"
    chmod 0400 "$1.new"
    chown "$2:$2" "$1.new"
    mv -f "$1.new" "$1"
}

chmod 0755 /secrets /login
for kept in /secrets/*; do
    [ -f "/from/${kept##*/}" ] || rm -f "$kept"
done
for secret in /from/*; do
    case ${secret##*/} in
        README.md | '*') ;;
        *) put "/secrets/${secret##*/}" "$bridge" <"$secret" ;;
    esac
done

# Made at the first start, unless .env names one; kept in the volume.
if [ -n "${RABBITMQ_PASSWORD-}" ]; then
    printf %s "$RABBITMQ_PASSWORD" | put /login/password 0
elif [ ! -s /login/password ]; then
    od -An -N24 -tx1 /dev/urandom | tr -d ' \n' | put /login/password 0
fi
url="amqp://deskbridge:$(cat /login/password)@rabbitmq:5672/%2f"
printf %s "$url" | put /login/bridge "$bridge"
printf %s "$url" | put /login/consumers "$consumers"
