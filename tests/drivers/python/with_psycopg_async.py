"""psycopg 3 as asyncio has it: pipelines, COPY both ways, named cursors, notifications of another connection,
tasks that are cancelled. Where the server is, libpq's variables say."""

import asyncio

import psycopg
from psycopg.rows import dict_row

from transcript import done, failed, say, section

SCHEMA = """
DROP SCHEMA IF EXISTS d_psycopg_async CASCADE;
CREATE SCHEMA d_psycopg_async;
CREATE TABLE d_psycopg_async.item (id int PRIMARY KEY, name text NOT NULL UNIQUE, amount int CHECK (amount >= 0));
"""
# The first row is there when the second one has filled the server's buffer: the statement runs then, for certain.
SLOW = "SELECT repeat('x', 100000) FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(30)::text"


async def connect(**more):
    connection = await psycopg.AsyncConnection.connect(options="-c search_path=d_psycopg_async", **more)
    connection.add_notice_handler(lambda note: say("notice", note.severity, note.message_primary))
    return connection


async def attempt(connection, statement, parameters=None, **more):
    """A statement that may fail, by itself."""
    try:
        async with connection.transaction():
            cursor = await connection.execute(statement, parameters, **more)
            say(cursor.statusmessage, await cursor.fetchall() if cursor.description else "")
    except psycopg.Error as error:
        failed(error)


async def values(connection):
    section("values, prepared after a threshold")
    connection.prepare_threshold = 2
    for number in range(5):
        await attempt(connection, "INSERT INTO item VALUES (%s, %s, %s)", (number, f"ä{number}", number * 10))
        await attempt(connection, "SELECT * FROM item WHERE id = %s", (number,), binary=number % 2 == 1)
    await attempt(connection, "INSERT INTO item VALUES (9, 'ä1', 1)")
    await attempt(connection, "UPDATE item SET amount = -1 WHERE id = 1")
    await attempt(connection, "DO $$ BEGIN RAISE NOTICE 'look'; END $$")


async def pipelines(connection):
    section("a pipeline, and executemany in it")
    async with connection.transaction(), connection.pipeline(), connection.cursor() as cursor:
        first = await connection.execute("SELECT sum(amount) FROM item")
        await cursor.executemany("INSERT INTO item VALUES (%s, %s, %s)", [(n, f"many{n}", n) for n in range(100, 150)])
        last = await connection.execute("SELECT sum(amount) FROM item")
        say(await first.fetchone(), await last.fetchone())


async def cursors(connection):
    section("a named cursor")
    async with connection.transaction(), connection.cursor("over_items", row_factory=dict_row) as cursor:
        cursor.itersize = 20
        await cursor.execute("SELECT id, amount FROM item ORDER BY id")
        say(await cursor.fetchmany(3))
        say(sum([row["amount"] async for row in cursor]))


async def copies(connection):
    section("COPY in and out")
    async with connection.transaction(), connection.cursor() as cursor:
        async with cursor.copy("COPY item FROM STDIN") as copy:
            for number in range(1000, 1400):
                await copy.write_row((number, f"copied{number}", number))
        say("rows", cursor.rowcount)
        async with cursor.copy("COPY (SELECT * FROM item ORDER BY id DESC LIMIT 4) TO STDOUT (FORMAT csv)") as copy:
            say([bytes(block) async for block in copy])
    try:
        async with connection.transaction(), connection.cursor() as cursor:
            async with cursor.copy("COPY item FROM STDIN") as copy:
                await copy.write("2000\tgiven up\t1\n")
                raise RuntimeError("the client gives up")
    except RuntimeError as error:
        say("given up:", error)
    await attempt(connection, "SELECT count(*) FROM item")


async def notifications(connection):
    section("notifications of another connection, while this one waits for them")
    await connection.set_autocommit(True)
    await connection.execute("LISTEN here")
    async with await connect(autocommit=True) as other:
        for news in ("first", "second ä"):
            await other.execute("SELECT pg_notify('here', %s)", (news,))
            async for note in connection.notifies(timeout=30, stop_after=1):
                say("notified", note.channel, note.payload)
    await connection.execute("UNLISTEN *")
    await connection.set_autocommit(False)


async def cancels(connection):
    section("a cancel, and a timeout of the server's")
    try:
        async with connection.transaction(), connection.cursor() as cursor:
            first = True
            async for (row,) in cursor.stream(SLOW):
                say(len(row))
                if first:
                    await connection.cancel_safe(timeout=30)
                first = False
    except psycopg.Error as error:
        failed(error)
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = '50ms'")
        await attempt(connection, "SELECT pg_sleep(30)")
    await attempt(connection, "UPDATE item SET amount = amount + 1 WHERE id < 3")
    await attempt(connection, "SELECT 'awake'")


async def main():
    async with await connect() as connection:
        async with connection.transaction():
            await connection.execute(SCHEMA)
        for part in (values, pipelines, cursors, copies, notifications, cancels):
            await part(connection)
    section("a database that is not there")
    try:
        await connect(dbname="nowhere")
    except psycopg.OperationalError as error:
        say(str(error).split("FATAL:")[-1].strip())
    done()


asyncio.run(main())
