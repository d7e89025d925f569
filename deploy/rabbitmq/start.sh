#!/bin/sh
# Starts the image's RabbitMQ with Hookledger's users and no other: passwords come from the environment, and what each may
# do from permissions.json. It is done at each start, before anybody can log in: to change a password, change the
# variable and start anew. Users that were made by hand stay.
set -eu
umask 077
definitions=${TMPDIR:-/tmp}/hookledger
mkdir -p "$definitions"

user() {
    case $2 in
    '' | *[!A-Za-z0-9._~-]*)
        echo "$0: the password of $1 has to be letters, digits and . _ ~ -, since it stands in a URL" >&2
        exit 2
        ;;
    esac
    printf '%s\n  {"name": "%s", "tags": [], "password": "%s"}' "$separator" "$1" "$2"
    separator=,
}

separator=
{
    # RabbitMQ makes no virtual host of its own where it loads definitions.
    printf '{"vhosts": [{"name": "/"}], "users": ['
    user hookledger-ingress "${HOOKLEDGER_BROKER_INGRESS_PASSWORD-}"
    user hookledger-dispatcher "${HOOKLEDGER_BROKER_DISPATCHER_PASSWORD-}"
    user hookledger-registry "${HOOKLEDGER_BROKER_REGISTRY_PASSWORD-}"
    user hookledger-operator "${HOOKLEDGER_BROKER_OPERATOR_PASSWORD-}"
    user hookledger-producer "${HOOKLEDGER_BROKER_PRODUCER_PASSWORD-}"
    printf ']}\n'
} > "$definitions/1-users.json"
cp "$(dirname "$0")/permissions.json" "$definitions/2-permissions.json"
unset HOOKLEDGER_BROKER_INGRESS_PASSWORD HOOKLEDGER_BROKER_DISPATCHER_PASSWORD HOOKLEDGER_BROKER_REGISTRY_PASSWORD \
    HOOKLEDGER_BROKER_OPERATOR_PASSWORD HOOKLEDGER_BROKER_PRODUCER_PASSWORD
exec docker-entrypoint.sh rabbitmq-server
