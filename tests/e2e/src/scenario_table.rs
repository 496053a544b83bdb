//! The table of whole connections that are held direct and through the mirror. What becomes of them is said nowhere: the
//! server says it.

use crate::{
    scenario::{
        End::{HalfClose, Server, Terminate},
        SSL_REQUEST, Scenario, V3_0, V3_2, WHO, asked, packet, session, with,
    },
    wire::{execute, message, query, sync},
};

fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    message(b'B', format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes())
}

fn fetch(portal: &str, rows: u8) -> Vec<u8> {
    message(b'E', &[portal.as_bytes(), &[0, 0, 0, 0, rows]].concat())
}

fn describe(what: &str) -> Vec<u8> {
    message(b'D', format!("{what}\0").as_bytes())
}

fn close(what: &str) -> Vec<u8> {
    message(b'C', format!("{what}\0").as_bytes())
}

/// Calls `int4pl(20, 22)` by its number.
fn function_call() -> Vec<u8> {
    let mut body = 177_u32.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 2]);
    for argument in [20_u32, 22] {
        body.extend([0, 0, 0, 4]);
        body.extend(argument.to_be_bytes());
    }
    body.extend([0, 1]);
    message(b'F', &body)
}

/// A startup packet of this length.
fn long(bytes: usize) -> Vec<u8> {
    let name = "x".repeat(bytes - with(&[("application_name", "")]).len());
    packet(V3_0, &[&WHO[..], &[("application_name", &name)]].concat())
}

