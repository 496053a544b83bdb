//! Certificates at the mirror's side for clients: renewed ones that it shows.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, path::Path};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;
use understudy_e2e::tls_worker::TlsWorker;
use understudy_harness::wait_until;

use self::papers::Papers;

#[path = "../src/papers.rs"]
mod papers;

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const BROKEN: &str = "clients are shown the old one";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker =
        TlsWorker::start(&papers.path("worker.crt"), &papers.path("worker.key"), HBA, "CREATE ROLE ann LOGIN").await;
    (papers, worker)
}

fn replace(from: &str, to: &str) {
    let beside = format!("{to}.new");
    fs::copy(from, &beside).expect("a copy");
    fs::rename(beside, Path::new(to)).expect("in its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_to_new_clients_and_a_broken_one_to_nobody() {
    let (papers, worker) = set().await;
    let mirror = worker.mirror(&papers.clients("mirror", "")).await;
    let shown = || async {
        let stream = TcpStream::connect(mirror.through).await.expect("a connection");
        let stream = papers.handshake(stream, Some(b"postgresql")).await.expect("TLS");
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned()).expect("a certificate")
    };
    let of = |name: &str| CertificateDer::from_pem_file(papers.path(name)).expect("a certificate");
    let first = of("mirror.crt");
    assert_eq!(shown().await, first);
    // The certificate comes before its key: for a moment they do not fit, and the old ones are shown.
    replace(&papers.path("renewed.crt"), &papers.path("mirror.crt"));
    wait_until("it is noticed", || async { mirror.running.transcript().contains(BROKEN) }).await;
    assert_eq!(shown().await, first, "a certificate without its key");
    replace(&papers.path("renewed.key"), &papers.path("mirror.key"));
    wait_until("the new one is shown", || async { shown().await == of("renewed.crt") }).await;
    worker.psql(mirror.through, "sslmode=require").await.expect("a session");
}
