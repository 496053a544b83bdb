//! Accepts clients: one thread per core, each with its own reactor and its own listening socket on the
//! shared port, so that a session lives on one core.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::TaskTracker;

use super::{
    run_queue::RunQueue,
    session::{self, Production},
};
use crate::stream::Stream;

/// Longer than any mirror runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Why the mirror can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is no address.
    #[error("`{0}` is not an address to listen on: HOST:PORT")]
    Address(String),
    /// The port is taken, or may not be used.
    #[error("can't listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error("can't start a thread of the production path: {0}")]
    Thread(io::Error),
}

/// Sockets that listen, one for each thread.
#[derive(Debug)]
pub struct Listener {
    /// Where clients connect.
    pub address: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
}

/// Binds without accepting yet.
pub fn bind(listen: &str, threads: usize) -> Result<Listener, ListenError> {
    let wrong = || ListenError::Address(listen.to_owned());
    let mut address = listen.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)?;
    let mut sockets = Vec::with_capacity(threads);
    // The first socket finds out whether somebody else has the port; the others share it.
    let probe = socket(address, false).map_err(|error| ListenError::Bind { address, error })?;
    address = probe.local_addr().map_err(|error| ListenError::Bind { address, error })?;
    drop(probe);
    for _ in 0..threads {
        sockets.push(socket(address, true).map_err(|error| ListenError::Bind { address, error })?);
    }
    Ok(Listener { address, sockets })
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it. Without it a client whose machine has died would keep its backend, and
    // the locks of its transaction, for ever; PostgreSQL sets it on its own clients.
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Serves until told to stop; then waits for the sessions to end, at most `drain`.
pub fn start(
    listener: Listener,
    production: &Arc<Production>,
    run_queue: &Arc<RunQueue>,
    stop: &watch::Receiver<bool>,
    drain: Duration,
) -> Result<Vec<thread::JoinHandle<()>>, ListenError> {
    let mut threads = Vec::new();
    for (index, socket) in listener.sockets.into_iter().enumerate() {
        let (production, run_queue, mut stop) = (Arc::clone(production), Arc::clone(run_queue), stop.clone());
        let body = move || {
            run_queue.join(index);
            let building =
                tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(FOR_EVER).build();
            let runtime = match building {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "no runtime for the production path"),
            };
            // The thread for what would hold up all sessions is there from the beginning: to find that there is room for
            // none would end the session that asks for it.
            drop(runtime.spawn_blocking(|| ()));
            let sessions = TaskTracker::new();
            let accepted = sessions.clone();
            // A task of its own: what the runtime itself waits for is polled whenever one of the sessions is.
            let accepting = runtime.spawn(async move {
                tokio::select! {
                    () = accept(socket, &production, &accepted, index) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            });
            if let Err(error) = runtime.block_on(accepting) {
                tracing::error!(%error, "a production thread takes no more clients");
            }
            // No new clients; those that are there leave between two transactions.
            sessions.close();
            let _ = runtime.block_on(async { tokio::time::timeout(drain, sessions.wait()).await });
            // A look-up of the worker's name that hangs is waited for by nobody.
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name(format!("production-{index}")).spawn(body);
        threads.push(thread.map_err(ListenError::Thread)?);
    }
    Ok(threads)
}

async fn accept(socket: std::net::TcpListener, production: &Arc<Production>, sessions: &TaskTracker, thread: usize) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the listening socket is unusable"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Without it every small answer would wait for the client's acknowledgement.
                let _ = stream.set_nodelay(true);
                sessions.spawn(session::serve(Arc::clone(production), Stream::Tcp(stream), thread));
            }
            Err(error) => {
                // Out of file descriptors: clients wait in the backlog until some are free.
                tracing::warn!(%error, "can't accept a client");
                production.counters.unaccepted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
