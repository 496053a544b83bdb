//! Certificates at both of the mirror's sides: renewed ones that it shows, and those of others that it takes and refuses,
//! whoever signed them and until when.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, path::Path};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::net::TcpStream;
use understudy_e2e::{
    talk::Talk,
    tls_worker::{TlsWorker, encrypt},
    wire::{kinds, query},
};
use understudy_harness::wait_until;

use crate::papers::Papers;

const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const BROKEN: &str = "clients are shown the old one";
/// The authorities of all papers have the same name: the signature alone tells them apart.
const STRANGER: &str = "decrypt error";
const EXPIRED: &str = "certificate expired";

async fn set() -> (Papers, TlsWorker) {
    let papers = Papers::new();
    let worker = papers.worker(HBA, "CREATE ROLE ann LOGIN").await;
    (papers, worker)
}

fn replace(from: &str, to: &str) {
    let beside = format!("{to}.new");
    fs::copy(from, &beside).expect("a copy");
    fs::rename(beside, Path::new(to)).expect("in its place");
}

/// How psql shows a certificate.
fn showing(papers: &Papers, name: &str) -> String {
    let (certificate, key) = (papers.path(&format!("{name}.crt")), papers.path(&format!("{name}.key")));
    format!("sslmode=require sslcert={certificate} sslkey={key}")
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
    let stream = TcpStream::connect(mirror.through).await.expect("a connection");
    let stream = papers.handshake(stream, Some(b"postgresql")).await.expect("TLS");
    let (mut old, _) = Talk::login(stream, "ann").await;
    // The certificate comes before its key: for a moment they do not fit, and the old ones are shown.
    replace(&papers.path("renewed.crt"), &papers.path("mirror.crt"));
    wait_until("it is noticed", || async { mirror.running.transcript().contains(BROKEN) }).await;
    assert_eq!(shown().await, first, "a certificate without its key");
    replace(&papers.path("renewed.key"), &papers.path("mirror.key"));
    wait_until("the new one is shown", || async { shown().await == of("renewed.crt") }).await;
    worker.psql(mirror.through, "sslmode=require").await.expect("a session");
    // Who was there before goes on.
    old.send(&query("SELECT 1")).await;
    assert_eq!(kinds(&old.heard(b'Z').await), "TDCZ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_s_certificate_that_is_a_stranger_s_or_has_expired_is_refused_where_none_is_asked_for_too() {
    let (papers, worker) = set().await;
    let strangers = Papers::new();
    let clients = [
        (showing(&papers, "ann"), Ok(())),
        (showing(&strangers, "ann"), Err(STRANGER)),
        (showing(&papers, "late"), Err(EXPIRED)),
        (showing(&papers, "renewed"), Ok(())),
    ];
    for required in ["", ", certificateRequired: true"] {
        let tls = format!(", authorities: {}{required}", papers.path("ca.crt"));
        let mirror = worker.mirror(&papers.clients("mirror", &tls)).await;
        for (how, expected) in &clients {
            let got = worker.psql(mirror.through, how).await;
            let as_expected = match (&got, expected) {
                (Ok(_), Ok(())) => true,
                (Err(got), Err(expected)) => got.contains(expected),
                _ => false,
            };
            assert!(as_expected, "clientTls{tls}; {how}: {got:?}, not {expected:?}");
        }
        assert_eq!(mirror.metric("connections_unencrypted_total").await, 2, "{tls}");
        assert_eq!(mirror.metric("connections_encrypted_total").await, 2, "{tls}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_that_were_replaced_are_trusted_no_more_and_broken_ones_replace_none() {
    let (papers, worker) = set().await;
    let successors = Papers::new();
    let trusted = papers.path("trusted.crt");
    replace(&papers.path("ca.crt"), &trusted);
    let tls = format!(", authorities: {trusted}, certificateRequired: true");
    let mirror = worker.mirror(&papers.clients("mirror", &tls)).await;
    let (old, new) = (showing(&papers, "ann"), showing(&successors, "ann"));
    worker.psql(mirror.through, &old).await.expect("a session");
    assert!(worker.psql(mirror.through, &new).await.is_err());

    fs::write(&trusted, "no certificate\n").expect("a broken file");
    wait_until("it is noticed", || async { mirror.running.transcript().contains(BROKEN) }).await;
    worker.psql(mirror.through, &old).await.expect("a session");
    assert!(worker.psql(mirror.through, &new).await.is_err());

    replace(&successors.path("ca.crt"), &trusted);
    wait_until("the successor is trusted", || async { worker.psql(mirror.through, &new).await.is_ok() }).await;
    let refused = worker.psql(mirror.through, &old).await.expect_err("a certificate that nobody vouches for any more");
    assert!(refused.contains(STRANGER), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_worker_is_shown_and_whom_it_must_come_from_are_renewed_and_broken_ones_are_not_used() {
    const HELD: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n";
    let (papers, strangers) = (Papers::new(), Papers::new());
    let (certificate, key) = (papers.path("worker.crt"), papers.path("worker.key"));
    let worker = TlsWorker::start(&certificate, &key, HELD, "CREATE ROLE ann LOGIN").await;
    worker.trust(&papers.path("ca.crt")).await;
    let (own, own_key, trusted) = (papers.path("own.crt"), papers.path("own.key"), papers.path("trusted.crt"));
    let show = |name: &str| {
        replace(&papers.path(&format!("{name}.key")), &own_key);
        replace(&papers.path(&format!("{name}.crt")), &own);
    };
    show("late");
    replace(&papers.path("ca.crt"), &trusted);
    let tls = format!("mode: verify-ca, authorities: {trusted}, certificate: {own}, key: {own_key}");
    let mirror = worker.mirror(&format!("workerTls: {{ {tls} }}\n")).await;
    let session = || async { worker.psql(mirror.through, "sslmode=disable").await };
    let refused = session().await.expect_err("its certificate has expired");
    assert!(refused.contains("can't be reached"), "{refused}");
    assert_eq!(mirror.metric("worker_unreachable_total").await, 1, "{refused}");
    show("ann");
    wait_until("the new one is shown", || async { session().await == Ok("t".to_owned()) }).await;

    fs::write(&trusted, "no certificate\n").expect("a broken file");
    wait_until("it is noticed", || async { mirror.running.transcript().contains("the old goes on") }).await;
    session().await.expect("a session");
    replace(&strangers.path("ca.crt"), &trusted);
    wait_until("the worker is a stranger", || async { session().await.is_err() }).await;
    replace(&papers.path("ca.crt"), &trusted);
    wait_until("it is none any more", || async { session().await.is_ok() }).await;
}

/// As PostgreSQL's manual has a certificate made: who knows it trusts it, and nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_signs_its_own_certificate_is_trusted_by_who_knows_it() {
    let (papers, strangers) = (Papers::new(), Papers::new());
    let (itself, key) = papers.signs_itself();
    let (other, _) = strangers.signs_itself();
    let worker = TlsWorker::start(&itself, &key, HBA, "CREATE ROLE ann LOGIN").await;
    for (mode, host, authority, trusted) in [
        ("verify-ca", "127.0.0.1", &itself, true),
        ("verify-full", "localhost", &itself, true),
        ("verify-full", "127.0.0.1", &itself, false),
        ("verify-ca", "localhost", &other, false),
        ("verify-full", "localhost", &other, false),
    ] {
        let document = format!("workerTls: {{ mode: {mode}, authorities: {authority} }}\n");
        let mirror = worker.mirror_to(host, &document).await;
        let through = worker.psql(mirror.through, "sslmode=disable").await;
        assert_eq!(through.is_ok(), trusted, "{mode} of {host}: {through:?}");
        // As libpq has it.
        let how = format!("sslmode={mode} sslrootcert={authority}");
        let dsn_host = worker.psql_of(host, worker.address(), &how).await;
        assert_eq!(dsn_host.is_ok(), trusted, "libpq, {mode} of {host}: {dsn_host:?}");
    }
}

/// The two are never renewed at the same moment: until both are, clients that bind their channel are shown what the worker
/// shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_bound_while_one_of_the_two_has_the_new_certificate_and_the_other_the_old_one() {
    const HELD: &str = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let papers = Papers::new();
    let worker = papers.worker(HELD, "CREATE ROLE ann LOGIN PASSWORD 'secret'").await;
    let (own, own_key) = (papers.path("own.crt"), papers.path("own.key"));
    let show = |name: &str| {
        replace(&papers.path(&format!("{name}.key")), &own_key);
        replace(&papers.path(&format!("{name}.crt")), &own);
    };
    show("worker");
    let tls = format!("clientTls: {{ certificate: {own}, key: {own_key} }}\nworkerTls: {{ mode: require }}\n");
    let mirror = worker.mirror(&tls).await;
    let bound = || async { worker.psql(mirror.through, "sslmode=require channel_binding=require").await };
    bound().await.expect("both have the old one");
    show("renewed");
    let noticed = "clients are shown the new certificate";
    wait_until("the mirror has the new one", || async { mirror.running.transcript().contains(noticed) }).await;
    for _ in 0..3 {
        bound().await.expect("the worker has the old one");
    }
    encrypt(&worker.server, &papers.path("renewed.crt"), &papers.path("renewed.key")).await;
    // The mirror sees what the worker shows when it next connects.
    wait_until("both have the new one", || async { bound().await.is_ok() }).await;
    for _ in 0..3 {
        bound().await.expect("both have the new one");
    }
    worker.expect_level(&mirror).await;
}
