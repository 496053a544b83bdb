//! What a fuzz target has found once, as the script that shows it. Each has a name; none is random.

use crate::checks::session::{
    play,
    script::{Answer, Ending, Exchange, Fate, First, Request, Said, Script, Step},
};

/// Long enough for whatever was said to be where it goes.
const ARRIVED: u8 = 200;
/// The front of a row of 36 bytes.
const HALF_A_ROW: [u8; 6] = [b'D', 0, 0, 0, 40, 1];
/// A message with a length that none has.
const NO_MESSAGE: [u8; 6] = [b'Q', 0, 0, 0, 0, 0];

fn step(said: Said) -> Step {
    Step { said, cut: 0, pause: ARRIVED, fate: None }
}

fn and_then(said: Said, fate: Fate) -> Step {
    Step { fate: Some(fate), ..step(said) }
}

fn session(steps: Vec<Step>) -> Script {
    Script {
        greeting: Vec::new(),
        first: First::Startup { minor: 0, parameters: Vec::new(), replication: false },
        cut: 0,
        logs_in: true,
        steps,
        ending: Ending::Client,
        tcp: false,
        small_tap: false,
    }
}

fn replication(steps: Vec<Step>) -> Script {
    Script { first: First::Startup { minor: 0, parameters: Vec::new(), replication: true }, ..session(steps) }
}

#[test]
fn a_plain_session_is_relayed_and_captured() {
    for tcp in [false, true] {
        let exchanges = [
            Exchange::Simple { sql: 0, rows: 3, status: 0 },
            Exchange::Extended { sql: 1, rows: 0xf3, status: 1 },
            Exchange::Pipeline(5),
            Exchange::CopyIn { chunks: 0x7f, fails: false },
            Exchange::CopyInExtended { chunks: 3, fails: true },
            Exchange::CopyOut { chunks: 7 },
            Exchange::Function,
            Exchange::Failure(0),
        ];
        let steps = exchanges.map(|exchange| step(Said::Exchange(exchange))).to_vec();
        play(&Script { tcp, ending: Ending::Terminate, ..session(steps) });
    }
}

#[test]
fn a_worker_that_does_not_end_a_session_behind_a_goodbye_is_told_of_its_end() {
    play(&session(vec![step(Said::Client(Request::Terminate))]));
}

#[test]
fn a_client_is_not_told_of_its_malformed_message_in_the_middle_of_a_row() {
    play(&session(vec![
        step(Said::Client(Request::Query(0))),
        step(Said::Server(Answer::Bytes(HALF_A_ROW))),
        step(Said::Client(Request::Bytes(NO_MESSAGE))),
    ]));
}

#[test]
fn a_client_is_not_told_of_a_workers_malformed_message_after_a_piece_of_it() {
    play(&session(vec![Step { cut: 3, ..step(Said::Server(Answer::Bytes(NO_MESSAGE))) }]));
}

#[test]
fn what_is_asked_and_answered_before_a_malformed_message_is_passed_on() {
    let at_once = |said| Step { pause: 0, ..step(said) };
    let ready = || Said::Server(Answer::Bytes([b'Z', 0, 0, 0, 5, b'I']));
    let asked = [at_once(Said::Client(Request::Sync)), step(Said::Client(Request::Bytes(NO_MESSAGE))), step(ready())];
    play(&session(asked.to_vec()));
    let answered = [step(Said::Client(Request::Sync)), at_once(ready()), step(Said::Server(Answer::Bytes(NO_MESSAGE)))];
    play(&session(answered.to_vec()));
}

#[test]
fn a_client_is_not_told_that_the_mirror_drains_in_the_middle_of_a_notification() {
    let half = [b'A', 0, 0, 0, 40, 0];
    play(&session(vec![and_then(Said::Server(Answer::Bytes(half)), Fate::Drains), step(Said::Client(Request::Flush))]));
}

#[test]
fn a_replication_client_is_not_told_that_the_mirror_drains_in_the_middle_of_a_message() {
    play(&replication(vec![and_then(Said::Server(Answer::Bytes(HALF_A_ROW)), Fate::Drains)]));
}

#[test]
fn a_replication_client_that_sends_no_more_still_gets_its_answer() {
    play(&replication(vec![
        and_then(Said::Client(Request::Query(0)), Fate::ClientSendsNoMore),
        step(Said::Server(Answer::Rows { rows: 15, hundreds: 200 })),
    ]));
}

#[test]
fn the_last_words_of_a_worker_reach_a_client_that_goes_on_sending() {
    let rows = Said::Server(Answer::Rows { rows: 15, hundreds: 200 });
    let words = (0..20).map(|_| Step { pause: 0, ..step(Said::Client(Request::CopyData(200))) });
    let farewell = Step { pause: 1, ..and_then(rows, Fate::ServerSendsNoMore) };
    play(&Script { tcp: true, ..session([farewell].into_iter().chain(words).collect()) });
}
