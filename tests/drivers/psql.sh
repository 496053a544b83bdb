#!/bin/sh
# psql at its own kind of work: a script with everything that psql does by itself, and the ways to run one. Where
# the server is, libpq's variables say.
set -u

section() { printf -- '--- %s\n' "$*"; }

# Processes have numbers of their own.
run() {
    psql -X "$@" 2>&1 | sed -E 's/with PID [0-9]+/with PID …/'
}

section 'a script'
run -f psql.sql
section 'aligned, quiet, as HTML, and errors in full'
run -q -H -P footer=off -v VERBOSITY=verbose -v SHOW_CONTEXT=always -c 'TABLE d_psql.large' -c 'SELECT 1 / 0'
section 'all or nothing'
run --single-transaction -c "UPDATE d_psql.city SET people = 99 WHERE id = 2" -c 'SELECT 1 / 0' -c 'SELECT 2'
run -At -c 'SELECT people FROM d_psql.city WHERE id = 2'
run --single-transaction -f - <<'SQL'
UPDATE d_psql.city SET people = 98 WHERE id = 2;
INSERT INTO d_psql.city (name, people) VALUES ('in one', 7);
SQL
section 'an end at the first error'
psql -X -v ON_ERROR_STOP=1 -f - >/dev/null 2>&1 <<'SQL'
UPDATE d_psql.city SET people = 97 WHERE id = 2;
SELECT nothing;
UPDATE d_psql.city SET people = 96 WHERE id = 2;
SQL
echo "exit $?"
section 'several statements in one query'
run -c "INSERT INTO d_psql.city (name, people) VALUES ('undone', 1); SELECT 1 / 0"
run -At -c 'SELECT name, people FROM d_psql.city ORDER BY id'
section 'parameters'
if psql --version | grep -qE ' 1[0-5]\.'; then
    :
else
    run -f - <<'SQL'
SELECT $1::int + 1 AS sum, $2 AS text \bind 41 'a parameter' \g
INSERT INTO d_psql.city (name, people) VALUES ($1, $2) RETURNING id \bind bound 3 \g
SQL
fi
section 'who is not let in'
run -d nowhere -c 'SELECT 1' | sed 's/.*FATAL/FATAL/'
section 'done'
