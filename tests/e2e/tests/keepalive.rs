//! A peer whose machine has died is asked for a sign of life as soon as the worker would ask: both of the mirror's
//! connections are. That the system gives up one that does not answer is the system's; it is told when to ask.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, net::SocketAddr};

use understudy_e2e::{application::connect, stage::Servers};
use understudy_harness::wait_until;

/// The kernel's timer of a connection that is idle.
const KEEPALIVE: &str = "02";
/// Its unit, a hundredth of a second.
const TICKS: u64 = 100;

/// In how many seconds the connections from or to this port are asked for a sign of life, as the kernel has it.
/// `/proc/net/tcp`: addresses and timers in hexadecimal numbers.
fn asked_in(port: u16, of_listener: bool) -> Vec<u64> {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let seconds = |line: &str| -> Option<u64> {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, "01", _, timer, ..] = words[..] else { return None };
        let (_, found) = if of_listener { local } else { remote }.split_once(':')?;
        let (kind, ticks) = timer.split_once(':')?;
        let is_it = u16::from_str_radix(found, 16).ok()? == port && kind == KEEPALIVE;
        is_it.then(|| u64::from_str_radix(ticks, 16).ok().map(|ticks| ticks / TICKS))?
    };
    table.lines().filter_map(seconds).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_connections_of_a_session_are_asked_for_a_sign_of_life_when_it_is_said() {
    let servers = Servers::start(0, "SELECT 1").await;
    let worker = SocketAddr::from(([127, 0, 0, 1], servers.worker.port()));
    let stage = servers.mirror_with(worker, "tcpKeepalive: { idle: 61s, interval: 7s, count: 3 }\n", &[]).await;
    let client = connect(stage.through).await.expect("a session");
    client.batch_execute("SELECT 1").await.expect("an answer");
    let asked = |times: Vec<u64>| !times.is_empty() && times.iter().all(|seconds| (50..=61).contains(seconds));
    // While the last answer is not acknowledged the kernel's timer is another.
    wait_until("the client is asked then", || async { asked(asked_in(stage.through.port(), true)) }).await;
    wait_until("and the worker", || async { asked(asked_in(worker.port(), false)) }).await;
    drop(client);
    stage.end().await;
}
