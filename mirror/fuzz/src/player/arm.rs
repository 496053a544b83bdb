//! The arm: a server on a socket of its own that says what the script has for it. What it says next it says when it
//! was asked for something, or when it has waited long for that; when it has said all, it says no more.

use std::{cell::RefCell, convert::Infallible, io, rc::Rc, time::Duration, vec};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    task::{JoinHandle, spawn_local, yield_now},
    time::timeout,
};
use understudy_mirror::{
    stream::Address,
    wire::{frame, startup::CANCEL},
};

use super::script::Answer;

/// More writes than these of one answer take time and show nothing new.
const MAX_CUTS: usize = 48;
/// So often others run before it speaks unasked.
const PATIENCE: usize = 64;
/// A player that has ended has closed its connections.
const CLOSED_LIMIT: Duration = Duration::from_secs(10);

/// A server.
pub struct Arm {
    directory: TempDir,
    asked: Rc<RefCell<Asked>>,
    accepting: JoinHandle<()>,
    /// Closed when no connection is served any more.
    serving: mpsc::Receiver<Infallible>,
}

/// What it was asked.
#[derive(Default)]
pub struct Asked {
    /// The packet that its session began with.
    pub startup: Vec<u8>,
    /// All bytes that came after it.
    pub session: Vec<u8>,
    /// All bytes of each connection that wanted something cancelled.
    pub cancels: Vec<Vec<u8>>,
}

impl Arm {
    /// Opens it.
    pub fn open(answers: Vec<Answer>) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432"))?;
        let asked: Rc<RefCell<Asked>> = Rc::default();
        let (open, serving) = mpsc::channel(1);
        let heard = Rc::clone(&asked);
        let accepting = spawn_local(async move {
            let mut answers = Some(answers.into_iter());
            while let Ok((mut stream, _)) = listener.accept().await {
                let packet = first_packet(&mut stream).await;
                if packet.get(4..8) == Some(&CANCEL.to_be_bytes()) {
                    heard.borrow_mut().cancels.push(packet);
                } else if let Some(answers) = answers.take() {
                    heard.borrow_mut().startup = packet;
                    let session = Session { stream, answers, pending: Vec::new(), heard: Rc::clone(&heard) };
                    let open = open.clone();
                    spawn_local(async move {
                        session.serve().await;
                        drop(open);
                    });
                }
            }
        });
        Ok(Self { directory, asked, accepting, serving })
    }

    /// Where it is.
    pub fn address(&self) -> Address {
        Address::Unix { directory: self.directory.path().to_owned(), port: 5432 }
    }

    /// What it was asked, when nobody asks any more.
    pub async fn ended(mut self) -> Asked {
        self.accepting.abort();
        let closed = timeout(CLOSED_LIMIT, self.serving.recv()).await;
        assert!(closed.is_ok(), "a player that has ended keeps its connection");
        self.asked.take()
    }
}

/// The packet that a connection begins with: the mirror sends it whole.
async fn first_packet(stream: &mut UnixStream) -> Vec<u8> {
    let mut packet = vec![0; 1 << 14];
    match timeout(CLOSED_LIMIT, stream.read(&mut packet)).await {
        Ok(Ok(read)) => packet.truncate(read),
        _ => panic!("the mirror connects and says nothing"),
    }
    packet
}

struct Session {
    stream: UnixStream,
    answers: vec::IntoIter<Answer>,
    /// The message that is coming in.
    pending: Vec<u8>,
    heard: Rc<RefCell<Asked>>,
}

impl Session {
    async fn serve(mut self) {
        let (mut turns, mut buffer) = (1, vec![0; 1 << 14]);
        loop {
            if turns > 0 {
                turns -= 1;
                self.answer().await;
                continue;
            }
            let read = tokio::select! {
                biased;
                read = self.stream.read(&mut buffer) => read.unwrap_or(0),
                () = patience(), if self.answers.len() > 0 => {
                    turns = 1;
                    continue;
                }
            };
            if read == 0 {
                return;
            }
            turns = self.take(buffer.get(..read).unwrap_or_default());
        }
    }

    /// Takes what the player sent; how often it is the arm's turn to say something then.
    fn take(&mut self, bytes: &[u8]) -> usize {
        self.heard.borrow_mut().session.extend_from_slice(bytes);
        self.pending.extend_from_slice(bytes);
        let (mut turns, mut taken) = (0, 0);
        for message in frame::messages(&self.pending) {
            taken += message.bytes.len();
            turns += usize::from(b"QSFcf".contains(&message.tag));
        }
        self.pending.drain(..taken);
        turns
    }

    /// Says what comes next, in pieces. The player may be gone.
    async fn answer(&mut self) {
        if let Some(answer) = self.answers.next() {
            let bytes = answer.bytes();
            let (front, rest) = bytes.split_at(bytes.len().min(usize::from(answer.cut) * MAX_CUTS));
            for piece in front.chunks(usize::from(answer.cut).max(1)).chain([rest]) {
                let _ = self.stream.write_all(piece).await;
                yield_now().await;
            }
        }
        if self.answers.len() == 0 {
            let _ = self.stream.shutdown().await;
        }
    }
}

async fn patience() {
    for _ in 0..PATIENCE {
        yield_now().await;
    }
}
