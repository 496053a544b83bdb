//! Accepts clients: as many threads as are set, each with its own reactor and its own listening socket on the
//! shared port. A session lives on one thread; which, is decided in `seats.rs`.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use super::{
    processors::Tenant,
    run_queue::RunQueue,
    seats::{Given, Seats},
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
    let count = listener.sockets.len();
    let (seats, given) = Seats::new(count);
    let seats = Arc::new(seats);
    for (index, (socket, given)) in listener.sockets.into_iter().zip(given).enumerate() {
        let (run_queue, mut stop) = (Arc::clone(run_queue), stop.clone());
        let takes = Takes { production: Arc::clone(production), seats: Arc::clone(&seats), thread: index };
        let body = move || {
            run_queue.join(index);
            let mut building = tokio::runtime::Builder::new_current_thread();
            building.enable_all().thread_keep_alive(FOR_EVER);
            let tenant = Tenant::new(index, count);
            if let Some(tenant) = tenant {
                // What takes long is not done where this thread happens to stay.
                building.on_thread_start(move || tenant.lets_go());
            }
            let runtime = match building.build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::error!(%error, "no runtime for the production path"),
            };
            // The thread for what would hold up all sessions is there from the beginning: to find that there is room for
            // none would end the session that asks for it.
            drop(runtime.spawn_blocking(|| ()));
            if let Some(tenant) = tenant {
                drop(runtime.spawn(tenant.keep(run_queue)));
            }
            let sessions = takes.seats.of(index).cloned().unwrap_or_default();
            // A task of its own: what the runtime itself waits for is polled whenever one of the sessions is.
            let accepting = runtime.spawn(async move {
                let mut given = given;
                tokio::select! {
                    () = takes.accept(socket) => {}
                    () = takes.receive(&mut given) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
                // Who is on the way here was accepted: nobody is left waiting for an answer.
                given.close();
                takes.receive(&mut given).await;
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

/// How a thread comes by its clients.
struct Takes {
    production: Arc<Production>,
    seats: Arc<Seats>,
    thread: usize,
}

impl Takes {
    async fn accept(&self, socket: std::net::TcpListener) {
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "the listening socket is unusable"),
        };
        loop {
            let accepted = listener.accept().await;
            match accepted.and_then(|(client, _)| self.seats.give(client, self.thread)) {
                Ok(Some(client)) => self.serve(client),
                Ok(None) => {}
                Err(error) => {
                    // Out of file descriptors: clients wait in the backlog until some are free.
                    self.note_unaccepted(&error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Takes what the other threads give, as long as they may.
    async fn receive(&self, given: &mut mpsc::Receiver<Given>) {
        while let Some(Given { client, seat }) = given.recv().await {
            match TcpStream::from_std(client) {
                Ok(client) => self.serve(client),
                Err(error) => self.note_unaccepted(&error),
            }
            // The session is counted by itself now.
            drop(seat);
        }
    }

    fn serve(&self, client: TcpStream) {
        // Without it every small answer would wait for the client's acknowledgement.
        let _ = client.set_nodelay(true);
        if let Some(sessions) = self.seats.of(self.thread) {
            sessions.spawn(session::serve(Arc::clone(&self.production), Stream::Tcp(client), self.thread));
        }
    }

    fn note_unaccepted(&self, error: &io::Error) {
        tracing::warn!(%error, "can't accept a client");
        self.production.counters.unaccepted.fetch_add(1, Ordering::Relaxed);
    }
}
