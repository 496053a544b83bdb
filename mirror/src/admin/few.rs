//! A listener that serves few connections at a time, and none for long that says nothing: each takes one of the files that
//! production's clients are served with. Must not refuse anybody: who comes waits in the kernel's queue.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// So many are served at a time: a few who scrape and probe, and people.
const MOST: usize = 64;
/// A connection on which so long nothing comes is closed. Who comes again connects anew.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// The listener.
#[derive(Debug)]
pub struct Few {
    listener: TcpListener,
    places: Arc<Semaphore>,
    quiet_limit: Duration,
}

impl Few {
    /// As few of this listener's as production can spare.
    pub fn of(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(MOST)), quiet_limit: QUIET_LIMIT }
    }
}

impl Listener for Few {
    type Io = Served;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Served, SocketAddr) {
        // Nobody closes it.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let quiet_limit = self.quiet_limit;
        (Served { stream, quiet: Box::pin(sleep(quiet_limit)), quiet_limit, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One that is served.
#[derive(Debug)]
pub struct Served {
    stream: TcpStream,
    /// Until when something has to come.
    quiet: Pin<Box<Sleep>>,
    quiet_limit: Duration,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            let until = Instant::now() + self.quiet_limit;
            self.quiet.as_mut().reset(until);
            return read;
        }
        self.quiet.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn of(most: usize, quiet_limit: Duration) -> (SocketAddr, Arc<Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, places) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(most)));
        let few = Few { listener, places: Arc::clone(&places), quiet_limit };
        let router = axum::Router::new().route("/", axum::routing::get(async || "served\n"));
        tokio::spawn(async move { axum::serve(few, router).await });
        (address, places)
    }

    async fn served(mut client: TcpStream) -> bool {
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(LIMIT, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer.ends_with("served\n")
    }

    #[tokio::test]
    async fn who_comes_when_all_places_are_taken_is_served_when_one_is_free() {
        let (address, places) = of(2, LIMIT).await;
        let idle = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let third = TcpStream::connect(address).await.unwrap();
        let taken = async {
            while places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, taken).await.unwrap();
        let served = tokio::spawn(served(third));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!served.is_finished());
        drop(idle);
        assert!(timeout(LIMIT, served).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn who_says_nothing_is_not_waited_for() {
        let (address, _) = of(1, Duration::from_millis(50)).await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        let ended = timeout(LIMIT, silent.read(&mut [0; 16])).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(served(TcpStream::connect(address).await.unwrap()).await);
    }
}
