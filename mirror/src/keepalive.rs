//! When a peer over TCP that says nothing any more is given up: the worker of a client whose machine has died, and a
//! client of a worker's. Without a mirror each of the two looks after the other; with one in between the mirror has to, in
//! both directions. Names and meanings are PostgreSQL's (`tcp_keepalives_idle` and its kin, "Connections and
//! Authentication"). Must not choose the times for a client: they are the worker's, or whoever's who set the mirror up.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::stream::Stream;

/// The times; what is not set is as the system has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// So long nothing is heard of the peer before it is asked for a sign of life.
    pub idle: Option<Duration>,
    /// So long each sign is waited for.
    pub interval: Option<Duration>,
    /// So many are missed before the connection is given up.
    pub count: Option<u32>,
    /// So long what was sent may be unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// The worker is asked for a sign of life so early where nobody says when. A client's own signs end at the mirror: one that
/// would have noticed that the worker's machine has died waits for the mirror to.
const OF_A_WORKER: Keepalive = Keepalive {
    idle: Some(Duration::from_secs(30)),
    interval: Some(Duration::from_secs(10)),
    count: Some(6),
    user_timeout: None,
};

impl Keepalive {
    /// The same for a connection to the worker. How long it may leave unread what is sent, its client decides, and by itself
    /// waits for ever: a COPY behind a lock is not read for as long as the lock is held.
    #[must_use]
    pub fn of_the_worker(self) -> Self {
        Self {
            idle: self.idle.or(OF_A_WORKER.idle),
            interval: self.interval.or(OF_A_WORKER.interval),
            count: self.count.or(OF_A_WORKER.count),
            user_timeout: None,
        }
    }

    /// Sets them on a connection, where it is one over TCP.
    pub fn apply(self, stream: &Stream) {
        let Stream::Tcp(stream) = stream else { return };
        let Self { idle, interval, count, user_timeout } = self;
        let socket = SockRef::from(stream);
        let mut times = TcpKeepalive::new();
        times = idle.map_or(times.clone(), |idle| times.with_time(idle));
        times = interval.map_or(times.clone(), |interval| times.with_interval(interval));
        times = count.map_or(times.clone(), |count| times.with_retries(count));
        // The peer may be gone already; the first read tells.
        if idle.is_some() || interval.is_some() || count.is_some() {
            let _ = socket.set_tcp_keepalive(&times);
        }
        if user_timeout.is_some() {
            let _ = socket.set_tcp_user_timeout(user_timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_is_set_is_set_and_the_rest_is_the_system_s() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = Stream::Tcp(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let Stream::Tcp(tcp) = &stream else { panic!() };
        let socket = SockRef::from(tcp);
        let found = || (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap());
        let (idle, retries) = found();
        Keepalive::default().apply(&stream);
        assert_eq!(found(), (idle, retries));
        assert_eq!((socket.keepalive().unwrap(), socket.tcp_user_timeout().unwrap()), (false, None));
        let seconds = Duration::from_secs;
        let times = Keepalive { idle: Some(seconds(61)), count: Some(3), ..Keepalive::default() };
        times.apply(&stream);
        assert_eq!((found(), socket.keepalive().unwrap()), ((seconds(61), 3), true));
        Keepalive { user_timeout: Some(seconds(90)), interval: Some(seconds(7)), ..times }.apply(&stream);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(7));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(90)));
    }

    #[test]
    fn a_worker_is_asked_soon_and_may_leave_unread_what_it_likes() {
        let times = Keepalive {
            idle: Some(Duration::from_secs(61)),
            user_timeout: Some(Duration::from_secs(3)),
            ..Keepalive::default()
        };
        assert_eq!(times.of_the_worker(), Keepalive { idle: times.idle, ..OF_A_WORKER });
        assert_eq!(Keepalive::default().of_the_worker(), OF_A_WORKER);
    }
}
