//! Which production thread a client's session lives on: the one with the fewest. The kernel gives a connection to any of
//! the listening sockets, by a hash of its addresses; of 16 clients one thread then often has twice as many as another, and is
//! what they all wait for. A session stays where it has begun. Must not look into a connection.

use std::io;

use tokio::{net::TcpStream, sync::mpsc};
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// So many clients may be on their way to a thread; whoever accepts one more keeps it.
const ON_THEIR_WAY: usize = 64;

/// The sessions of all production threads.
#[derive(Debug)]
pub struct Seats(Box<[Seat]>);

#[derive(Debug)]
struct Seat {
    sessions: TaskTracker,
    given: mpsc::Sender<Given>,
}

/// A client that another thread has accepted.
#[derive(Debug)]
pub struct Given {
    /// Its connection.
    pub client: std::net::TcpStream,
    /// By which it is counted already among the sessions of the thread that it is given to.
    pub seat: TaskTrackerToken,
}

impl Seats {
    /// For so many threads; and what each is given by the others.
    pub fn new(threads: usize) -> (Self, Vec<mpsc::Receiver<Given>>) {
        let seat = |_| {
            let (given, receives) = mpsc::channel(ON_THEIR_WAY);
            (Seat { sessions: TaskTracker::new(), given }, receives)
        };
        let (seats, receive): (Vec<_>, Vec<_>) = (0..threads).map(seat).unzip();
        (Self(seats.into()), receive)
    }

    /// The sessions of a thread.
    pub fn of(&self, thread: usize) -> Option<&TaskTracker> {
        self.0.get(thread).map(|seat| &seat.sessions)
    }

    /// Gives a client that a thread has accepted to the thread with the fewest sessions. It is handed back where that is
    /// the thread itself, or one that takes nobody now.
    pub fn give(&self, client: TcpStream, from: usize) -> io::Result<Option<TcpStream>> {
        // A thread that has ended takes nobody.
        let sessions = |seat: &Seat| if seat.given.is_closed() { usize::MAX } else { seat.sessions.len() };
        let sessions: Vec<usize> = self.0.iter().map(sessions).collect();
        let Some(seat) = fewest(&sessions, from).and_then(|thread| self.0.get(thread)) else { return Ok(Some(client)) };
        let Ok(place) = seat.given.try_reserve() else { return Ok(Some(client)) };
        place.send(Given { client: client.into_std()?, seat: seat.sessions.token() });
        Ok(None)
    }
}

/// The thread with the fewest sessions, unless this one has as few.
fn fewest(sessions: &[usize], this: usize) -> Option<usize> {
    let (thread, least) = sessions.iter().enumerate().min_by_key(|(_, sessions)| **sessions)?;
    sessions.get(this).is_none_or(|own| least < own).then_some(thread)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_client_stays_where_it_was_accepted_unless_another_thread_has_fewer() {
        for (sessions, this, thread) in [
            (vec![0], 0, None),
            (vec![3, 3], 1, None),
            (vec![3, 2], 1, None),
            (vec![3, 2], 0, Some(1)),
            (vec![5, 1, 0, 1], 1, Some(2)),
        ] {
            assert_eq!(fewest(&sessions, this), thread, "{sessions:?}, {this}");
        }
    }

    #[tokio::test]
    async fn clients_that_one_thread_accepts_are_shared_before_anybody_serves_them() {
        let (seats, mut given) = Seats::new(2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut kept, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (client, _) = listener.accept().await.unwrap();
            if let Some(client) = seats.give(client, 0).unwrap() {
                kept.push((client, seats.of(0).unwrap().token()));
            }
        }
        let [none, some] = given.as_mut_slice() else { panic!("two threads") };
        assert_eq!((kept.len(), none.len(), some.len()), (3, 0, 3));
        // One that has gone is not counted any more; a thread that has ended is given nobody.
        drop(some.recv().await);
        assert_eq!(seats.of(1).unwrap().len(), 2);
        some.close();
        let (client, _) = tokio::join!(listener.accept(), TcpStream::connect(listener.local_addr().unwrap()));
        assert!(seats.give(client.unwrap().0, 0).unwrap().is_some());
    }
}
