//! One end of a connection that does as it is told: a scripted client or a scripted server. It remembers what
//! it could send and what it got, and judges nothing.

use std::{cell::RefCell, collections::VecDeque, io, rc::Rc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::mpsc,
    task::yield_now,
};

/// A socket of any kind.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

/// What an end is told to do.
#[derive(Debug)]
pub enum Order {
    /// To send this in one write, if it can be.
    Send(Vec<u8>),
    /// To send no more after what it was told before.
    SendNoMore,
    /// To be gone, whatever is under way.
    Vanish,
    /// To read, or not to.
    Read(bool),
    /// To send no more when so many bytes have come.
    SendNoMoreBehind(usize),
    /// To close when the other end has.
    Finish,
}

/// What an end has seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// It has been connected.
    pub connected: bool,
    /// Bytes that its socket took.
    pub sent: usize,
    /// Bytes that it got.
    pub received: Vec<u8>,
    /// The other end has closed.
    pub ended: bool,
}

/// Where the others look.
pub type Shared = Rc<RefCell<Seen>>;

/// Does what it is told until it is closed. `closes_alone`: it closes as soon as the other end has, as a client
/// does; else only when it was told to finish.
pub async fn live(wire: Box<dyn Wire>, mut orders: mpsc::UnboundedReceiver<Order>, seen: Shared, closes_alone: bool) {
    seen.borrow_mut().connected = true;
    let (mut reader, mut writer) = split(wire);
    let mut queue: VecDeque<Option<Vec<u8>>> = VecDeque::new();
    let mut buffer = vec![0; 16 * 1024];
    let (mut reads, mut ended, mut finishes, mut deaf) = (true, false, closes_alone, false);
    let mut parts_behind = None;
    loop {
        if ended && finishes && queue.is_empty() {
            return;
        }
        if parts_behind.take_if(|bytes| seen.borrow().received.len() >= *bytes).is_some() {
            queue.push_back(None);
        }
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Send(bytes)) => queue.push_back(Some(bytes)),
                Some(Order::SendNoMore) => queue.push_back(None),
                Some(Order::SendNoMoreBehind(bytes)) => parts_behind = Some(bytes),
                Some(Order::Read(yes)) => reads = yes,
                Some(Order::Finish) => (finishes, reads) = (true, true),
                Some(Order::Vanish) | None => return,
            },
            sent = send(&mut writer, queue.front()), if !queue.is_empty() => {
                let done = match (sent, queue.front_mut()) {
                    (Ok(bytes), Some(Some(front))) => {
                        seen.borrow_mut().sent += bytes;
                        front.drain(..bytes);
                        front.is_empty()
                    }
                    (Ok(_), _) => true,
                    (Err(_), _) => {
                        deaf = true;
                        true
                    }
                };
                if done {
                    queue.pop_front();
                    // So that each write has a chance to arrive by itself.
                    yield_now().await;
                }
                if deaf {
                    queue.clear();
                }
            },
            read = reader.read(&mut buffer), if reads && !ended => match read {
                Ok(0) | Err(_) => {
                    ended = true;
                    seen.borrow_mut().ended = true;
                    if closes_alone {
                        queue.clear();
                    }
                }
                Ok(bytes) => seen.borrow_mut().received.extend_from_slice(buffer.get(..bytes).unwrap_or_default()),
            },
        }
    }
}

/// Sends some of it; nothing: that there will be no more.
async fn send(writer: &mut (impl AsyncWrite + Unpin), front: Option<&Option<Vec<u8>>>) -> io::Result<usize> {
    match front {
        Some(Some(bytes)) if !bytes.is_empty() => writer.write(bytes).await,
        Some(None) => writer.shutdown().await.map(|()| 0),
        _ => Ok(0),
    }
}
