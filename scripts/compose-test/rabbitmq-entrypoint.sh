#!/bin/bash
# Stand-in for the entry point of the official RabbitMQ image, as far as docker-compose.yml needs it:
# rejects the same variables, changes the owner of the volume, and switches to the broker's user. The
# server itself reads RABBITMQ_DEFAULT_USER and RABBITMQ_DEFAULT_PASS.
set -euo pipefail

for variable in RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE; do
    if [ -n "${!variable:-}" ]; then
        echo "error: $variable is set but deprecated" >&2
        exit 1
    fi
done
if [ "$1" = rabbitmq-server ] && [ "$(id -u)" = 0 ]; then
    find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq {} +
    exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
fi
exec "$@"
