//! Scripted conversations and what the tracker makes of them.

use super::*;
use crate::wire::encode;

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(payload.len() + 4).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}
use Side::{Client, Server};

#[test]
fn of_what_there_is_no_room_for_nothing_is_handed_out() {
    let login = [message(b'R', &[0, 0, 0, 0]), ready(b'I')].concat();
    for (client, room_bytes, lacks) in [
        (message(b'Q', &[b'x'; 95]), 100, false),
        (message(b'Q', &[b'x'; 96]), 100, true),
        (message(b'Q', &[b'x'; 200]), 0, false),
        ([message(b'Q', b"COPY"), message(b'd', &[b'x'; 60]), message(b'd', &[b'x'; 60])].concat(), 100, true),
    ] {
        let is_copy = client.starts_with(&message(b'Q', b"COPY"));
        let mut tracker = Tracker::new(SessionId(1), Keep::Requests).with_room(room_bytes);
        tracker.server(&login, 0, &mut Vec::new()).unwrap();
        let mut steps = Vec::new();
        tracker.client(&client, 1, &mut steps).unwrap();
        assert_eq!(tracker.keeps_nothing(), lacks, "{} bytes of {room_bytes}", client.len());
        assert_eq!(steps.is_empty(), lacks && !is_copy, "a COPY is handed out before its data");
        assert_eq!(tracker.in_flight(), 1, "and followed all the same");
    }
}

fn describe(script: &[(Side, Vec<u8>)], chunk_bytes: usize) -> Vec<String> {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    let mut now = 0;
    let login = [message(b'R', &[0, 0, 0, 0]), message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]), ready(b'I')].concat();
    tracker.server(&login, 0, &mut steps).unwrap();
    assert_eq!(tracker.backend_pid, 9);
    for (side, bytes) in script {
        now += 10;
        for chunk in bytes.chunks(chunk_bytes) {
            match side {
                Client => tracker.client(chunk, now, &mut steps).unwrap(),
                Server => tracker.server(chunk, now, &mut steps).unwrap(),
            }
        }
    }
    assert!(tracker.is_idle());
    steps
        .iter()
        .map(|step| match step {
            Step::LoggedIn => "logged in".to_owned(),
            Step::Terminated => "terminated".to_owned(),
            Step::Begun(e) => format!("begun {} at {} with {} bytes", e.sequence, e.begun_ns, e.request.len()),
            Step::Ended(e) => {
                let o = e.outcome.get().unwrap();
                let statements: Vec<_> = o
                    .statements
                    .iter()
                    .map(|s| match s.error {
                        Some(code) => String::from_utf8_lossy(&code).into_owned(),
                        None => format!("{}/{}", s.rows, s.tag_rows.map_or("-".into(), |r| r.to_string())),
                    })
                    .collect();
                format!(
                    "ended {} served {}..{} [{}] {:?}->{:?} copy {}",
                    e.sequence,
                    o.served_from_ns,
                    o.ended_ns,
                    statements.join(" "),
                    o.before,
                    o.after,
                    o.copy_in.len()
                )
            }
        })
        .collect()
}

fn check(script: &[(Side, Vec<u8>)], expected: &[&str]) {
    for chunk_bytes in [usize::MAX, 1, 3, 7] {
        let steps = describe(script, chunk_bytes);
        assert_eq!(steps[0], "logged in");
        assert_eq!(steps[1..], *expected, "chunks of {chunk_bytes}");
    }
}

#[test]
fn a_simple_query_is_one_exchange_with_a_statement_for_each_tag() {
    check(
        &[
            (Client, message(b'Q', b"begin; select 1\0")),
            (
                Server,
                [message(b'C', b"BEGIN\0"), message(b'D', b"x"), message(b'C', b"SELECT 1\0"), ready(b'T')].concat(),
            ),
        ],
        &["begun 0 at 10 with 21 bytes", "ended 0 served 10..20 [0/- 1/1] Idle->InTransaction copy 0"],
    );
}

#[test]
fn a_pipeline_is_answered_in_order_and_served_one_after_the_other() {
    let parse = message(b'P', b"\0select 1\0\0\0");
    let sync = message(b'S', b"");
    check(
        &[
            (Client, [parse.clone(), sync.clone(), parse, sync].concat()),
            (Server, [message(b'1', b""), ready(b'I')].concat()),
            (Server, [message(b'E', b"C23505\0\0"), ready(b'I')].concat()),
        ],
        &[
            "begun 0 at 10 with 22 bytes",
            "begun 1 at 10 with 22 bytes",
            "ended 0 served 10..20 [] Idle->Idle copy 0",
            "ended 1 served 20..30 [23505] Idle->Idle copy 0",
        ],
    );
}

