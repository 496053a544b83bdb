#!/bin/sh
# Starts PostgreSQL in a container; makes a cluster in an empty PGDATA first. Reads what the official
# image reads: POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, POSTGRES_USER, POSTGRES_DB,
# POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD.
set -eu
umask 077

# Anything else than the server is run as it is, and options alone are the server's.
case "${1:-}" in
    -*) set -- postgres "$@" ;;
    postgres) ;;
    *) exec "$@" ;;
esac

user=${POSTGRES_USER:-postgres}
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo 'entrypoint: POSTGRES_PASSWORD is not set, and the cluster is new' >&2
        exit 1
    fi
    mkdir -p "$PGDATA"
    if ! chmod 700 "$PGDATA"; then
        echo "entrypoint: $PGDATA belongs to somebody else; let PGDATA be a directory below the volume" >&2
        exit 1
    fi
    password=$(mktemp)
    printf '%s\n' "${POSTGRES_PASSWORD:-none}" >"$password"
    # shellcheck disable=SC2086  # a list of arguments
    initdb -D "$PGDATA" -U "$user" --pwfile="$password" --auth-local=trust --auth-host=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 ${POSTGRES_INITDB_ARGS:-}
    rm -f "$password"
    {
        echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
        echo "host replication all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}"
    } >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    if [ -n "${POSTGRES_DB:-}" ] && [ "$POSTGRES_DB" != postgres ]; then
        # One user, no sockets: nobody can connect before the database is there.
        printf 'CREATE DATABASE "%s";\n' "$POSTGRES_DB" | postgres --single -D "$PGDATA" -j postgres >/dev/null
    fi
fi

exec "$@"
