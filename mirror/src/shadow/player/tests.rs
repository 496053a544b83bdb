//! A player in front of an arm that is a script in a thread.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::OnceLock,
    thread,
};

use understudy_crds::experiment::StatementClass;

use super::*;
use crate::{
    capture::exchange::{SessionId, SessionInfo, StatementOutcome},
    measure::interval::Fingerprint,
    shadow::{
        arm::session::play,
        entry::{Answer, PlannedStatement},
    },
    stream::Address,
    wire::startup::Startup,
};

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, payload].concat()
}

fn read_message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let [tag, a, b, c, d] = header;
    let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize - 4];
    stream.read_exact(&mut payload).unwrap();
    (tag, payload)
}

fn arm<T: Send + 'static>(script: impl FnOnce(TcpStream) -> T + Send + 'static) -> (ArmAddress, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).into();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut startup).unwrap();
        stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).unwrap();
        script(stream)
    });
    (address, serving)
}

fn exchange(sql: &str) -> Exchange {
    Exchange {
        session: SessionId(1),
        sequence: 0,
        begun_ns: 0,
        request: Bytes::from(encode::query(sql)),
        outcome: OnceLock::new(),
    }
}

fn entry(sql: &str, copy_in: Vec<u8>) -> Entry {
    let outcome = OnceLock::new();
    outcome.set(Outcome { copy_in: copy_in.into(), ..Outcome::default() }).unwrap();
    Entry::unplanned(Exchange { outcome, ..exchange(sql) })
}

mod prologue;

