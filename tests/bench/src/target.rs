//! What stands between the clients and the worker: nothing, a peer, or the mirror.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use understudy_crds::{
    condition::ArmState,
    status::{ArmStatus, ExchangeCounts},
};
use understudy_e2e::http;
use understudy_harness::{server_account, wait_until};
use understudy_operator::platform::local::account::Account;

use crate::{place::Place, process::Process};

/// How many clients may connect to a peer at once: more than any benchmark has.
const CLIENTS: u32 = 1000;

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Nothing.
    Direct,
    /// HAProxy, which relays TCP.
    HaProxy,
    /// PgBouncer, one server connection for each client.
    PgBouncer,
    /// The mirror without an arm.
    Understudy,
    /// The mirror with an arm that plays everything.
    UnderstudyWithArm,
}

impl Kind {
    /// All of them, in the order in which they take their turns.
    pub const ALL: [Self; 5] =
        [Self::Direct, Self::HaProxy, Self::PgBouncer, Self::Understudy, Self::UnderstudyWithArm];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaProxy => "HAProxy, tcp mode",
            Self::PgBouncer => "PgBouncer, session mode",
            Self::Understudy => "Understudy, no arm",
            Self::UnderstudyWithArm => "Understudy, one arm",
        }
    }
}

/// One that runs.
#[derive(Debug)]
pub struct Target {
    /// The port on 127.0.0.1 that clients connect to.
    pub port: u16,
    /// The program, where there is one.
    pub process: Option<Process>,
    /// The admin HTTP of a mirror that has an arm.
    admin: Option<String>,
}

impl Target {
    /// Starts it and waits until it takes clients.
    pub async fn start(kind: Kind, place: &Place) -> Self {
        let worker = place.worker.port();
        let port = free_port();
        let (process, admin) = match kind {
            Kind::Direct => return Self { port: worker, process: None, admin: None },
            Kind::HaProxy => (haproxy(place, port, worker), None),
            Kind::PgBouncer => (pgbouncer(place, port, worker), None),
            Kind::Understudy => (mirror(port, worker, Told::default()), None),
            Kind::UnderstudyWithArm => {
                let admin = format!("127.0.0.1:{}", free_port());
                let told = Told { arm: Some(place.arm.port()), admin: Some(&admin), ..Told::default() };
                (mirror(port, worker, told), Some(admin))
            }
        };
        Self::open(port, process, admin).await
    }

    /// The mirror, run by a program that counts what it does, whose command line this is up to the mirror's own.
    pub async fn start_counted(kind: Kind, place: &Place, counted: &[&str]) -> Self {
        let (port, admin) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let arm = (kind == Kind::UnderstudyWithArm).then(|| place.arm.port());
        let admin = arm.map(|_| admin);
        let told = Told { arm, admin: admin.as_deref(), counted, ..Told::default() };
        let process = mirror(port, place.worker.port(), told);
        Self::open(port, process, admin).await
    }

    /// A mirror in front of any two ports, which may be told more by a configuration document.
    pub async fn mirror(worker: u16, arm: u16, config: Option<&Path>) -> Self {
        let (port, admin) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let told = Told { arm: Some(arm), admin: Some(&admin), config, ..Told::default() };
        let process = mirror(port, worker, told);
        Self::open(port, process, Some(admin)).await
    }

    async fn open(port: u16, mut process: Process, admin: Option<String>) -> Self {
        wait_until("it takes clients", || {
            assert!(process.is_running(), "the program on port {port} has ended");
            let admin = admin.as_ref();
            async move {
                // The mirror's own word comes after its listener.
                let speaks = match admin {
                    Some(admin) => http::status(admin).await.is_ok(),
                    None => true,
                };
                speaks && tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
            }
        })
        .await;
        Self { port, process: Some(process), admin }
    }

    /// Processor time that it has used, µs.
    pub fn cpu_us(&self) -> f64 {
        self.process.as_ref().map_or(0.0, Process::cpu_us)
    }

