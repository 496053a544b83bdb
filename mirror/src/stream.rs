//! A connection to a PostgreSQL server or from a client: TCP or a unix socket.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    str::FromStr,
    task::{Context, Poll},
    time::Duration,
};

use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::setsockopt};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
    time::{sleep, timeout},
};

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host and port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// The directory of a unix socket and the port in its name.
    Unix {
        /// Directory.
        directory: PathBuf,
        /// Port.
        port: u16,
    },
}

/// An address that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: HOST:PORT, or the directory of a unix socket and its port, /run/postgresql:5432")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let fail = || AddressError(s.to_owned());
        let (host, port) = s.rsplit_once(':').ok_or_else(fail)?;
        let port: u16 = port.parse().map_err(|_| fail())?;
        if host.is_empty() {
            return Err(fail());
        }
        Ok(Self::new(host, port))
    }
}

impl Address {
    /// From a host, or the directory of a unix socket (it begins with `/`), and a port.
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            Self::Unix { directory: host.into(), port }
        } else {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Self::Tcp { host: host.to_owned(), port }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { directory, port } => write!(f, "{}:{port}", directory.display()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP, without Nagle's delay.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

sockopt_impl!(
    /// How many bytes make a socket ready to be read ("SO_RCVLOWAT", socket(7)).
    LowWaterMark, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, u32
);

/// How soon a connection is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// What passes by itself: the queue of a unix socket that is full, where TCP would wait, and that no file is left, or no
/// port.
fn passes(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl Stream {
    /// Connects, or fails within `limit`.
    pub async fn connect(address: &Address, limit: Duration) -> io::Result<Self> {
        let mut passing = None;
        let connecting = async {
            loop {
                match Self::connect_now(address).await {
                    Err(error) if passes(&error) => passing = Some(error),
                    other => return other,
                }
                sleep(AGAIN).await;
            }
        };
        let connected = timeout(limit, connecting).await;
        connected.unwrap_or_else(|_| Err(passing.unwrap_or_else(|| io::ErrorKind::TimedOut.into())))
    }

    async fn connect_now(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                // As PostgreSQL does: a peer whose machine has died is noticed one day.
                SockRef::from(&stream).set_keepalive(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix { directory, port } => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                Ok(Self::Unix(UnixStream::connect(path).await?))
            }
        }
    }

    /// Waits until it can be read or written, as asked. One task may wait for a stream at a time.
    ///
    /// tokio keeps a place for one waiting task each way; its own `ready` is for any number, whose list is locked and
    /// changed for every wait.
    pub async fn ready(&self, interest: Interest) -> io::Result<()> {
        poll_fn(|context| self.poll_ready(context, interest)).await
    }

    /// Whether it can be read or written, as asked; the task is woken when it can be.
    pub fn poll_ready(&self, context: &mut Context<'_>, interest: Interest) -> Poll<io::Result<()>> {
        if interest.is_readable()
            && let ready @ Poll::Ready(_) = self.poll_read_ready(context)
        {
            return ready;
        }
        if interest.is_writable() { self.poll_write_ready(context) } else { Poll::Pending }
    }

    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        }
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(context),
            Self::Unix(stream) => stream.poll_write_ready(context),
        }
    }

    /// It is ready to be read, from now on, when so many bytes are there, and at its end. Where fewer than that many are
    /// there already and it is for fewer now, that is told at once (Linux: `tcp_set_rcvlowat`). A unix socket is ready
    /// whatever is there.
    pub fn wake_for(&self, bytes: u32) {
        if let Self::Tcp(stream) = self {
            // A connection that is gone is ready anyway.
            let _ = setsockopt(stream, LowWaterMark, &bytes);
        }
    }

    /// Reads what is there.
    ///
    /// A read that leaves room in the buffer has emptied the socket: its readiness ends with it, and the next
    /// read asks the kernel only when more has come. That saves a system call a message each way; tokio's own
    /// asynchronous reads do the same.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut partly = None;
        let mut read = |socket: BorrowedFd<'_>| {
            let (_, read) = recv(socket, &mut *buffer, RecvFlags::empty())?;
            if 0 < read && read < buffer.len() {
                partly = Some(read);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(read)
        };
        let result = match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, || read(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, || read(stream.as_fd())),
        };
        partly.map_or(result, Ok)
    }

    /// Writes what fits.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let write = |socket: BorrowedFd<'_>| Ok(send(socket, bytes, SendFlags::NOSIGNAL)?);
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, || write(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(Interest::WRITABLE, || write(stream.as_fd())),
        }
    }

    /// Tells the other side that nothing more will be sent; what was sent still arrives. It may be gone already.
    pub fn shutdown_write(&self) {
        let _ = match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        };
    }

    /// Writes all of it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(Interest::WRITABLE).await?;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Reads something; 0 at the end of the stream.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(Interest::READABLE).await?;
                }
                other => return other,
            }
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    /// As PostgreSQL's, when as many clients come at once as its queue holds.
    #[tokio::test]
    async fn a_unix_socket_whose_queue_is_full_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix { directory: directory.path().to_owned(), port: 1 };
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(directory.path().join(".s.PGSQL.1")).unwrap()).unwrap();
        socket.listen(1).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match Stream::connect(&address, Duration::from_millis(50)).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert!(!waiting.is_empty() && refused.kind() == io::ErrorKind::WouldBlock, "{refused}");
        let (connected, ()) = tokio::join!(Stream::connect(&address, Duration::from_secs(20)), async {
            sleep(Duration::from_millis(30)).await;
            drop(socket.accept().unwrap());
        });
        assert!(connected.is_ok(), "{connected:?}");
    }

    #[test]
    fn addresses_are_printed_as_they_are_read() {
        for text in ["localhost:5432", "10.0.0.1:1", "[::1]:5432", "/run/postgresql:5433"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "localhost", ":5432", "host:x", "host:70000"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
