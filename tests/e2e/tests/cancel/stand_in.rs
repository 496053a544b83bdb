//! A stand-in for a server that speaks protocol 3.2, which PostgreSQL 15 does not: whoever asks for 3.2 gets a key of
//! 256 bytes. It answers whatever it is asked for, but for [`SLOW`], which lasts until it is cancelled.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};
use understudy_e2e::{raw::startup, wire::message};

const LIMIT: Duration = Duration::from_secs(20);
const CANCEL: u32 = 80_877_102;
/// Protocol 3.0: the key has 4 bytes.
pub const V3_0: u32 = 3 << 16;
/// Protocol 3.2: the key has as many as the server likes, up to 256.
pub const V3_2: u32 = (3 << 16) | 2;
/// A read that lasts until it is cancelled.
pub const SLOW: &str = "SELECT pg_sleep(600)";

/// What it was asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// For a session, in this version of the protocol.
    Session(u32),
    /// A query.
    Query(String),
    /// A cancel, by this packet.
    Cancel(Vec<u8>),
}

/// A running one.
#[derive(Debug)]
pub struct StandIn {
    /// Where it is.
    pub address: SocketAddr,
    id: u8,
    asked: mpsc::Receiver<Asked>,
}

/// The startup packet of a session in this version of the protocol.
pub fn asking_for(version: u32) -> Vec<u8> {
    let mut packet = startup("postgres");
    packet.splice(4..8, version.to_be_bytes());
    packet
}

fn key(id: u8, version: u32) -> Vec<u8> {
    let secret: Vec<u8> = (0..=255).map(|byte| byte ^ id).collect();
    let bytes = if version == V3_2 { secret.len() } else { 4 };
    [&[0, 0, 4, id], secret.split_at(bytes).0].concat()
}

impl StandIn {
    /// Starts one; keys of those with different `id` differ.
    pub async fn start(id: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let (told, asked) = mpsc::channel(16);
        tokio::spawn(async move {
            let cancelled = Arc::new(Notify::new());
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, id, told.clone(), Arc::clone(&cancelled)));
            }
        });
        Self { address, id, asked }
    }

    /// The payload of its BackendKeyData.
    pub fn key(&self, version: u32) -> Vec<u8> {
        key(self.id, version)
    }

    /// What it was asked next.
    pub async fn asked(&mut self) -> Asked {
        timeout(LIMIT, self.asked.recv()).await.expect("it is asked in time").expect("it runs")
    }
}

async fn serve(mut client: TcpStream, id: u8, told: mpsc::Sender<Asked>, cancelled: Arc<Notify>) {
    let length = client.read_u32().await.expect("a packet");
    let version = client.read_u32().await.expect("a version");
    let mut rest = vec![0; length as usize - 8];
    client.read_exact(&mut rest).await.expect("a whole packet");
    if version == CANCEL {
        let packet = [&length.to_be_bytes()[..], &version.to_be_bytes(), &rest].concat();
        told.send(Asked::Cancel(packet)).await.expect("the test listens");
        return cancelled.notify_one();
    }
    told.send(Asked::Session(version)).await.expect("the test listens");
    let login = [message(b'R', &[0; 4]), message(b'K', &key(id, version)), message(b'Z', b"I")].concat();
    client.write_all(&login).await.expect("sent");
    // Until the client goes.
    while let Ok(b'Q') = client.read_u8().await {
        let length = client.read_u32().await.expect("a length") as usize;
        let mut sql = vec![0; length - 4];
        client.read_exact(&mut sql).await.expect("a whole query");
        sql.pop();
        let sql = String::from_utf8(sql).expect("a text");
        let slow = sql == SLOW;
        told.send(Asked::Query(sql)).await.expect("the test listens");
        let answer = if slow {
            cancelled.notified().await;
            message(b'E', b"SERROR\0VERROR\0C57014\0Mcanceling statement due to user request\0\0")
        } else {
            message(b'C', b"SELECT 0\0")
        };
        client.write_all(&[answer, message(b'Z', b"I")].concat()).await.expect("sent");
    }
}
