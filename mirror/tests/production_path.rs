//! What a client and a worker notice of the mirror between them: nothing. A worker that is a script
//! in a thread makes the moments certain that a real server would only sometimes give.

#![expect(clippy::unwrap_used, reason = "all of it is test")]

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use understudy_mirror::{
    mirror::{Mirror, Settings},
    stream::Address,
};

/// Far more than anything here takes, far less than the mirror's own limits.
const LIMIT: Duration = Duration::from_secs(8);
/// Less than the mirror gives those who have something to end.
const AT_ONCE: Duration = Duration::from_secs(3);

fn message(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(u32::try_from(payload.len() + 4).unwrap().to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn read_message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    stream.read_exact(&mut header).unwrap();
    let [tag, a, b, c, d] = header;
    let mut payload = vec![0; u32::from_be_bytes([a, b, c, d]) as usize - 4];
    stream.read_exact(&mut payload).unwrap();
    (tag, payload)
}

/// Starts a mirror in front of a worker that lets a client in and then does as the script says.
fn behind_a_mirror<T: Send + 'static>(
    memory_bytes: usize,
    script: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Arc<Mirror>, TcpStream, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let worker = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        stream.read_exact(&mut startup).unwrap();
        let key = message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
        stream.write_all(&[message(b'R', &[0; 4]), key, message(b'Z', b"I")].concat()).unwrap();
        script(stream)
    });
    let settings = Settings { threads: 1, memory_bytes, ..Settings::new("127.0.0.1:0", worker) };
    let mirror = Mirror::start(&settings).unwrap();
    let client = connect(mirror.address);
    (mirror, client, serving)
}

fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    let body = [&196_608_u32.to_be_bytes()[..], b"user\0ann\0\0"].concat();
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    client.write_all(&[&length[..], &body].concat()).unwrap();
    while read_message(&mut client).0 != b'Z' {}
    client
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_client_that_has_closed_its_sending_half_still_gets_its_answer() {
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, |mut worker| {
        assert_eq!(read_message(&mut worker).0, b'Q');
        let told_of_the_end = worker.read(&mut [0]).unwrap();
        worker.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).unwrap();
        told_of_the_end
    });
    client.write_all(&message(b'Q', b"select 1\0")).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_message(&mut client), (b'C', b"SELECT 1\0".to_vec()));
    assert_eq!(read_message(&mut client).0, b'Z');
    assert_eq!(worker.join().unwrap(), 0, "the worker learns that the client sends no more");
    mirror.stop();
}

#[test]
fn a_worker_learns_at_once_that_a_client_vanished_in_the_middle_of_a_pipeline() {
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, |mut worker| {
        assert_eq!(read_message(&mut worker).0, b'P');
        // No Sync: the server holds its transaction and its locks until it hears more, or the end.
        let begun = Instant::now();
        (worker.read(&mut [0]).unwrap(), begun.elapsed())
    });
    client.write_all(&message(b'P', b"\0update t set a = 1\0\0\0")).unwrap();
    drop(client);
    let (read, waited) = worker.join().unwrap();
    assert_eq!(read, 0);
    assert!(waited < LIMIT);
    mirror.stop();
}

#[test]
fn a_worker_learns_at_once_that_a_client_vanished_in_the_middle_of_a_copy() {
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, |mut worker| {
        assert_eq!(read_message(&mut worker).0, b'Q');
        worker.write_all(&message(b'G', &[0, 0, 0])).unwrap();
        assert_eq!(read_message(&mut worker).0, b'd');
        worker.read(&mut [0]).unwrap()
    });
    client.write_all(&message(b'Q', b"copy t from stdin\0")).unwrap();
    assert_eq!(read_message(&mut client).0, b'G');
    client.write_all(&message(b'd', b"1\n")).unwrap();
    drop(client);
    assert_eq!(worker.join().unwrap(), 0);
    mirror.stop();
}

