//! A run that panics: the mirror is in its process, and no client pays for it.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can't have what it needs has failed; it panics itself"
)]

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::sync::watch;
use tokio_postgres::Client;
use understudy_e2e::{
    application::connect,
    experiment::{Desk, manifest, options},
    turn::take_turn,
};
use understudy_harness::Cluster;
use understudy_operator::{
    error::{ErrorKind, UserError},
    run::{self, Companion},
};

const SPEC: &str = "  candidates:
  - name: more-memory
    parameters: { work_mem: 8MB }
";

/// Panics while clones are made, with a client in the middle of a transaction.
#[derive(Default)]
struct Panics {
    client: Option<Client>,
    has_panicked: AtomicBool,
}

impl Companion for Panics {
    async fn mirror_ready(&mut self, address: SocketAddr) -> Result<(), UserError> {
        let client = connect(address).await.expect("a session");
        client.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await.expect("an open transaction");
        self.client = Some(client);
        Ok(())
    }

    async fn mirror_leaving(&mut self) -> Result<(), UserError> {
        assert!(self.has_panicked.load(Ordering::SeqCst), "it leaves for another reason");
        let client = self.client.take().expect("its client");
        client.batch_execute("INSERT INTO kept VALUES (2); COMMIT").await.expect("the transaction goes on and commits");
        Ok(())
    }

    fn transactions(&self) -> Option<u64> {
        self.has_panicked.store(true, Ordering::SeqCst);
        panic!("as a test wants it")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_panics_lets_transactions_end() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    let direct = worker.connect().await;
    direct.batch_execute("CREATE TABLE kept (i int)").await.expect("a table");
    let desk = Desk::new();
    let out = desk.out("panics");
    let experiment = understudy_crds::manifest::read(&manifest("panics", worker.port(), SPEC)).expect("a manifest");
    let options = options(experiment, out);
    let (halt, _) = watch::channel(false);
    let mut companion = Panics::default();
    let error = run::run(options, &mut companion, halt).await.expect_err("it has failed");
    assert_eq!(error.kind, ErrorKind::Exited, "{error}");
    assert!(error.what.contains("understudy itself has failed"), "{error}");
    let kept: i64 = direct.query_one("SELECT count(*) FROM kept", &[]).await.expect("rows").get(0);
    assert_eq!(kept, 2);
}
