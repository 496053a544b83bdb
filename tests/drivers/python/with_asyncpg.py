"""asyncpg at its own kind of work: everything prepared and in binary, a cache of statements, cursors, executemany,
COPY of records, types that it asks the catalogue for, a pool, notifications, cancels. Where the server is,
libpq's variables say."""

import asyncio
import datetime
import decimal
import uuid

import asyncpg

from transcript import done, failed, say, section

SCHEMA = """
DROP SCHEMA IF EXISTS d_asyncpg CASCADE;
CREATE SCHEMA d_asyncpg;
SET search_path = d_asyncpg, public;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TYPE place AS (x int, y float8, label text);
CREATE TABLE thing (
    id serial PRIMARY KEY, name text UNIQUE, price numeric, moods mood[], at place, spans int4range,
    made timestamptz, took interval, token uuid, data jsonb, raw bytea, address inet
);
CREATE TABLE counted (n int PRIMARY KEY, t text);
"""

SETTINGS = {"search_path": "d_asyncpg, public", "timezone": "UTC"}


async def attempt(statement):
    """What may fail."""
    try:
        say(await statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, TypeError) as error:
        failed(error)


async def values(connection):
    section("values of many types, described by the catalogue")
    insert = """INSERT INTO thing (name, price, moods, at, spans, made, took, token, data, raw, address)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING *"""
    moment = datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.timezone.utc)
    row = ["ä'\\", decimal.Decimal("1.50"), ["sad", "happy"], (1, 2.5, "here"), asyncpg.Range(1, 5), moment,
           datetime.timedelta(days=3, seconds=1), uuid.UUID(int=1), '{"a": [1, null]}', bytes(range(256)), "10.0.0.1"]
    say(await connection.fetch(insert, *row))
    say(await connection.fetch(insert, *["empty"] + [None] * 10))
    await attempt(connection.fetch(insert, *row))
    await attempt(connection.fetch("SELECT $1::int", "no number"))
    await attempt(connection.fetch("SELECT $1::place, $2::mood[], $3::int[]", (1, None, None), [], [[1, 2], [3, 4]]))
    await attempt(connection.fetchval("SELECT count(*) FROM thing WHERE moods @> $1", ["happy"]))
    await attempt(connection.execute("SELECT 1; SELECT 2; UPDATE thing SET price = 3"))
    await attempt(connection.fetch("SELECT 1; SELECT 2"))


async def statements(connection):
    section("statements that are kept, explained, and closed")
    statement = await connection.prepare("SELECT n, t FROM counted WHERE n > $1 ORDER BY n")
    say([a.name for a in statement.get_attributes()], [p.name for p in statement.get_parameters()])
    await connection.executemany("INSERT INTO counted VALUES ($1, $2)", [(n, f"t{n}") for n in range(300)])
    await attempt(connection.executemany("INSERT INTO counted VALUES ($1, $2)", [(300, "a"), (5, "twice")]))
    say(len(await statement.fetch(10)), await statement.fetchval(290), await statement.fetchrow(1000))
    say(await connection.fetchmany("SELECT n FROM counted WHERE t = $1", [("t1",), ("t2",)]))
    for _ in range(3):
        say(await connection.fetchval("SELECT t FROM counted WHERE n = $1", 7))
    for number in range(5):
        # More than the cache holds: the oldest are closed.
        say(await connection.fetchval(f"SELECT {number} + $1::int", 1))
    await attempt(connection.prepare("SELECT nothing FROM nowhere"))


async def outlived():
    section("a statement that is outlived by what it reads, and a codec of one's own")
    # Where several statements are closed at once, their order is the one of a Python set, by address: on a
    # connection of its own there is but one.
    connection = await asyncpg.connect(server_settings=SETTINGS)
    await attempt(connection.fetch("SELECT * FROM counted WHERE n = $1", 1))
    for change in ("ALTER TABLE counted ADD COLUMN more int DEFAULT 1", "ALTER TABLE counted DROP COLUMN more"):
        await connection.execute(change)
        await attempt(connection.fetch("SELECT * FROM counted WHERE n = $1", 1))
        await attempt(connection.fetch("SELECT * FROM counted WHERE n = $1", 1))
    await connection.set_type_codec("jsonb", encoder=str, decoder=len, schema="pg_catalog")
    await attempt(connection.fetchval("SELECT data FROM thing WHERE id = 1"))
    await connection.close()


