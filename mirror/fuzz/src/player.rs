//! A check of the side that speaks to an arm: a player plays a few exchanges to an arm that answers with any bytes
//! whatever. The arm says one of its answers whenever it has been asked for something; when it has said all, it ends.

mod arm;
mod judge;
mod script;

use std::{
    io,
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::Duration,
};

use arbitrary::{Arbitrary as _, Unstructured};
use tokio::{task::LocalSet, time::timeout};
use understudy_mirror::{
    capture::exchange::{Exchange, Outcome, SessionId, SessionInfo, StatementOutcome},
    shadow::{
        entry::{Budget, Entry},
        player::{PlayError, Player},
        statement::footprint::Footprint,
    },
    wire::startup::Startup,
};

use self::{
    arm::Arm,
    script::{Fate, Script, Wanted},
};

/// Far more than a player takes whose arm has ended.
const LIMIT: Duration = Duration::from_secs(20);
/// What a session holds before its first exchange.
const PROLOGUE: &str = "set search_path = a";

/// Plays the script that the bytes make, and judges what came of it.
pub fn player(data: &[u8]) {
    let Ok(mut script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    let answers = std::mem::take(&mut script.answers);
    let said: Vec<u8> = answers.iter().flat_map(script::Answer::bytes).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let played = runtime.and_then(|runtime| {
        LocalSet::new().block_on(&runtime, async {
            let arm = Arm::open(answers)?;
            let played = match timeout(LIMIT, play(&arm, &script)).await {
                Ok(played) => played,
                Err(elapsed) => panic!("the player does not end: {elapsed}"),
            };
            io::Result::Ok((played, arm.ended().await))
        })
    });
    match played {
        Ok((played, asked)) => judge::judge(&script, &said, &played, &asked),
        Err(error) => panic!("no sockets: {error}"),
    }
}

/// What a player made of an arm.
struct Played {
    /// Its outcomes, as far as it came.
    outcomes: Vec<Outcome>,
    /// What it ended with before it had played all.
    error: Option<PlayError>,
}

async fn play(arm: &Arm, script: &Script) -> Played {
    let info = SessionInfo { id: SessionId(1), startup: started(), backend_pid: 1 };
    let prologue = if script.prologue { vec![script::query(PROLOGUE)] } else { Vec::new() };
    let mut outcomes = Vec::new();
    let mut player = match Player::open(&arm.address().into(), &info, &prologue).await {
        Ok(player) => player,
        Err(error) => return Played { outcomes, error: Some(error) },
    };
    for wanted in &script.wanted {
        match player.play(&entry(*wanted)).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => return Played { outcomes, error: Some(error) },
        }
    }
    player.close().await;
    Played { outcomes, error: None }
}

fn started() -> Startup {
    Startup { protocol: 3 << 16, parameters: vec![("user".to_owned(), "ann".to_owned())] }
}

/// An exchange as production had it.
fn entry(wanted: Wanted) -> Entry {
    let error = match wanted.fate {
        Fate::Well | Fate::Broken => None,
        Fate::Failed => Some(*b"23505"),
        Fate::Cancelled => Some(*b"57014"),
    };
    let outcome = Outcome {
        statements: vec![StatementOutcome { error, ..StatementOutcome::default() }],
        copy_in: wanted.copy_in(),
        broken: wanted.fate == Fate::Broken,
        ..Outcome::default()
    };
    let exchange = Exchange {
        session: SessionId(1),
        sequence: 0,
        begun_ns: 0,
        request: wanted.request(),
        outcome: OnceLock::from(outcome),
    };
    Entry {
        id: 1,
        exchange: Arc::new(exchange),
        statements: Vec::new(),
        writes: true,
        touches: Footprint::Anything,
        publishes: Footprint::Anything,
        beginnings: false,
        skip: None,
        overlapped: AtomicBool::new(false),
        charge: Budget::new(0).charge(0),
        taken_in: OnceLock::new(),
    }
}
