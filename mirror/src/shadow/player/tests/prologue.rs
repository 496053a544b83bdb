//! What a player makes of a prologue, in front of an arm that is a script.

use super::*;

/// What an arm answers: the tag of a statement, or `!` and why it fails; and where the transaction stands then.
type Answers = &'static [(&'static [u8], &'static [u8])];

/// Opens a session with a prologue on an arm that gives these answers. What the arm was asked, and what came of it.
async fn opened(prologue: Vec<Vec<u8>>, answers: Answers) -> (Vec<String>, Result<Player, PlayError>) {
    let (address, serving) = arm(move |mut stream| {
        let mut asked = Vec::new();
        for (said, status) in answers {
            let (mut kind, mut payload) = read_message(&mut stream);
            while kind != b'Q' && kind != b'S' {
                (kind, payload) = read_message(&mut stream);
            }
            asked.push(String::from_utf8_lossy(&payload).trim_end_matches('\0').to_owned());
            let said = match said.strip_prefix(b"!") {
                Some(sqlstate) => message(b'E', &[b"SERROR\0C", sqlstate, b"\0\0"].concat()),
                None => message(b'C', said),
            };
            stream.write_all(&[said, message(b'Z', status)].concat()).unwrap();
        }
        asked
    });
    let info = SessionInfo { id: SessionId(1), startup: Startup::default(), backend_pid: 1 };
    let prologue: Vec<Bytes> = prologue.into_iter().map(Bytes::from).collect();
    let player = Player::open(&address, &info, &prologue).await;
    (serving.join().unwrap(), player)
}

#[tokio::test]
async fn what_a_prologue_begins_it_commits() {
    let prologue = vec![encode::query("begin; set search_path = t1"), encode::query("set datestyle = 'German'")];
    let (asked, player) = opened(prologue, &[(b"SET\0", b"T"), (b"COMMIT\0", b"I"), (b"SET\0", b"I")]).await;
    assert_eq!(asked, ["begin; set search_path = t1", "COMMIT", "set datestyle = 'German'"]);
    assert_eq!(player.unwrap().tracker.status(), TransactionStatus::Idle);
}

#[tokio::test]
async fn a_prologue_that_fails_is_no_session() {
    let set = || vec![encode::query("begin; set role writer")];
    let scripts: [Answers; 3] = [
        &[(b"!42704", b"I")],
        &[(b"SET\0", b"T"), (b"!40001", b"I")],
        // The COMMIT of what has failed is a ROLLBACK, and no error.
        &[(b"SET\0", b"E")],
    ];
    for answers in scripts {
        let (_, player) = opened(set(), answers).await;
        assert!(matches!(player, Err(PlayError::Prologue(_))), "{player:?}");
    }
}

#[tokio::test]
async fn an_unnamed_statement_that_nobody_may_want_any_more_may_fail() {
    let parse = [message(b'P', b"\0insert into gone values ($1)\0\0\0"), encode::SYNC.to_vec()].concat();
    let (_, player) = opened(vec![parse], &[(b"!42P01", b"I")]).await;
    player.unwrap();
    let named = [message(b'P', b"s1\0insert into gone values ($1)\0\0\0"), encode::SYNC.to_vec()].concat();
    let (_, player) = opened(vec![named], &[(b"!42P01", b"I")]).await;
    assert!(matches!(player, Err(PlayError::Prologue(_))));
}