#[test]
fn the_data_of_a_copy_is_not_kept_beyond_the_memory_limit_even_before_the_copy_ends() {
    let total_bytes = 4 << 20;
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, move |mut worker| {
        assert_eq!(read_message(&mut worker).0, b'Q');
        worker.write_all(&message(b'G', &[0, 0, 0])).unwrap();
        let mut taken = 0;
        loop {
            match read_message(&mut worker) {
                (b'd', data) => taken += data.len(),
                (b'c', _) => break,
                (other, _) => panic!("a message of type {other}"),
            }
        }
        worker.write_all(&[message(b'C', b"COPY 1\0"), message(b'Z', b"I")].concat()).unwrap();
        taken
    });
    client.write_all(&message(b'Q', b"copy t from stdin\0")).unwrap();
    assert_eq!(read_message(&mut client).0, b'G');
    for _ in 0..64 {
        client.write_all(&message(b'd', &vec![b'x'; total_bytes / 64])).unwrap();
    }
    until("capture gives up while the COPY goes on", || !mirror.is_capturing());
    assert_eq!(mirror.dropped_events(), 1, "and says so");
    client.write_all(&message(b'c', b"")).unwrap();
    assert_eq!(read_message(&mut client).0, b'C', "the client feels nothing of it");
    assert_eq!(read_message(&mut client).0, b'Z');
    assert_eq!(worker.join().unwrap(), total_bytes);
    mirror.stop();
}

#[test]
fn a_request_that_is_longer_than_what_may_be_kept_passes_whole_and_is_not_handed_over() {
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, |mut worker| {
        let (tag, body) = read_message(&mut worker);
        worker.write_all(&[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat()).unwrap();
        (tag, body.len())
    });
    let body = vec![b'x'; 3 << 20];
    client.write_all(&message(b'Q', &body)).unwrap();
    assert_eq!(read_message(&mut client).0, b'C');
    assert_eq!(read_message(&mut client).0, b'Z');
    assert_eq!(worker.join().unwrap(), (b'Q', body.len()));
    assert!(!mirror.is_capturing(), "no arm is given half of it");
    assert_eq!(mirror.dropped_events(), 1);
    mirror.stop();
}

/// A stream that has more to say at each look never waits; the look at whether the mirror goes away must not wait for that.
#[test]
fn streams_that_never_rest_end_with_the_mirror() {
    const STREAMS: usize = 6;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let worker = Address::new("127.0.0.1", listener.local_addr().unwrap().port());
    let settings = Settings { threads: 1, ..Settings::new("127.0.0.1:0", worker) };
    let mirror = Mirror::start(&settings).unwrap();
    let piece = message(b'd', &vec![0; 4 << 20]);
    let taken_bytes = Arc::new(AtomicUsize::new(0));
    let mut ends = Vec::new();
    for _ in 0..STREAMS {
        let mut client = TcpStream::connect(mirror.address).unwrap();
        let body = [&196_608_u32.to_be_bytes()[..], b"user\0ann\0replication\0true\0\0"].concat();
        client.write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes()).unwrap();
        client.write_all(&body).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&[message(b'R', &[0; 4]), message(b'Z', b"I")].concat()).unwrap();
        let (piece, taken_bytes) = (piece.clone(), Arc::clone(&taken_bytes));
        ends.push(thread::spawn(move || while stream.write_all(&piece).is_ok() {}));
        ends.push(thread::spawn(move || {
            let mut taken = vec![0; 4 << 20];
            while let Ok(read @ 1..) = client.read(&mut taken) {
                taken_bytes.fetch_add(read, Ordering::Relaxed);
            }
        }));
    }
    until("all of them stream", || taken_bytes.load(Ordering::Relaxed) > STREAMS * piece.len() * 8);
    let begun = Instant::now();
    mirror.stop();
    println!("the mirror has ended after {:?}", begun.elapsed());
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    for end in ends {
        end.join().unwrap();
    }
}

#[test]
fn the_last_words_of_a_worker_reach_the_client() {
    let fatal = message(b'E', b"SFATAL\0C57P01\0Mgoing away\0\0");
    let expected = fatal.clone();
    let (mirror, mut client, worker) = behind_a_mirror(1 << 20, move |mut worker| {
        assert_eq!(read_message(&mut worker).0, b'Q');
        worker.write_all(&fatal).unwrap();
    });
    client.write_all(&message(b'Q', b"select 1\0")).unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, expected);
    worker.join().unwrap();
    mirror.stop();
}