#[test]
fn a_suspended_portal_and_an_empty_query_are_statements_too() {
    check(
        &[
            (Client, [message(b'E', b"\0\0\0\0\x01"), message(b'S', b"")].concat()),
            (Server, [message(b'D', b"x"), message(b's', b""), message(b'I', b""), ready(b'I')].concat()),
        ],
        &["begun 0 at 10 with 15 bytes", "ended 0 served 10..20 [1/- 0/-] Idle->Idle copy 0"],
    );
}

#[test]
fn a_broken_connection_ends_what_was_under_way() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&ready(b'I'), 0, &mut steps).unwrap();
    tracker.client(&message(b'Q', b"select 1\0"), 5, &mut steps).unwrap();
    assert!(!tracker.is_idle() && tracker.in_flight() == 1);
    tracker.broken(9, &mut steps);
    let Some(Step::Ended(exchange)) = steps.last() else { panic!("{steps:?}") };
    assert!(exchange.outcome.get().unwrap().broken);
    assert_eq!(tracker.in_flight(), 0);
}

#[test]
fn passwords_are_never_captured() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.client(&message(b'p', b"secret\0"), 1, &mut steps).unwrap();
    tracker.server(&ready(b'I'), 2, &mut steps).unwrap();
    tracker.client(&message(b'Q', b"select 1\0"), 3, &mut steps).unwrap();
    let Some(Step::Begun(exchange)) = steps.last() else { panic!("{steps:?}") };
    assert!(!exchange.request.windows(6).any(|w| w == b"secret"));
}

#[test]
fn a_request_that_comes_along_with_the_password_is_an_exchange_of_the_session() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    let request = message(b'Q', b"update t set a = 1\0");
    tracker.client(&[message(b'p', b"secret\0"), request.clone()].concat(), 5, &mut steps).unwrap();
    assert!(steps.is_empty() && !tracker.is_idle());
    tracker.server(&[message(b'R', &[0; 4]), ready(b'I')].concat(), 10, &mut steps).unwrap();
    assert!(matches!(&steps[..], [Step::LoggedIn, Step::Begun(e)] if e.request == request));
    tracker.server(&[message(b'C', b"UPDATE 1\0"), ready(b'I')].concat(), 20, &mut steps).unwrap();
    let Some(Step::Ended(exchange)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(exchange.outcome.get().unwrap().statements[0].tag_rows, Some(1));
    assert!(tracker.is_idle());
}

#[test]
fn what_is_kept_is_let_go_of_when_nothing_is_kept_any_more() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&ready(b'I'), 0, &mut steps).unwrap();
    tracker.client(&message(b'Q', b"copy t from stdin\0"), 1, &mut steps).unwrap();
    tracker.server(&message(b'G', &[0, 0, 0]), 2, &mut steps).unwrap();
    tracker.client(&message(b'd', &[b'x'; 1000]), 3, &mut steps).unwrap();
    assert_eq!(tracker.kept_bytes(), 1005);
    tracker.keep_boundaries();
    tracker.client(&message(b'd', &[b'x'; 1000]), 4, &mut steps).unwrap();
    assert_eq!(tracker.kept_bytes(), 0);
    tracker.client(&message(b'c', b""), 5, &mut steps).unwrap();
    tracker.server(&[message(b'C', b"COPY 2\0"), ready(b'I')].concat(), 6, &mut steps).unwrap();
    assert!(tracker.is_idle(), "boundaries are followed as before");
}

#[test]
fn where_only_boundaries_are_followed_there_are_no_exchanges_and_the_same_boundaries() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Boundaries);
    let mut steps = Vec::new();
    tracker.server(&ready(b'I'), 0, &mut steps).unwrap();
    tracker.client(&message(b'Q', b"begin\0"), 1, &mut steps).unwrap();
    assert_eq!((tracker.in_flight(), tracker.is_idle()), (1, false));
    tracker.server(&[message(b'C', b"BEGIN\0"), ready(b'T')].concat(), 2, &mut steps).unwrap();
    assert!(tracker.is_idle() && tracker.status().in_block());
    tracker.client(&[message(b'P', b"\0select\0\0\0"), message(b'S', b"")].concat(), 3, &mut steps).unwrap();
    tracker.server(&[message(b'1', b""), message(b'D', b"\0\0"), ready(b'I')].concat(), 4, &mut steps).unwrap();
    assert!(tracker.is_idle() && !tracker.status().in_block());
    assert!(matches!(&steps[..], [Step::LoggedIn]), "{steps:?}");
}

