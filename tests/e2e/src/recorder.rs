//! A relay that hands every byte on and keeps a copy, so that what two servers and their clients said to
//! each other can be held against each other message by message. What names a backend, or is salted, is left out.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;
/// How much of a message is shown.
const SHOWN_BYTES: usize = 300;

type Bytes = Arc<Mutex<Vec<u8>>>;

/// A relay to one server.
#[derive(Debug)]
pub struct Recorder {
    address: SocketAddr,
    /// What client and server said, in order of connecting.
    taped: Arc<Mutex<Vec<(Bytes, Bytes)>>>,
    open: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

/// A message as it is compared: its type and what of its body two servers should have in common.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its type, or what it is where it has none.
    pub kind: char,
    /// What is compared.
    pub body: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shown, rest) = self.body.split_at(self.body.len().min(SHOWN_BYTES));
        write!(f, "{} {}", self.kind, shown.escape_ascii())?;
        if rest.is_empty() { Ok(()) } else { write!(f, "… {} bytes", self.body.len()) }
    }
}

/// One connection from its first byte to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// What the client said.
    pub client: Vec<Message>,
    /// What the server said.
    pub server: Vec<Message>,
}

impl Recorder {
    /// Starts a relay to a server.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let taped: Arc<Mutex<Vec<(Bytes, Bytes)>>> = Arc::default();
        let (count, open) = watch::channel(0);
        let tapes = Arc::clone(&taped);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let tape = (Bytes::default(), Bytes::default());
                tapes.lock().unwrap_or_else(PoisonError::into_inner).push(tape.clone());
                count.send_modify(|open| *open += 1);
                let count = count.clone();
                tokio::spawn(async move {
                    // A connection that breaks is over; what was said is on the tape.
                    let _ = relay(client, to, tape).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { address, taped, open, accepting }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all connections have ended; what was said on them.
    pub async fn finish(mut self, limit: Duration) -> Vec<Conversation> {
        let ended = timeout(limit, self.open.wait_for(|open| *open == 0)).await;
        ended.expect("all connections end in time").expect("the relay");
        self.accepting.abort();
        let taped = self.taped.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = |tape: &Bytes| tape.lock().unwrap_or_else(PoisonError::into_inner).clone();
        taped.iter().map(|(client, server)| conversation(&bytes(client), &bytes(server))).collect()
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr, (said, answered): (Bytes, Bytes)) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let ended = tokio::join!(copy(from_client, to_server, &said), copy(from_server, to_client, &answered));
    ended.0.and(ended.1)
}

/// Hands bytes on until one side ends, and says so to the other.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, tape: &Bytes) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        // A reset is an end as well.
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let bytes = buffer.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        tape.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        if to.write_all(bytes).await.is_err() {
            // Who does not listen any more may still be speaking.
            return Ok(());
        }
    }
}

fn conversation(client: &[u8], server: &[u8]) -> Conversation {
    let (mut said, mut rest, mut asked) = (Vec::new(), client, 0);
    // Packets without a type, up to the one that begins a session or asks for a cancel.
    while let [a, b, c, d, e, f, g, h, ..] = *rest {
        let (packet, behind) = rest.split_at(length(0, [a, b, c, d]).min(rest.len()));
        let code = u32::from_be_bytes([e, f, g, h]);
        let kept = if code == CANCEL_REQUEST { 8 } else { packet.len() };
        said.push(Message { kind: '·', body: packet.split_at(kept.min(packet.len())).0.to_vec() });
        rest = behind;
        match code {
            SSL_REQUEST | GSSENC_REQUEST => asked += 1,
            _ => break,
        }
    }
    said.extend(typed(rest, |kind, body| if kind == b'p' { Vec::new() } else { body.to_vec() }));
    // A Flush behind a Sync asks for nothing; libpq's pipelines send one when they are fast enough.
    said.dedup_by(|next, before| next.kind == 'H' && before.kind == 'S');
    let (answers, rest) = server.split_at(asked.min(server.len()));
    let mut told: Vec<_> = answers.iter().map(|byte| Message { kind: '·', body: vec![*byte] }).collect();
    told.extend(typed(rest, |kind, body| match (kind, body) {
        (b'K', _) => Vec::new(),
        (b'A', [_, _, _, _, rest @ ..]) => rest.to_vec(),
        // Which way to log in, without salts and nonces; the list of ways (10) is everybody's.
        (b'R', [a, b, c, d, _, ..]) if *d != 10 => vec![*a, *b, *c, *d],
        _ => body.to_vec(),
    }));
    Conversation { client: said, server: told }
}

fn length(kind: usize, bytes: [u8; 4]) -> usize {
    kind + usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX).max(4)
}

/// The messages of a stream; a rest that is none stands at the end as it is.
fn typed(mut rest: &[u8], compared: impl Fn(u8, &[u8]) -> Vec<u8>) -> Vec<Message> {
    let mut messages = Vec::new();
    while let [kind, a, b, c, d, ..] = *rest {
        let whole = length(1, [a, b, c, d]);
        if whole > rest.len() {
            break;
        }
        let (message, behind) = rest.split_at(whole);
        messages.push(Message { kind: char::from(kind), body: compared(kind, message.split_at(5).1) });
        rest = behind;
    }
    if !rest.is_empty() {
        messages.push(Message { kind: '…', body: rest.to_vec() });
    }
    messages
}

/// What differs, in words; nothing when nothing does.
pub fn differences(direct: &[Conversation], through: &[Conversation]) -> Vec<String> {
    let mut found = Vec::new();
    if direct.len() != through.len() {
        found.push(format!("{} connections direct, {} through", direct.len(), through.len()));
    }
    for (number, (a, b)) in direct.iter().zip(through).enumerate() {
        for (who, a, b) in [("client", &a.client, &b.client), ("server", &a.server, &b.server)] {
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            if same < a.len().max(b.len()) {
                let around =
                    |of: &[Message]| of.iter().skip(same.saturating_sub(2)).take(6).cloned().collect::<Vec<_>>();
                found.push(format!(
                    "connection {number}, {who}: {same} messages are the same of {} and {}\n  direct  {:?}\n  through {:?}",
                    a.len(),
                    b.len(),
                    around(a),
                    around(b)
                ));
            }
        }
    }
    found
}
