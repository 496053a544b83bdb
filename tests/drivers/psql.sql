-- What people type into psql, and what scripts of it do. Run by psql.sh.
DROP SCHEMA IF EXISTS d_psql CASCADE;
CREATE SCHEMA d_psql;
SET search_path = d_psql;
CREATE TABLE city (id serial PRIMARY KEY, name text NOT NULL UNIQUE, people int CHECK (people > 0), founded date);
COMMENT ON TABLE city IS 'places';
CREATE INDEX city_by_people ON city (people) WHERE people > 10;
CREATE VIEW large AS SELECT * FROM city WHERE people > 50;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
\copy city (name, people) FROM STDIN
Aachen	10
Łódź	60
tab\tand\\	70
\.
\copy city (name, people) FROM PROGRAM 'printf "from a program,5\n"' WITH (FORMAT csv)
\copy city (name, people) FROM STDIN
broken	not a number
\.
\copy (SELECT name, people FROM city ORDER BY id) TO STDOUT WITH (FORMAT csv, HEADER)
COPY city TO STDOUT (FORMAT binary) \g /dev/null
SELECT * FROM large ORDER BY id;
SELECT name, twice(people) AS doubled, founded FROM city \gdesc
SELECT count(*) AS cities, sum(people) AS people FROM city \gset has_
\echo :has_cities :has_people
SELECT format('SELECT %L, twice(%s)', name, people) FROM city WHERE id < 3 ORDER BY id \gexec
SELECT id % 2 AS odd, name, people FROM city ORDER BY id \crosstabview
SELECT * FROM city WHERE id = 1 \gx
SELECT :'has_cities' AS quoted, :"undefined" AS nothing;
SELECT 1; SELECT 2 \; SELECT 3 \; SELECT 1 / 0 \; SELECT 4;
\errverbose
SELECT nothing FROM city;
INSERT INTO city (name, people) VALUES ('Aachen', 1);
INSERT INTO city (name, people) VALUES ('nobody', 0) RETURNING id;
BEGIN;
INSERT INTO city (name, people) VALUES ('left', 1) RETURNING id;
SAVEPOINT here;
SELECT 1 / 0;
ROLLBACK TO here;
COMMIT;
\set ON_ERROR_ROLLBACK on
BEGIN;
SELECT 1 / 0;
SELECT 'goes on';
COMMIT;
\set ON_ERROR_ROLLBACK off
\set AUTOCOMMIT off
UPDATE city SET people = people + 1 WHERE id = 1;
ROLLBACK;
\set AUTOCOMMIT on
\set FETCH_COUNT 7
SELECT n, repeat('x', n) FROM generate_series(1, 30) n;
SELECT 10 / (5 - n) FROM generate_series(1, 30) n;
\unset FETCH_COUNT
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, name FROM city ORDER BY id;
FETCH 2 FROM c;
MOVE LAST FROM c;
FETCH BACKWARD 1 FROM c;
COMMIT;
PREPARE by_id (int) AS SELECT name FROM city WHERE id = $1;
EXECUTE by_id(2);
DEALLOCATE by_id;
LISTEN here;
NOTIFY here, 'to myself';
DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'mind' USING HINT = 'a hint'; END $$;
\d city
\d+ large
\dt d_psql.*
\df d_psql.*
\di d_psql.*
\sf twice
\encoding LATIN1
SELECT 'ü';
\encoding UTF8
\if :{?has_cities}
SELECT 'there';
\else
SELECT 'not there';
\endif
SET statement_timeout = '50ms';
SELECT pg_sleep(30);
RESET statement_timeout;
CREATE TEMP TABLE passing AS SELECT generate_series(1, 3) AS n;
TABLE passing;
EXPLAIN (COSTS OFF) SELECT * FROM city WHERE id = 1;
VACUUM (ANALYZE) city;
\c
SELECT count(*) FROM passing;
