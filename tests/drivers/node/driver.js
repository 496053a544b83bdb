// node-postgres at its own kind of work: text and parameters, named statements, cursors, COPY streams,
// notifications, a pool, errors, a cancel. Where the server is, libpq's variables say.
'use strict'

const { once } = require('node:events')
const { Readable } = require('node:stream')
const { pipeline } = require('node:stream/promises')
const pg = require('pg')
const Cursor = require('pg-cursor')
const copy = require('pg-copy-streams')

const say = (...words) => console.log(words.map((w) => (typeof w === 'string' ? w : JSON.stringify(w))).join(' '))
const section = (name) => say(`--- ${name}`)
const SEARCH = { options: '-c search_path=d_node,public -c timezone=UTC' }

async function attempt(asked) {
  try {
    const done = await asked
    for (const { command, rowCount, rows } of [done].flat()) say(command, rowCount, rows)
  } catch (error) {
    say('error', error.code ?? error.name, error.message)
  }
}

async function values(client) {
  section('values as text, and as parameters')
  await client.query(`DROP SCHEMA IF EXISTS d_node CASCADE; CREATE SCHEMA d_node;
    CREATE TABLE item (id serial PRIMARY KEY, name text UNIQUE, price numeric, tags text[], data jsonb,
                       made timestamptz, raw bytea, big bigint, CHECK (price >= 0))`)
  const insert = `INSERT INTO item (name, price, tags, data, made, raw, big) VALUES ($1, $2, $3, $4, $5, $6, $7)
                  RETURNING *`
  const made = new Date(Date.UTC(2024, 1, 29, 1, 2, 3, 4))
  await attempt(client.query(insert, ["ä'\\", '12.50', ['a', null, '"'], { a: [1, null] }, made, Buffer.from([0, 1, 255]),
    '9223372036854775807']))
  await attempt(client.query(insert, ['empty', null, [], null, null, Buffer.alloc(0), null]))
  await attempt(client.query(insert, ['empty', 1, [], null, null, null, null]))
  await attempt(client.query({ text: 'SELECT id, name FROM item ORDER BY id', rowMode: 'array' }))
  await attempt(client.query('SELECT $1::int AS n', ['no number']))
  await attempt(client.query('SELECT $1', []))
  await attempt(client.query('SELECT 1 AS one; SELECT 2 AS two; UPDATE item SET price = 1 WHERE id = 1'))
  await attempt(client.query('SELECT 1; SELECT 1 / 0; SELECT 3'))
  await attempt(client.query(''))
  await attempt(client.query({ text: 'SELECT $1::int4 AS n, $2::bytea AS b', values: [7, Buffer.from('x')], binary: true }))
}

async function named(client) {
  section('named statements')
  for (const id of [1, 2, 3]) {
    await attempt(client.query({ name: 'by-id', text: 'SELECT name FROM item WHERE id = $1', values: [id] }))
  }
  await attempt(client.query({ name: 'by-id', text: 'SELECT 1', values: [] }))
  await attempt(client.query({ name: 'wrong', text: 'SELECT nothing FROM item' }))
  await attempt(client.query({ name: 'wrong', text: 'SELECT nothing FROM item' }))
  await client.query('ALTER TABLE item ADD COLUMN more int DEFAULT 1')
  await attempt(client.query({ name: 'all', text: 'SELECT * FROM item WHERE id = $1', values: [2] }))
  await client.query('ALTER TABLE item DROP COLUMN more')
  await attempt(client.query({ name: 'all', text: 'SELECT * FROM item WHERE id = $1', values: [2] }))
  await client.query('DEALLOCATE ALL')
  await attempt(client.query({ name: 'all', text: 'SELECT * FROM item WHERE id = $1', values: [2] }))
}

async function queued(client) {
  section('queries that wait for each other')
  const asked = []
  for (let n = 0; n < 50; n++) asked.push(client.query('INSERT INTO item (name) VALUES ($1) RETURNING id', [`q${n}`]))
  asked.push(client.query('SELECT count(*)::int AS n, max(id) AS last FROM item'))
  for (const one of asked.slice(-2)) await attempt(one)
  await Promise.all(asked)
}

