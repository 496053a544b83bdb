//! Logins that the mirror passes on message by message, since the worker's certificate is not the client's to bind to:
//! passwords in the clear, by md5 and by SCRAM, right, wrong and none. What a client binds to is in `tls.rs`, logins without
//! TLS are in `authentication.rs`.

use std::net::SocketAddr;

use understudy_e2e::{http, tls_worker::TlsWorker, transcript::without_port};
use understudy_harness::wait_until;

use crate::papers::Papers;

const HBA: &str = "local all all trust
host all plain 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
host all salted,ghost 127.0.0.1/32 scram-sha-256
host all barred 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
";
const ROLES: &str = "SET password_encryption = 'md5';
CREATE ROLE hashed LOGIN PASSWORD 'open sesame';
SET password_encryption = 'scram-sha-256';
CREATE ROLE plain LOGIN PASSWORD 'open sesame';
CREATE ROLE salted LOGIN PASSWORD 'open sesame';
CREATE ROLE barred LOGIN";
const USERS: [(&str, bool); 6] =
    [("plain", true), ("hashed", true), ("salted", true), ("ghost", false), ("barred", false), ("nobody", false)];
const ENCRYPTED: &str = "workerTls: { mode: require }\n";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, ROLES).await;
    (papers, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_lets_in_whom_it_lets_in_direct_over_each_pair_of_connections() {
    let (papers, worker) = set().await;
    let (own, same) = (papers.clients("mirror", ""), papers.clients("worker", ""));
    let pairs = [
        ("to the worker", ENCRYPTED.to_owned(), "disable"),
        ("both", format!("{own}{ENCRYPTED}"), "require"),
        ("both, and the client has none", format!("{own}{ENCRYPTED}"), "disable"),
        ("both, the worker's certificate", format!("{same}{ENCRYPTED}"), "require"),
    ];
    for (what, document, sslmode) in pairs {
        let mirror = worker.mirror(&document).await;
        for (user, right) in USERS {
            for (password, fate) in [("open sesame", right), ("closed sesame", false), ("", false)] {
                let told = |at: SocketAddr, sslmode: &str| {
                    // Who could bind to the worker's certificate does.
                    let binds = matches!(user, "salted" | "ghost") && document.contains("worker.crt");
                    let binding = if binds { "require" } else { "disable" };
                    let how = format!("user={user} password='{password}' sslmode={sslmode} channel_binding={binding}");
                    let worker = &worker;
                    async move { worker.psql(at, &how).await.map_err(|said| without_port(said.as_bytes(), at.port())) }
                };
                let (direct, through) = (told(worker.address(), "require").await, told(mirror.through, sslmode).await);
                assert_eq!(direct.is_ok(), fate, "{user} with {password:?}: {direct:?}");
                // The connection that the server sees is encrypted in both.
                assert_eq!(through.as_deref(), direct.as_deref(), "TLS: {what}; {user} with {password:?}");
            }
        }
        wait_until("nobody is left", || async { mirror.metric("sessions").await == 0 }).await;
        worker.expect_level(&mirror).await;
        let said = http::get(&mirror.admin, "/metrics").await.expect("metrics") + &mirror.running.transcript();
        assert!(!said.contains("sesame"), "{said}");
    }
}