#[tokio::test]
async fn a_copy_that_fails_on_the_arm_leaves_no_half_message_on_the_wire() {
    let data = [message(b'd', &vec![b'x'; 8 << 20]), message(b'c', b"")].concat();
    let (address, serving) = arm(|mut stream| {
        assert_eq!(read_message(&mut stream).0, b'Q');
        stream.write_all(&message(b'G', &[0, 0, 0])).unwrap();
        // Some data has come; the rest is still with the player when the answer is there.
        stream.read_exact(&mut [0; 100]).unwrap();
        stream.write_all(&[message(b'E', b"SERROR\0C23505\0\0"), message(b'Z', b"I")].concat()).unwrap();
        let mut rest = vec![0; (8 << 20) + 5 - 100];
        stream.read_exact(&mut rest).unwrap();
        assert_eq!(read_message(&mut stream).0, b'c');
        let next = read_message(&mut stream);
        stream.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).unwrap();
        next
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    let failed = player.play(&entry("copy t from stdin", data)).await.unwrap();
    assert_eq!(failed.error(), Some(*b"23505"));
    player.play(&entry("select 1", Vec::new())).await.unwrap();
    assert_eq!(serving.join().unwrap(), (b'Q', b"select 1\0".to_vec()));
}

#[tokio::test]
async fn a_session_waits_for_a_place_on_an_arm_that_still_has_those_that_production_has_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: ArmAddress = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).into();
    let full = || message(b'E', b"SFATAL\0C53300\0Msorry, too many clients already\0\0");
    let login = || [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let serving = thread::spawn(move || {
        for answer in [full(), full(), login()] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut startup).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    Player::open(&address, &info, &[]).await.unwrap();
    serving.join().unwrap();
}

#[tokio::test]
async fn timeouts_that_the_arms_server_does_not_know_are_not_asked_for_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: ArmAddress = Address::new("127.0.0.1", listener.local_addr().unwrap().port()).into();
    let unknown = || message(b'E', b"SFATAL\0C42704\0Munrecognized configuration parameter\0\0");
    let login = || [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let serving = thread::spawn(move || {
        [unknown(), login(), login()].map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            stream.read_exact(&mut startup).unwrap();
            stream.write_all(&answer).unwrap();
            String::from_utf8_lossy(&startup).matches("_timeout\x000\0").count()
        })
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    for _ in 0..2 {
        Player::open(&address, &info, &[]).await.unwrap();
    }
    assert_eq!(serving.join().unwrap(), [3, 2, 2]);
}

#[tokio::test]
async fn what_rolled_back_on_production_does_not_commit_on_the_arm() {
    let (address, serving) = arm(|mut stream| {
        let mut asked = Vec::new();
        for (answer, status) in [(&b"BEGIN\0"[..], b"T"), (b"", b"E"), (b"ROLLBACK\0", b"I")] {
            asked.push(read_message(&mut stream).1);
            let said = if answer.is_empty() { message(b'E', b"SERROR\0CP0001\0\0") } else { message(b'C', answer) };
            stream.write_all(&[said, message(b'Z', status)].concat()).unwrap();
        }
        asked
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    // A read between the two was cancelled on production; the arm had answered it before that.
    let mut begin = entry("begin", Vec::new());
    begin.exchange = Arc::new(Exchange { outcome: OnceLock::new(), ..exchange("begin") });
    play(&mut player, &begin).await.unwrap();
    let mut commit = entry("commit", Vec::new());
    let failed = Outcome { before: TransactionStatus::Failed, ..Outcome::default() };
    commit.exchange = Arc::new(Exchange { outcome: OnceLock::from(failed), ..exchange("commit") });
    let (_, misaligned) = play(&mut player, &commit).await.unwrap();
    let asked = serving.join().unwrap();
    assert!(asked[1].starts_with(b"DO "), "the arm's transaction is made to fail first");
    assert_eq!((&asked[2][..], misaligned), (&b"commit\0"[..], false));
}

#[tokio::test]
async fn a_commit_that_failed_for_the_moment_on_production_does_not_commit_on_the_arm() {
    let (address, serving) = arm(|mut stream| {
        let mut asked = Vec::new();
        for (answer, status) in [(&b"BEGIN\0"[..], b"T"), (b"", b"E"), (b"ROLLBACK\0", b"I")] {
            asked.push(read_message(&mut stream).1);
            let said = if answer.is_empty() { message(b'E', b"SERROR\0CP0001\0\0") } else { message(b'C', answer) };
            stream.write_all(&[said, message(b'Z', status)].concat()).unwrap();
        }
        asked
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    let mut begin = entry("begin", Vec::new());
    let open = Outcome { after: TransactionStatus::InTransaction, ..Outcome::default() };
    begin.exchange = Arc::new(Exchange { outcome: OnceLock::from(open), ..exchange("begin") });
    play(&mut player, &begin).await.unwrap();
    let mut commit = entry("commit", Vec::new());
    let statements = vec![StatementOutcome { error: Some(*b"40001"), ..StatementOutcome::default() }];
    let failed = Outcome { before: TransactionStatus::InTransaction, statements, ..Outcome::default() };
    commit.exchange = Arc::new(Exchange { outcome: OnceLock::from(failed), ..exchange("commit") });
    let (_, misaligned) = play(&mut player, &commit).await.unwrap();
    let asked = serving.join().unwrap();
    assert!(asked[1].starts_with(b"DO "), "the arm's transaction is made to fail first");
    assert_eq!((&asked[2][..], misaligned), (&b"commit\0"[..], false));
}

#[tokio::test]
async fn a_transaction_that_failed_for_the_moment_on_production_alone_is_no_divergence() {
    for (sqlstate, expected) in [(b"40001", false), (b"40P01", false), (b"23505", true)] {
        let (address, serving) = arm(|mut stream| {
            let (fine, made_to_fail) = (message(b'C', b"UPDATE 1\0"), message(b'E', b"SERROR\0CP0001\0\0"));
            for (answer, status) in [(fine.clone(), b"T"), (fine, b"T"), (made_to_fail, b"E")] {
                read_message(&mut stream);
                stream.write_all(&[answer, message(b'Z', status)].concat()).unwrap();
            }
        });
        let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
        let mut player = Player::open(&address, &info, &[]).await.unwrap();
        player.play(&entry("begin", Vec::new())).await.unwrap();
        let statements = vec![StatementOutcome { error: Some(*sqlstate), ..StatementOutcome::default() }];
        let (before, after) = (TransactionStatus::InTransaction, TransactionStatus::Failed);
        let failed = Outcome { statements, before, after, ..Outcome::default() };
        let mut update = entry("", Vec::new());
        update.exchange = Arc::new(Exchange { outcome: OnceLock::from(failed), ..exchange("update t set a = 1") });
        let (_, misaligned) = play(&mut player, &update).await.unwrap();
        serving.join().unwrap();
        assert_eq!(misaligned, expected, "{sqlstate:?}");
    }
}

#[tokio::test]
async fn what_stands_in_a_transaction_whose_beginning_was_not_played_is_played_in_one() {
    for (status, undone) in [(TransactionStatus::InTransaction, false), (TransactionStatus::Failed, true)] {
        let (address, serving) = arm(move |mut stream| {
            let answers = [(&b"BEGIN\0"[..], b"T"), (b"", b"E"), (b"ROLLBACK\0", b"I")];
            let mut asked = Vec::new();
            for (answer, status) in answers.into_iter().filter(|(answer, _)| undone || !answer.is_empty()) {
                asked.push(read_message(&mut stream).1);
                let said = if answer.is_empty() { message(b'E', b"SERROR\0CP0001\0\0") } else { message(b'C', answer) };
                stream.write_all(&[said, message(b'Z', status)].concat()).unwrap();
            }
            asked
        });
        let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
        let mut player = Player::open(&address, &info, &[]).await.unwrap();
        let mut rollback = entry("rollback", Vec::new());
        let over = Outcome { before: status, ..Outcome::default() };
        rollback.exchange = Arc::new(Exchange { outcome: OnceLock::from(over), ..exchange("rollback") });
        let (_, misaligned) = play(&mut player, &rollback).await.unwrap();
        let asked = serving.join().unwrap();
        assert_eq!((&asked[0][..], misaligned), (&b"BEGIN\0"[..], false));
        assert_eq!(asked.iter().any(|sql| sql.starts_with(b"DO ")), undone);
        assert_eq!(asked.last().unwrap(), b"rollback\0");
    }
}

#[tokio::test]
async fn a_commit_behind_a_deadlock_of_productions_does_not_commit_on_the_arm() {
    let (address, serving) = arm(|mut stream| {
        let answers: [(&[u8], &[u8]); 3] = [(b"BEGIN\0", b"T"), (b"", b"E"), (b"", b"E")];
        let mut asked = Vec::new();
        for (answer, status) in answers {
            asked.push(read_message(&mut stream).1);
            let said = if answer.is_empty() { message(b'E', b"SERROR\0C25P02\0\0") } else { message(b'C', answer) };
            stream.write_all(&[said, message(b'Z', status)].concat()).unwrap();
        }
        asked
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    let sql = "BEGIN; UPDATE t SET i = 1; COMMIT";
    let planned = |class| PlannedStatement { class, fingerprint: Fingerprint(1), answer: Answer::Definite };
    let classes = [StatementClass::Utility, StatementClass::Write, StatementClass::Commit];
    let statements = [None, Some(*b"40P01")].map(|error| StatementOutcome { error, ..StatementOutcome::default() });
    let failed = Outcome { statements: statements.to_vec(), after: TransactionStatus::Failed, ..Outcome::default() };
    let exchange = Arc::new(Exchange { outcome: OnceLock::from(failed), ..exchange(sql) });
    let all = Entry { statements: classes.map(planned).to_vec(), exchange, ..entry("", Vec::new()) };
    let (_, misaligned) = play(&mut player, &all).await.unwrap();
    drop(player);
    let asked = serving.join().unwrap();
    assert_eq!((&asked[0][..], &asked[2][..], misaligned), (&b"BEGIN\0"[..], format!("{sql}\0").as_bytes(), false));
    assert!(asked[1].starts_with(b"DO "));
}

#[tokio::test]
async fn a_copy_that_production_failed_before_it_had_the_data_comes_to_its_end_on_the_arm() {
    let (address, serving) = arm(|mut stream| {
        let begin = read_message(&mut stream).1;
        stream.write_all(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat()).unwrap();
        assert_eq!(read_message(&mut stream).0, b'Q');
        stream.write_all(&message(b'G', &[0, 0, 0])).unwrap();
        let instead = read_message(&mut stream).0;
        stream.write_all(&[message(b'E', b"SERROR\0C57014\0\0"), message(b'Z', b"E")].concat()).unwrap();
        let end = read_message(&mut stream).1;
        stream.write_all(&[message(b'C', b"ROLLBACK\0"), message(b'Z', b"I")].concat()).unwrap();
        (begin, instead, end)
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    let mut copy = entry("copy t from stdin", Vec::new());
    let statements = vec![StatementOutcome { error: Some(*b"55P03"), ..StatementOutcome::default() }];
    let failed = Outcome { statements, ..Outcome::default() };
    copy.exchange = Arc::new(Exchange { outcome: OnceLock::from(failed), ..exchange("copy t from stdin") });
    player.play(&copy).await.unwrap();
    assert_eq!(serving.join().unwrap(), (b"BEGIN\0".to_vec(), b'f', b"ROLLBACK\0".to_vec()));
}

#[tokio::test]
async fn an_arm_that_can_not_prepare_what_production_has_goes_on_with_the_query_behind_it() {
    let (address, serving) = arm(|mut stream| {
        let prepares = [(); 3].map(|()| read_message(&mut stream).0);
        stream.write_all(&message(b'E', b"SERROR\0C42P01\0\0")).unwrap();
        // As a server does: it ignores everything until the Sync.
        let mut ignored = Vec::new();
        while ignored.last() != Some(&b'S') {
            ignored.push(read_message(&mut stream).0);
        }
        stream.write_all(&message(b'Z', b"I")).unwrap();
        assert_eq!(read_message(&mut stream).0, b'Q');
        stream.write_all(&[message(b'C', b"BEGIN\0"), message(b'Z', b"T")].concat()).unwrap();
        (prepares, ignored)
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let mut player = Player::open(&address, &info, &[]).await.unwrap();
    let prepares = [message(b'P', b"s\0select 1 from t\0\0\0"), message(b'D', b"Ss\0"), message(b'H', b"")].concat();
    let request = [prepares, encode::query("begin")].concat().into();
    let mut begins = entry("begin", Vec::new());
    let after = TransactionStatus::InTransaction;
    let outcome = OnceLock::from(Outcome { after, parsed: 1, ..Outcome::default() });
    begins.exchange = Arc::new(Exchange { request, outcome, ..exchange("begin") });
    let played = player.play(&begins).await.unwrap();
    assert_eq!((played.after, played.error()), (TransactionStatus::InTransaction, None));
    assert_eq!(serving.join().unwrap(), (*b"PDH", b"S".to_vec()));
}
