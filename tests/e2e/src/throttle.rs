//! A relay that turns an arm slow: once told, what the server answers goes on byte by byte.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// One byte takes so long.
const A_BYTE: Duration = Duration::from_secs(1);

/// The relay. It ends with the test.
#[derive(Debug)]
pub struct Throttle {
    /// Where it listens.
    pub address: SocketAddr,
    slow: watch::Sender<bool>,
}

impl Throttle {
    /// Starts it in front of a server, as quick as the server.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let (slow, is_slow) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(server).await.expect("the server");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("no delay");
                }
                let ((mut asks, told), (answers, mut asked)) = (client.into_split(), server.into_split());
                tokio::spawn(async move { copy(&mut asks, &mut asked).await });
                tokio::spawn(answer(answers, told, is_slow.clone()));
            }
        });
        Self { address, slow }
    }

    /// From now on a byte a second.
    pub fn slow_down(&self) {
        self.slow.send_replace(true);
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, slow: watch::Receiver<bool>) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(1..) = async {
        let most = if *slow.borrow() { 1 } else { buffer.len() };
        let read = from.read(buffer.get_mut(..most).unwrap_or_default()).await?;
        if *slow.borrow() {
            sleep(A_BYTE).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        std::io::Result::Ok(read)
    }
    .await
    {}
}
