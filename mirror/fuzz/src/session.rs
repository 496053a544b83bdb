//! A whole connection: a scripted client, the real session code, a scripted server, over real sockets. What
//! has to hold whatever they do stands in [`judge`]; nothing here knows how the mirror is built inside.

mod bytes;
mod judge;
mod model;
pub mod script;
mod side;

use std::{
    cell::RefCell,
    fs, io,
    path::PathBuf,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arbitrary::{Arbitrary as _, Unstructured};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, LocalSet, spawn_local, yield_now},
    time::timeout,
};
use understudy_mirror::{
    clock::now_ns,
    production::{gate::Hold, session, session::Production, tap::Tap},
    stream::{Address, Stream},
};

use self::{
    bytes::Side,
    judge::Played,
    script::{Ending, Fate, Script},
    side::{Order, Seen, Shared, Wire, live},
};

/// Far more than a session takes that has nothing to wait for.
const LIMIT: Duration = Duration::from_secs(20);
/// More writes than these of one message take time and show nothing new.
const MAX_CUTS: usize = 48;
/// How long the gate stays closed.
const GATE_NS: u64 = 500_000;

/// Plays the script that the bytes make, and judges what came of it.
pub fn session(data: &[u8]) {
    if let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) {
        play(&script);
    }
}

/// Plays a script, and judges what came of it.
pub fn play(script: &Script) {
    let _told = ToldOnFailure(script);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let played = LocalSet::new().block_on(&runtime, run(script));
    match played {
        Ok(played) => judge::judge(script, &played),
        Err(error) => panic!("no sockets: {error}"),
    }
}

/// A script is easier to read than its bytes.
struct ToldOnFailure<'a>(&'a Script);

impl Drop for ToldOnFailure<'_> {
    #[expect(clippy::print_stderr, reason = "whoever looks for the failure reads it there")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the script was: {:?}", self.0);
        }
    }
}

/// One end, as the script sees it.
struct End {
    orders: mpsc::UnboundedSender<Order>,
    seen: Shared,
    task: JoinHandle<()>,
    /// What it was told to say.
    told: Vec<u8>,
}

impl End {
    fn order(&self, order: Order) {
        // It may be gone already.
        let _ = self.orders.send(order);
    }

    /// Says something, its front cut into writes.
    fn say(&mut self, said: &[u8], cut: u8) {
        self.told.extend_from_slice(said);
        let (front, rest) = said.split_at(said.len().min(usize::from(cut) * MAX_CUTS));
        for piece in front.chunks(usize::from(cut).max(1)) {
            self.order(Order::Send(piece.to_vec()));
        }
        if !rest.is_empty() {
            self.order(Order::Send(rest.to_vec()));
        }
    }
}

async fn run(script: &Script) -> io::Result<Played> {
    let door = Door::open(script.tcp).await?;
    let tap = Tap::new(1, if script.small_tap { 4096 } else { 64 << 20 });
    let production = Production::new(door.address.clone().into(), None, LIMIT, Arc::clone(&tap), 1);
    let (wire, stream) = connection(script.tcp).await?;
    let serving = spawn_local(session::serve(Arc::clone(&production), stream, 0));
    let mut client = end(|orders, seen| spawn_local(live(wire, orders, seen, true)));
    let mut server = end(|orders, seen| {
        spawn_local(async move {
            if let Ok(wire) = door.accept().await {
                live(wire, orders, seen, false).await;
            }
        })
    });

    for asked in &script.greeting {
        client.say(&bytes::asked(*asked), script.cut & 7);
    }
    client.say(&bytes::first(&script.first), script.cut >> 3);
    if script.logs_in {
        server.say(&bytes::login(), script.cut & 7);
    }
    for step in &script.steps {
        for (side, said) in bytes::said(&step.said) {
            match side {
                Side::Client => client.say(&said, step.cut),
                Side::Server => server.say(&said, step.cut),
            }
            for _ in 0..step.pause {
                yield_now().await;
            }
        }
        if let Some(fate) = step.fate {
            happen(fate, &production, &client, &server);
        }
    }
    let is_session = matches!(model::greeted(&client.told).wish, model::Wish::Session { .. });
    finish(script.ending, is_session, &mut client, &server);

    let served = timeout(LIMIT, serving).await;
    let left = production.sessions.list().len();
    // A server that nobody has connected to waits for nobody any more.
    let sent = client.seen.borrow().sent;
    let greeted = model::greeted(client.told.get(..sent).unwrap_or_default());
    let wait = match greeted.wish {
        model::Wish::Unsaid | model::Wish::NoLength | model::Wish::Unasked | model::Wish::Again => Duration::ZERO,
        _ if judge::stays(script) => LIMIT,
        _ => Duration::from_millis(50),
    };
    if timeout(wait, &mut server.task).await.is_err() {
        assert!(wait < LIMIT || server.seen.borrow().connected, "the mirror has not connected");
        server.task.abort();
    }
    assert!(timeout(LIMIT, client.task).await.is_ok_and(|ended| ended.is_ok()), "the client stays");
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => panic!("the session failed: {error}"),
        Err(elapsed) => panic!("the session does not end: {elapsed}"),
    }
    Ok(Played {
        client: client.seen.take(),
        server: server.seen.take(),
        client_told: client.told,
        server_told: server.told,
        production,
        tap,
        left,
    })
}