/// First packets, and what is wrong with them.
pub fn startups() -> Vec<Scenario> {
    let alone = |name, bytes: Vec<u8>, end| Scenario { name, sent: vec![(0, bytes)], end };
    vec![
        asked("SSLRequest, then plain text", SSL_REQUEST),
        alone("protocol 3.2 is negotiated", packet(V3_2, &WHO), Terminate),
        alone("an unknown protocol option", packet(V3_0, &[&WHO[..], &[("_pq_.x", "1")]].concat()), Terminate),
        alone("protocol 2", packet(2 << 16, &[]), Server),
        alone("protocol 4", packet(4 << 16, &WHO), Server),
        alone("an unknown database", packet(V3_0, &[WHO[0], ("database", "nowhere")]), Server),
        alone("an unknown user", packet(V3_0, &[("user", "nobody"), WHO[1]]), Server),
        alone("no user", packet(V3_0, &[WHO[1]]), Server),
        alone("options", [with(&[("options", "-c work_mem=7MB")]), query("SHOW work_mem")].concat(), Terminate),
        alone("options that are none", with(&[("options", "-c no.such=1 --nor_this=2")]), Server),
        alone(
            "a setting",
            [with(&[("application_name", "ä'\"x")]), query("SHOW application_name")].concat(),
            Terminate,
        ),
        alone("an encoding", [with(&[("client_encoding", "LATIN1")]), query("SELECT 'ä'")].concat(), Terminate),
        alone("a bad setting", with(&[("datestyle", "none such")]), Server),
        alone(
            "a hello of TLS that nobody asked for",
            [b"\x16\x03\x01\x02\0\x01\0".to_vec(), vec![7; 500]].concat(),
            Server,
        ),
        alone("a request of HTTP", b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n".to_vec(), Server),
        alone("a startup packet of no length", vec![0; 8], Server),
        alone("a startup packet shorter than its version", vec![0, 0, 0, 7, 0, 3, 0], Server),
        // With a question, so that the arms have to let it in as well.
        alone("the longest startup packet", [long(10_004), query("SELECT 1")].concat(), Terminate),
        alone("a startup packet that is nearly as long", [long(9_990), query("SELECT 1")].concat(), Terminate),
        alone("a startup packet too long by one byte", long(10_005), Server),
        alone("a startup packet without its end", vec![0, 0, 0, 40, 0, 3, 0, 0, b'u', b's'], HalfClose),
        alone("replication", [with(&[("replication", "true")]), query("SHOW wal_level")].concat(), Terminate),
        alone("logical replication", [with(&[("replication", "database")]), query("SELECT 1")].concat(), Terminate),
    ]
}

/// The extended protocol.
pub fn extended() -> Vec<Scenario> {
    let flush = message(b'H', &[]);
    let numbers = "SELECT generate_series(1, 10)";
    vec![
        session(
            "portals with a limit of rows, two at once",
            &[
                query("BEGIN"),
                parse("s", numbers),
                bind("a", "s"),
                bind("b", "s"),
                fetch("a", 3),
                fetch("b", 4),
                fetch("a", 3),
                describe("Pa"),
                close("Pa"),
                fetch("b", 0),
                sync(),
                query("COMMIT"),
            ],
            Terminate,
        ),
        session(
            "a limited portal without a transaction ends at Sync",
            &[parse("", numbers), bind("", ""), fetch("", 3), sync(), fetch("", 3), sync()],
            Terminate,
        ),
        session(
            "named statements: described, used twice, closed, used again",
            &[
                parse("s", "SELECT $1::int + 1"),
                describe("Ss"),
                sync(),
                parse("s", "SELECT 2"),
                sync(),
                close("Ss"),
                describe("Ss"),
                sync(),
            ],
            Terminate,
        ),
        session(
            "Flush, and an error up to Sync",
            &[
                execute("SELECT 1", &[]),
                flush.clone(),
                execute("SELECT 1/0", &[]),
                flush,
                execute("SELECT 2", &[]),
                sync(),
                execute("SELECT 3", &[]),
                sync(),
            ],
            Terminate,
        ),
        session("thousands of Syncs", &[sync().repeat(3000)], Terminate),
        session("a Bind that can't be read", &[parse("", "SELECT 1"), message(b'B', b"\0"), sync()], Terminate),
        session("a function is called by its number", &[function_call(), query("SELECT 1")], Terminate),
        session("a function is called that is none", &[message(b'F', &[0; 10]), query("SELECT 1")], Terminate),
    ]
}

/// Simple queries, and clients that stop in the middle.
pub fn simple() -> Vec<Scenario> {
    let notice = "DO $$ BEGIN RAISE NOTICE 'look: %', 1; END $$";
    vec![
        session("nothing asked", &[query(""), query(";;"), query("-- nothing")], Terminate),
        session(
            "several statements, one fails",
            &[query("SELECT 1; SELECT 1/0; SELECT 2"), query("TABLE x")],
            Terminate,
        ),
        session(
            "a transaction that failed",
            &[query("BEGIN"), query("nonsense"), query("SELECT 1"), query("COMMIT")],
            Terminate,
        ),
        session("a transaction that is left open", &[query("BEGIN; CREATE TABLE left_open ()")], Terminate),
        session("notices", &[query(notice), query("SET client_min_messages = debug1"), query(notice)], Terminate),
        session("settings that are reported", &[query("SET datestyle = 'German'; SET TIME ZONE 'UTC'")], Terminate),
        session("its own notification", &[query("LISTEN here"), query("NOTIFY here, 'said'")], Terminate),
        session(
            "COPY out, text and binary",
            &[query("COPY (SELECT 1, 'x') TO STDOUT"), query("COPY (SELECT 1) TO STDOUT (FORMAT binary)")],
            Terminate,
        ),
        session(
            "a query in the middle of COPY",
            &[query("CREATE TEMP TABLE c (i int)"), query("COPY c FROM STDIN"), query("SELECT 1"), query("TABLE c")],
            Terminate,
        ),
        session(
            "COPY data that nobody asked for",
            &[message(b'd', b"1\n"), message(b'c', b""), query("SELECT 1")],
            Terminate,
        ),
        session("a message of no type", &[query("SELECT 1"), message(b'y', b"abc")], Server),
        session("a query without an end", &[message(b'Q', b"SELECT 1"), query("SELECT 2")], Terminate),
        session("it sends no more, and reads the answer", &[query("SELECT 1")], HalfClose),
        session(
            "it sends no more in the middle of a message",
            &[query("SELECT 1"), vec![b'Q', 0, 0, 0, 99, b'S']],
            HalfClose,
        ),
        session(
            "it goes in the middle of COPY",
            &[query("CREATE TEMP TABLE c (i int)"), query("COPY c FROM STDIN"), message(b'd', b"1\n")],
            HalfClose,
        ),
    ]
}

/// COPY with all that may become of it, and pipelines of many statements.
pub fn copies() -> Vec<Scenario> {
    let rows: Vec<String> = (0..5000).map(|i| format!("{i}\trow {i}\n")).collect();
    let data: Vec<u8> = rows.chunks(300).flat_map(|rows| message(b'd', rows.concat().as_bytes())).collect();
    let begin = [query("CREATE TEMP TABLE c (i int PRIMARY KEY, t text)"), query("COPY c FROM STDIN"), data].concat();
    let (done, count) = (message(b'c', b""), query("SELECT count(*), sum(i) FROM c"));
    let each_synced = (0..500).flat_map(|i| [execute(&format!("SELECT {i}, repeat('x', {i})"), &[]), sync()].concat());
    let refuses = "CREATE FUNCTION pg_temp.no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                   CREATE TABLE pg_temp.c (i int);
                   CREATE TRIGGER no BEFORE INSERT ON c EXECUTE FUNCTION pg_temp.no()";
    let copy = [parse("", "COPY c FROM STDIN"), bind("", ""), fetch("", 0), sync()].concat();
    let insert = |i: i32| execute("INSERT INTO c VALUES ($1, 'x')", &[i.to_string().as_bytes()]);
    vec![
        session(
            "COPY in and out again",
            &[begin.clone(), done.clone(), count.clone(), query("COPY c TO STDOUT")],
            Terminate,
        ),
        session(
            "COPY in that the client gives up",
            &[begin.clone(), message(b'f', b"changed my mind\0"), count.clone()],
            Terminate,
        ),
        session(
            "COPY in of which a row is refused",
            &[begin.clone(), message(b'd', b"1\tagain\n"), done.clone(), count.clone()],
            Terminate,
        ),
        session(
            "COPY in that a trigger refuses before its Sync is read",
            &[
                query(refuses),
                copy,
                [message(b'd', b"1\n"), done.clone(), sync()].concat(),
                count.clone(),
                count.clone(),
            ],
            Terminate,
        ),
        session("COPY in that ends in the middle of a message", &[begin, vec![b'd', 0, 0, 0, 99, b'7']], HalfClose),
        session(
            "COPY out that fails in the middle",
            &[
                query("COPY (SELECT 1 / (50000 - i) FROM generate_series(1, 60000) i) TO STDOUT"),
                query("SELECT 1"),
                parse("", "COPY (SELECT 1 / (500 - i) FROM generate_series(1, 600) i) TO STDOUT"),
                [bind("", ""), fetch("", 0), sync()].concat(),
                query("SELECT 1"),
            ],
            Terminate,
        ),
        session("five hundred statements, each with its Sync", &[each_synced.collect()], Terminate),
        session(
            "a pipeline, an error in it, and one more",
            &[
                query("CREATE TEMP TABLE c (i int PRIMARY KEY, t text)"),
                (0..200).flat_map(insert).collect(),
                sync(),
                [insert(201), insert(1), insert(202), sync()].concat(),
                count,
            ],
            Terminate,
        ),
    ]
}