#[test]
fn what_is_answered_after_a_flush_belongs_to_the_exchange_whose_sync_is_still_to_come() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&message(b'Z', b"I"), 1, &mut steps).unwrap();
    tracker.client(&[message(b'P', b"s\0select 1\0\0\0"), message(b'H', b"")].concat(), 2, &mut steps).unwrap();
    tracker.server(&message(b'1', b""), 3, &mut steps).unwrap();
    tracker.client(&[message(b'E', b"\0\0\0\0\0"), message(b'H', b"")].concat(), 4, &mut steps).unwrap();
    tracker.server(&message(b'C', b"SELECT 1\0"), 5, &mut steps).unwrap();
    tracker.client(&message(b'S', b""), 6, &mut steps).unwrap();
    tracker.server(&message(b'Z', b"I"), 7, &mut steps).unwrap();
    let Some(Step::Ended(exchange)) = steps.last() else { panic!("{steps:?}") };
    let outcome = exchange.outcome.get().unwrap();
    assert_eq!((outcome.parsed, outcome.statements.len(), outcome.ended_ns), (1, 1, 7));
}

#[test]
fn a_flush_behind_a_sync_leaves_the_session_at_rest() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&message(b'Z', b"I"), 1, &mut steps).unwrap();
    tracker.client(&[message(b'S', b""), message(b'H', b"")].concat(), 2, &mut steps).unwrap();
    tracker.server(&message(b'Z', b"I"), 3, &mut steps).unwrap();
    assert!(tracker.is_idle() && tracker.in_flight() == 0);
}

/// What came of the last exchange of a conversation whose connection is gone in the end.
fn broken(script: &[(Side, Vec<u8>)]) -> Vec<String> {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&ready(b'T'), 0, &mut steps).unwrap();
    for (side, bytes) in script {
        match side {
            Client => tracker.client(bytes, 1, &mut steps).unwrap(),
            Server => tracker.server(bytes, 2, &mut steps).unwrap(),
        }
    }
    steps.clear();
    tracker.broken(3, &mut steps);
    assert_eq!((tracker.in_flight(), tracker.kept_bytes()), (0, 0));
    let tell = |step: &Step| match step {
        Step::Begun(e) => format!("begun, ends with {}", char::from(e.request[e.request.len() - 5])),
        Step::Ended(e) => {
            e.outcome.get().map_or_else(String::new, |o| format!("{} done, {}", o.statements.len(), o.broken))
        }
        _ => "other".to_owned(),
    };
    steps.iter().map(tell).collect()
}