async def cursors(connection):
    section("cursors")
    async with connection.transaction():
        numbers = [row["n"] async for row in connection.cursor("SELECT n FROM counted ORDER BY n", prefetch=70)]
        say(len(numbers), sum(numbers))
        cursor = await connection.cursor("SELECT n FROM counted WHERE n > $1 ORDER BY n", 100)
        say(await cursor.fetch(3), await cursor.fetchrow(), await cursor.forward(50), await cursor.fetchrow())
    await attempt(take(connection.cursor("SELECT 1")))


async def take(cursor):
    return await cursor


async def copies(connection):
    section("COPY of records, tables and queries")
    records = [(n, None if n % 7 == 0 else f"c{n}") for n in range(1000, 1400)]
    say(await connection.copy_records_to_table("counted", records=records, columns=["n", "t"]))
    await attempt(connection.copy_records_to_table("counted", records=[(1, "twice")]))
    await attempt(connection.copy_records_to_table("counted", records=[("no number", "x")]))
    chunks = []

    async def sink(data):
        chunks.append(data)

    say(await connection.copy_from_query("SELECT * FROM counted WHERE n < $1 ORDER BY n", 4, output=sink))
    say(await connection.copy_from_table("counted", output=sink, format="csv", header=True))
    joined = b"".join(chunks)
    say(len(joined), joined[:60])

    async def source():
        yield b"2000,csv\n"
        yield b"2001,"
        yield b"\n"

    say(await connection.copy_to_table("counted", source=source(), format="csv"))
    say(await connection.fetchval("SELECT count(*) FROM counted"))


async def transactions(connection):
    section("transactions within transactions")
    async with connection.transaction(isolation="serializable"):
        await connection.execute("DELETE FROM counted WHERE n >= 2000")
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO counted VALUES (1, 'twice')")
        except asyncpg.UniqueViolationError as error:
            failed(error)
        say(await connection.fetchval("SELECT count(*) FROM counted"))
    transaction = connection.transaction(readonly=True, isolation="repeatable_read")
    await transaction.start()
    await attempt(connection.execute("DELETE FROM counted"))
    await attempt(connection.fetch("SELECT 'in a transaction that failed'"))
    await transaction.rollback()
    say(await connection.fetchval("SELECT count(*) FROM counted"))


async def notifications(connection):
    section("notices and notifications to oneself")
    heard = asyncio.Queue()
    # Its second argument is the server's process.
    hear = lambda _connection, _pid, channel, payload: heard.put_nowait((channel, payload))
    connection.add_log_listener(lambda _, note: say("notice", note.severity, note.message))
    await connection.add_listener("there", hear)
    await connection.execute("NOTIFY there, 'hello'")
    await connection.execute("SELECT pg_notify('there', $1)", "a parameter")
    say(await asyncio.wait_for(heard.get(), 30), await asyncio.wait_for(heard.get(), 30))
    await connection.remove_listener("there", hear)
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'mind'; END $$")


async def cancels(connection):
    section("a cancel while rows come, and a statement's timeout")
    first = asyncio.Event()

    async def sink(data):
        if data and not first.is_set():
            first.set()

    # The first row comes when the second one has filled the server's buffer; then it sleeps.
    slow = "SELECT repeat('x', 100000) FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(30)::text"
    task = asyncio.create_task(connection.copy_from_query(slow, output=sink))
    await asyncio.wait_for(first.wait(), 30)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("cancelled")
    say(await connection.fetchval("SELECT 'awake'"))
    await connection.execute("SET statement_timeout = '50ms'")
    await attempt(connection.execute("SELECT pg_sleep(30)"))
    await connection.execute("RESET statement_timeout")


async def pools():
    section("a pool that cleans what it hands out again")
    async with asyncpg.create_pool(min_size=1, max_size=1, server_settings=SETTINGS) as pool:
        async with pool.acquire() as connection:
            await connection.execute("SET work_mem = '7MB'")
            await connection.execute("CREATE TEMP TABLE passing AS SELECT 1 AS one")
            say(await connection.fetchval("SHOW work_mem"), await connection.fetchval("SELECT one FROM passing"))
        say(await pool.fetchval("SELECT current_setting('work_mem')"))
        say(await pool.execute("INSERT INTO counted VALUES (-1, 'pool')"))


async def main():
    connection = await asyncpg.connect(server_settings=SETTINGS, statement_cache_size=10)
    await connection.execute(SCHEMA)
    for part in (values, statements, cursors, copies, transactions, notifications, cancels):
        await part(connection)
    await connection.close()
    await outlived()
    await pools()
    section("a database that is not there")
    await attempt(asyncpg.connect(database="nowhere"))
    done()


asyncio.run(main())
