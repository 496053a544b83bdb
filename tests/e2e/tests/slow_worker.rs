//! A worker that stops taking what it is sent: its client is made to wait, the mirror keeps nothing of it, and when the
//! worker goes on, all arrives.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};
use understudy_e2e::{
    raw::Raw,
    stage::Servers,
    wire::{message, query},
};
use understudy_harness::Paused;

const MIB: usize = 1 << 20;
const COPIED: &str = "CREATE UNLOGGED TABLE copied (t text)";
/// A row of a mebibyte, and how many of them.
const ROWS: usize = 200;
/// What sockets may hold on the way, and no more.
const MOST_SENT: usize = 64;
/// The same as in `large.rs`.
const MOST_MIB: u64 = 160;
/// Who has not got rid of anything for so long is waiting for somebody.
const STILL: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a count stands still or has come to its end; where it stands.
async fn standing(count: &AtomicUsize) -> usize {
    let end = Instant::now() + LIMIT;
    let (mut seen, mut since) = (count.load(Ordering::Relaxed), Instant::now());
    while seen < ROWS && since.elapsed() < STILL {
        assert!(Instant::now() < end, "{seen} of {ROWS} and still moving");
        sleep(Duration::from_millis(20)).await;
        let now = count.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_makes_its_client_wait_and_gets_all_when_it_goes_on() {
    let servers = Servers::start(2, COPIED).await;
    let arms = servers.addresses();
    let stage = servers.mirror("16Mi", &arms).await;
    let mut client = Raw::login(stage.through).await;
    client.send(&query("COPY copied FROM STDIN")).await;
    client.until(b'G').await;

    let paused = Paused::all_of(&stage.servers.worker);
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let uploading = tokio::spawn(async move {
        let row = [vec![b'x'; MIB - 1], vec![b'\n']].concat();
        for _ in 0..ROWS {
            client.send(&message(b'd', &row)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
        client.send(&message(b'c', &[])).await;
        client
    });
    let rows = standing(&sent).await;
    let (now, most) = stage.memory_mib();
    println!("{rows} MiB of {ROWS} are on their way, and the mirror's memory is {now} MiB, at most {most} MiB");
    assert!(rows < MOST_SENT, "the client got rid of {rows} MiB, which nobody has taken");
    assert!(most < MOST_MIB, "{most} MiB while the worker is still");

    drop(paused);
    let mut client = uploading.await.expect("all is sent");
    client.until(b'Z').await;
    let worker = stage.servers.worker.connect().await;
    let whole = format!("SELECT count(*), bool_and(t = repeat('x', {})) FROM copied", MIB - 1);
    let row = worker.query_one(&whole, &[]).await.expect("what was copied");
    assert_eq!((usize::try_from(row.get::<_, i64>(0)).ok(), row.get::<_, bool>(1)), (Some(ROWS), true));
    let (_, most) = stage.memory_mib();
    assert!(most < MOST_MIB, "{most} MiB after it");
    client.leave().await;
    stage.end().await;
}