async function cursors(client) {
  section('cursors, one of them closed early')
  const cursor = client.query(new Cursor('SELECT id FROM item WHERE id > $1 ORDER BY id', [2]))
  for (;;) {
    const rows = await cursor.read(20)
    say(rows.length, rows[0] ?? 'no more')
    if (rows.length === 0) break
  }
  const early = client.query(new Cursor('SELECT generate_series(1, 1000) AS n'))
  say(await early.read(2))
  await early.close()
  const wrong = client.query(new Cursor('SELECT 1 / (n - 3) AS x FROM generate_series(1, 5) n'))
  try {
    for (;;) say(await wrong.read(1))
  } catch (error) {
    say('error', error.code, error.message)
  }
  await attempt(client.query('SELECT 1 AS after'))
}

async function copies(client) {
  section('COPY in and out')
  const lines = Array.from({ length: 400 }, (_, n) => `c${n}\t${n}\n`)
  const into = client.query(copy.from('COPY item (name, price) FROM STDIN'))
  await pipeline(Readable.from(lines), into)
  say('rows', into.rowCount)
  const out = client.query(copy.to("COPY (SELECT id, name FROM item WHERE name ~ '^c' ORDER BY id) TO STDOUT (FORMAT csv)"))
  let text = ''
  for await (const chunk of out) text += chunk
  say(text.length, text.slice(0, 30), out.rowCount)
  for (const broken of ['bad\tno number\n', 'c1\t1\n']) {
    try {
      await pipeline(Readable.from([broken]), client.query(copy.from('COPY item (name, price) FROM STDIN')))
    } catch (error) {
      say('error', error.code, error.message)
    }
  }
  await attempt(client.query('SELECT count(*)::int AS n FROM item'))
}

async function transactions(client) {
  section('transactions and savepoints')
  for (const statement of ['BEGIN', 'UPDATE item SET price = 5 WHERE id = 1', 'SAVEPOINT s',
    'UPDATE item SET price = -1 WHERE id = 1', 'SELECT 1', 'ROLLBACK TO s', 'SELECT price FROM item WHERE id = 1',
    'COMMIT', 'BEGIN', 'DELETE FROM item', 'SELECT nothing', 'COMMIT', 'SELECT count(*)::int AS n FROM item']) {
    await attempt(client.query(statement))
  }
}

async function notifications(client) {
  section('notices and notifications to oneself')
  client.on('notice', (note) => say('notice', note.severity, note.message))
  client.on('notification', ({ channel, payload }) => say('notified', channel, payload))
  await client.query('LISTEN here')
  await client.query("NOTIFY here, 'hello'")
  await client.query('SELECT pg_notify($1, $2)', ['here', 'ä'])
  await client.query('UNLISTEN here')
  await client.query("DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'mind'; END $$")
}

async function cancels(client) {
  section('a cancel, and a timeout')
  // The first row comes when the second one has filled the server's buffer; then it sleeps.
  const slow = new pg.Query(
    "SELECT repeat('x', 100000) AS x FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(30)::text")
  client.query(slow)
  const failed = once(slow, 'end').catch((error) => say('error', error.code, error.message))
  await once(slow, 'row')
  const other = new pg.Client()
  other.cancel(client, slow)
  // The server signals twice before it closes that connection; the second time could meet the next statement.
  await Promise.all([failed, once(other.connection.stream, 'close')])
  await client.query("SET statement_timeout = '50ms'")
  await attempt(client.query('SELECT pg_sleep(30)'))
  await client.query('RESET statement_timeout')
}

async function pools() {
  section('a pool')
  const pool = new pg.Pool({ ...SEARCH, max: 1 })
  for (let n = 0; n < 3; n++) await attempt(pool.query('UPDATE item SET price = $1 WHERE id = 2 RETURNING price', [n]))
  await pool.end()
}

async function main() {
  const client = new pg.Client(SEARCH)
  await client.connect()
  for (const part of [values, named, queued, cursors, copies, transactions, notifications, cancels]) await part(client)
  await client.end()
  await pools()
  section('a database that is not there')
  await attempt(new pg.Client({ database: 'nowhere' }).connect())
  section('done')
}

main()
