#!/bin/sh
# Gets the drivers that tests/e2e/tests/drivers.rs runs, into target/drivers: `drivers.sh` all of them,
# `drivers.sh python`, `node` or `jdbc` one kind. Versions and digests are pinned in tests/drivers. Does nothing
# and prints nothing when they are there already. Where a kind can't be had, it says so and ends with 1.
set -eu

cd "$(dirname "$0")/.."
source=tests/drivers
drivers=${CARGO_TARGET_DIR:-target}/drivers
jdbc=42.7.11
jdbc_sha256=1981b31d3993c58702783c1cddf10a34e48c1f413d70ff1cb6def0a143484647

# What the tools say goes to a log; what this script says does not.
exec 3>&2
say() { printf 'drivers: %s\n' "$*" >&3; }

mkdir -p "$drivers"
log=$(cd "$drivers" && pwd)/drivers.log
# Tests that run side by side all ask.
exec 9>"$drivers/lock"
flock 9

# Whether something was made of these files as they are now: made NAME FILE…
made() {
    name=$1
    shift
    stamp=$(cat "$@" | cksum)
    [ "$(cat "$drivers/$name.stamp" 2>/dev/null)" = "$stamp" ]
}

python() {
    made python "$source/python/requirements.txt" && "$drivers/python/bin/python" -c '' 2>/dev/null && return 0
    say 'getting psycopg, asyncpg and SQLAlchemy from PyPI'
    rm -rf "$drivers/python"
    python3 -m venv "$drivers/python" &&
        "$drivers/python/bin/pip" install --disable-pip-version-check --no-input --require-hashes --no-deps \
            --only-binary :all: -r "$source/python/requirements.txt" &&
        echo "$stamp" >"$drivers/python.stamp"
}

node() {
    made node "$source/node/package-lock.json" && return 0
    say 'getting node-postgres from npm'
    mkdir -p "$drivers/node"
    cp "$source/node/package.json" "$source/node/package-lock.json" "$drivers/node/" &&
        (cd "$drivers/node" && npm ci --ignore-scripts --no-audit --no-fund) &&
        echo "$stamp" >"$drivers/node.stamp"
}

jdbc() {
    mkdir -p "$drivers/jdbc"
    jar=$drivers/jdbc/postgresql-$jdbc.jar
    if [ ! -e "$jar" ]; then
        say 'getting the JDBC driver from Maven Central'
        curl --fail --silent --show-error --location --max-time 120 --output "$jar.part" \
            "https://repo1.maven.org/maven2/org/postgresql/postgresql/$jdbc/postgresql-$jdbc.jar" || return 1
        echo "$jdbc_sha256  $jar.part" | sha256sum --check --quiet || return 1
        mv "$jar.part" "$jar" || return 1
        # The program below is run with one jar, whatever its version is.
        ln -sf "postgresql-$jdbc.jar" "$drivers/jdbc/driver.jar" || return 1
    fi
    made jdbc "$source"/jdbc/*.java && return 0
    javac -cp "$jar" -d "$drivers/jdbc/classes" "$source"/jdbc/*.java && echo "$stamp" >"$drivers/jdbc.stamp"
}

all=yes
: >"$log"
[ $# -gt 0 ] || set -- python node jdbc
for kind; do
    case $kind in
        python | node | jdbc) ;;
        *) say "there is no $kind: python, node, jdbc"; exit 2 ;;
    esac
    if ! "$kind" >>"$log" 2>>"$log"; then
        all=no
        say "$kind can't be had; the end of $log says:"
        tail -n 5 "$log" >&2
    fi
done
[ "$all" = yes ]