    /// Waits until its arm has played everything: what the shadow side does counts too.
    pub async fn settled(&self) {
        if self.admin.is_none() {
            return;
        }
        let mut before = -1;
        for _ in 0..60 {
            // Longer than the arms live behind production.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let arm = self.arm().await.expect("an arm");
            // What is not played costs nothing.
            assert_ne!(arm.state, ArmState::Lost, "{:?}", arm.message);
            let played = arm.exchanges.played;
            if std::mem::replace(&mut before, played) == played && arm.lag.exchanges == 0 {
                let ExchangeCounts { captured, lost, ref skipped, .. } = arm.exchanges;
                assert_eq!((played, lost, skipped.len()), (captured, 0, 0), "{:?}", arm.exchanges);
                assert!(arm.divergence.values().all(|n| *n == 0), "{:?}", arm.divergence);
                return;
            }
        }
        panic!("the arm does not come to an end");
    }

    /// Ends it in good order, however long it takes to write what it has found.
    pub fn end(self) {
        if let Some(process) = self.process {
            process.end();
        }
    }

    /// What it says of its arm, where there is one.
    pub async fn arm(&self) -> Option<ArmStatus> {
        let status = http::status(self.admin.as_ref()?).await.expect("the mirror's status");
        status.arms.into_iter().next()
    }
}

fn haproxy(place: &Place, port: u16, worker: u16) -> Process {
    let text = format!(
        "global\n  maxconn {CLIENTS}\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\nlisten worker\n  bind 127.0.0.1:{port}\n  server worker 127.0.0.1:{worker}\n"
    );
    let file = place.file("haproxy.cfg", &text);
    Process::start(&Account::Own, &found("haproxy"), &["-db", "-f", file.to_str().expect("a path")])
}

fn pgbouncer(place: &Place, port: u16, worker: u16) -> Process {
    let users = place.file("users.txt", "\"postgres\" \"\"\n");
    let text = format!(
        "[databases]\npostgres = host=127.0.0.1 port={worker}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = session\n\
         max_client_conn = {CLIENTS}\ndefault_pool_size = 200\n",
        users.display()
    );
    let file = place.file("pgbouncer.ini", &text);
    // It refuses to run as root.
    Process::start(&server_account(), &found("pgbouncer"), &[file.to_str().expect("a path")])
}

/// What a mirror is told beside its worker.
#[derive(Clone, Copy, Default)]
struct Told<'a> {
    /// The port of its arm.
    arm: Option<u16>,
    /// Where its admin HTTP listens.
    admin: Option<&'a str>,
    /// Its configuration document.
    config: Option<&'a Path>,
    /// The program that runs it, with its arguments.
    counted: &'a [&'a str],
}

fn mirror(port: u16, worker: u16, told: Told<'_>) -> Process {
    let (listen, worker) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{worker}"));
    let arm = told.arm.map(|arm| format!("candidate=127.0.0.1:{arm}"));
    let mut arguments = vec!["--listen", &listen, "--worker", &worker];
    arguments.extend(arm.iter().flat_map(|arm| ["--arm", arm]));
    arguments.extend(told.admin.iter().flat_map(|admin| ["--admin", admin]));
    arguments.extend(told.config.iter().flat_map(|config| ["--config", config.to_str().expect("a path")]));
    let beside = std::env::current_exe().expect("this program's own path").with_file_name("understudy-mirror");
    let Some((counts, options)) = told.counted.split_first() else {
        return Process::start(&Account::Own, &beside, &arguments);
    };
    let own = beside.to_str().expect("a path");
    let all: Vec<&str> = options.iter().copied().chain([own]).chain(arguments).collect();
    Process::start(&Account::Own, &found(counts), &all)
}

/// Where a program of the system is; Debian's daemons are not on everybody's path.
fn found(program: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let path = places.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists());
    path.unwrap_or_else(|| panic!("{program} is not installed: `make bench-hop` does it"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its number").port()
}