#[test]
fn a_commit_that_was_answered_after_a_flush_is_told_of_although_its_sync_never_comes() {
    let commit = [message(b'P', b"\0commit\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5]), message(b'H', b"")];
    let answer = [message(b'1', b""), message(b'2', b""), message(b'C', b"COMMIT\0")].concat();
    let asked = (Client, commit.concat());
    for goodbye in [message(b'X', b""), Vec::new()] {
        let steps = broken(&[(Client, commit.concat()), (Server, answer.clone()), (Client, goodbye)]);
        assert_eq!(steps, ["begun, ends with S", "1 done, true"]);
    }
    assert!(broken(&[asked, (Client, message(b'X', b""))]).is_empty(), "nobody knows that it did anything");
    let shut_down = (Server, message(b'E', b"SFATAL\0C57P01\0\0"));
    let steps = broken(&[(Client, commit.concat()), (Server, answer.clone()), shut_down]);
    assert_eq!(steps, ["begun, ends with S", "2 done, true"], "it had been committed before the error");
    let fatal = (Server, message(b'E', b"SFATAL\0C08P01\0\0"));
    assert!(broken(&[(Client, message(b'y', b"what is no message")), fatal]).is_empty(), "it would end an arm's too");
}

#[test]
fn what_a_server_ignores_until_a_sync_is_no_exchange_of_its_own() {
    let failing = [message(b'P', b"\0select 1/0\0\0\0"), message(b'E', &[0; 5]), message(b'H', b"")].concat();
    let told = [message(b'1', b""), message(b'E', b"C22012\0\0")].concat();
    check(
        &[
            (Client, failing),
            (Server, told),
            (Client, [message(b'Q', b"select 1\0"), message(b'S', b"")].concat()),
            (Server, ready(b'I')),
            (Client, message(b'Q', b"x\0")),
            (Server, ready(b'I')),
        ],
        &[
            "begun 0 at 10 with 39 bytes",
            "ended 0 served 10..40 [22012] Idle->Idle copy 0",
            "begun 1 at 50 with 7 bytes",
            "ended 1 served 50..60 [] Idle->Idle copy 0",
        ],
    );
}

#[test]
fn of_a_commit_that_was_answered_only_whole_messages_are_told() {
    let commit = [message(b'P', b"\0commit\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5]), message(b'H', b"")];
    let answer = [message(b'1', b""), message(b'2', b""), message(b'C', b"COMMIT\0")].concat();
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&ready(b'T'), 0, &mut steps).unwrap();
    tracker.client(&commit.concat(), 1, &mut steps).unwrap();
    tracker.server(&answer, 2, &mut steps).unwrap();
    tracker.client(&message(b'P', b"\0select 1\0\0\0")[..9], 3, &mut steps).unwrap();
    tracker.broken(4, &mut steps);
    let Some(Step::Ended(exchange)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(exchange.request, [commit.concat(), encode::FAIL.to_vec(), message(b'S', b"")].concat());
}

#[test]
fn a_session_that_has_prepared_with_a_flush_rests_and_its_exchange_begins_when_it_goes_on() {
    let parse = message(b'P', b"s\0select 1\0\0\0");
    let (describe, flush) = (message(b'D', b"Ss\0"), message(b'H', b""));
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    tracker.server(&ready(b'I'), 0, &mut steps).unwrap();
    tracker.client(&[parse, describe.clone(), flush.clone()].concat(), 10, &mut steps).unwrap();
    assert!(!tracker.is_idle(), "it has not been answered");
    tracker.server(&[message(b'1', b""), message(b't', &[0, 0]), message(b'n', b"")].concat(), 20, &mut steps).unwrap();
    assert_eq!((tracker.is_idle(), tracker.in_flight()), (true, 0));
    let run = [message(b'B', b"\0s\0\0\0\0\0\0\0"), message(b'E', &[0; 5])].concat();
    tracker.client(&[run, flush.clone()].concat(), 5000, &mut steps).unwrap();
    tracker.server(&[message(b'2', b""), message(b'C', b"SELECT 1\0")].concat(), 5010, &mut steps).unwrap();
    assert_eq!((tracker.is_idle(), tracker.in_flight()), (false, 1), "what it has executed may be committed");
    tracker.client(&message(b'S', b""), 5020, &mut steps).unwrap();
    tracker.server(&ready(b'I'), 5030, &mut steps).unwrap();
    let Some(Step::Ended(exchange)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!((exchange.begun_ns, exchange.outcome.get().unwrap().served_from_ns), (5000, 5000));
    // One that failed is under way until its Sync.
    tracker.client(&[describe, flush].concat(), 6000, &mut steps).unwrap();
    tracker.server(&message(b'E', b"C26000\0\0"), 6010, &mut steps).unwrap();
    assert!(!tracker.is_idle());
}

/// Where the server may still answer it is read first: what it says tells what the client's next message means.
#[test]
fn an_answer_is_owed_that_no_complete_request_asks_for() {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let mut steps = Vec::new();
    assert!(tracker.owes_answer(), "the login's");
    tracker.server(&ready(b'I'), 0, &mut steps).unwrap();
    assert!(!tracker.owes_answer());
    let flushed = [message(b'P', b"\0select 1/0\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    tracker.client(&[flushed, message(b'H', b"")].concat(), 10, &mut steps).unwrap();
    assert_eq!((tracker.owes_answer(), tracker.awaited()), (true, 0), "that to a Flush");
    tracker.client(&message(b'S', b""), 20, &mut steps).unwrap();
    tracker.server(&[message(b'E', b"C22012\0\0"), ready(b'I')].concat(), 30, &mut steps).unwrap();
    assert!(!tracker.owes_answer());
    let copy = [message(b'P', b"\0copy t from stdin\0\0\0"), message(b'B', &[0; 8]), message(b'E', &[0; 5])].concat();
    tracker.client(&[copy, message(b'S', b"")].concat(), 40, &mut steps).unwrap();
    tracker.server(&message(b'G', &[0, 0, 0]), 50, &mut steps).unwrap();
    tracker.client(&[message(b'd', b"1\n"), message(b'c', b""), message(b'S', b"")].concat(), 60, &mut steps).unwrap();
    tracker.server(&[message(b'E', b"CP0001\0\0"), ready(b'I')].concat(), 70, &mut steps).unwrap();
    assert_eq!((tracker.owes_answer(), tracker.is_idle()), (true, true), "one ReadyForQuery too many");
    tracker.server(&ready(b'I'), 80, &mut steps).unwrap();
    assert!(!tracker.owes_answer());
}

mod copying;