fn end(live: impl FnOnce(mpsc::UnboundedReceiver<Order>, Shared) -> JoinHandle<()>) -> End {
    let (orders, receiver) = mpsc::unbounded_channel();
    let seen: Shared = Rc::new(RefCell::new(Seen::default()));
    let task = live(receiver, Rc::clone(&seen));
    End { orders, seen, task, told: Vec::new() }
}

fn happen(fate: Fate, production: &Production, client: &End, server: &End) {
    match fate {
        Fate::ClientSendsNoMore => client.order(Order::SendNoMore),
        Fate::ClientVanishes => client.order(Order::Vanish),
        Fate::ServerSendsNoMore => server.order(Order::SendNoMore),
        Fate::ServerVanishes => server.order(Order::Vanish),
        Fate::ClientReads(yes) => client.order(Order::Read(yes)),
        Fate::ServerReads(yes) => server.order(Order::Read(yes)),
        Fate::GateCloses => production.gate.close(Hold::Exchanges, now_ns() + GATE_NS),
        Fate::GateOpens => production.gate.open(),
        Fate::Drains => production.drain(Duration::from_secs(3600)),
        Fate::CaptureEnds => production.tap.end_capture(),
    }
}

/// Nothing waits for ever after this: the client or the server closes, and the other follows.
fn finish(ending: Ending, is_session: bool, client: &mut End, server: &End) {
    match ending {
        Ending::Client | Ending::Terminate => {
            if ending == Ending::Terminate {
                client.say(&bytes::terminate(), 0);
                // A server closes the connection of a client that takes its leave.
                let greeted = model::greeted(&client.told);
                server.order(Order::SendNoMoreBehind(client.told.len() - greeted.packet));
            }
            client.order(Order::SendNoMore);
            // A server that is not in a session closes when it has said what it has to say.
            if !is_session {
                server.order(Order::SendNoMore);
            }
        }
        Ending::Server => {
            server.order(Order::SendNoMore);
            if !is_session {
                client.order(Order::SendNoMore);
            }
        }
        Ending::Vanish => {
            client.order(Order::Vanish);
            server.order(Order::Vanish);
        }
    }
    client.order(Order::Finish);
    server.order(Order::Finish);
}

/// Where the server waits for the mirror.
struct Door {
    address: Address,
    listening: Listening,
}

enum Listening {
    Tcp(TcpListener),
    /// With its directory.
    Unix(UnixListener, PathBuf),
}

impl Door {
    async fn open(tcp: bool) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if tcp {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = Address::new("127.0.0.1", listener.local_addr()?.port());
            return Ok(Self { address, listening: Listening::Tcp(listener) });
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("understudy-session-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let listener = UnixListener::bind(directory.join(".s.PGSQL.5432"))?;
        let address = Address::Unix { directory: directory.clone(), port: 5432 };
        Ok(Self { address, listening: Listening::Unix(listener, directory) })
    }

    async fn accept(self) -> io::Result<Box<dyn Wire>> {
        Ok(match &self.listening {
            Listening::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Listening::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Listening::Unix(_, directory) = &self.listening {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// A client's connection, and the mirror's end of it.
async fn connection(tcp: bool) -> io::Result<(Box<dyn Wire>, Stream)> {
    if !tcp {
        let (ours, theirs) = UnixStream::pair()?;
        return Ok((Box::new(ours), Stream::Unix(theirs)));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let (theirs, _) = listener.accept().await?;
    ours.set_nodelay(true)?;
    theirs.set_nodelay(true)?;
    Ok((Box::new(ours), Stream::Tcp(theirs)))
}
