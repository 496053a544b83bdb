//! What names stand for in a database: reads through views and partitions overlap with what is changed behind them, rows go
//! with those that they refer to, and a function that only reads is none that writes. All of it under load, with two clones
//! that have to agree; and what is made while an experiment runs counts as well.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_postgres::Client;
use understudy_crds::{
    condition::{ArmState, DivergenceKind},
    experiment::StatementClass,
};
use understudy_e2e::{
    application::connect,
    experiment::{Desk, manifest, options, report},
    turn::take_turn,
};
use understudy_harness::Cluster;
use understudy_operator::{
    error::UserError,
    run::{self, Companion},
};

const SPEC: &str = "  candidates:
  - name: more-memory
    parameters: { work_mem: 8MB }
  schedule: { warmUp: 1s, minimum: 12s, maximum: 12s }
";
const TABLES: &str = "
    CREATE TABLE sales (id int, at date, n int) PARTITION BY RANGE (at);
    CREATE TABLE sales_2025 PARTITION OF sales FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE sales_2026 PARTITION OF sales FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO sales SELECT i, '2025-06-01', 0 FROM generate_series(1, 50) i;
    INSERT INTO sales SELECT i, '2026-06-01', 0 FROM generate_series(1, 50) i;
    CREATE VIEW totals AS SELECT sum(n) FROM sales;
    CREATE TABLE customers (id int PRIMARY KEY);
    CREATE VIEW report AS SELECT * FROM totals, (SELECT count(*) FROM customers) c;
    CREATE TABLE orders (customer int REFERENCES customers ON DELETE CASCADE);
    CREATE FUNCTION balance(int) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(n) FROM sales WHERE id = $1';
    CREATE FUNCTION doubled(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1'";
/// What is done over and over, each by a session of its own: `{i}` is a number that changes. No two of them change one row,
/// where the answers would have to tell who was first.
const WRITES: [&[&str]; 3] = [
    &["UPDATE sales_2026 SET n = n + 1 WHERE id = {i}"],
    &["UPDATE sales SET n = n + doubled(1) WHERE at = '2025-06-01' AND id = {i}"],
    &[
        "WITH c AS (INSERT INTO customers VALUES ({i}) RETURNING id) INSERT INTO orders SELECT id FROM c",
        "DELETE FROM customers WHERE id = {i}",
    ],
];
static READS: [&str; 6] = [
    "SELECT * FROM totals",
    "SELECT * FROM report",
    "SELECT sum(n) FROM sales",
    "SELECT n FROM sales_2026 WHERE id = {i}",
    "SELECT count(*) FROM orders",
    "SELECT balance({i}), doubled({i})",
];
/// Between two statements of a session.
const PERIOD: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(20);

/// Clients of the mirror for as long as it is there.
#[derive(Default)]
struct Clients {
    stop: Arc<AtomicBool>,
    at_work: JoinSet<()>,
}

async fn work(client: Client, statements: &'static [&'static str], stop: Arc<AtomicBool>) {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number = number % 50 + 1;
        for statement in statements {
            let sql = statement.replace("{i}", &number.to_string());
            timeout(LIMIT, client.simple_query(&sql)).await.expect("an answer in time").expect(statement);
            sleep(PERIOD).await;
        }
    }
}

/// Makes a view anew, over and over, in a transaction, and reads it.
async fn define(client: Client, stop: Arc<AtomicBool>) {
    let definitions = ["SELECT sum(n) FROM sales_2026", "SELECT count(*) FROM orders"];
    for definition in definitions.into_iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let make = format!("BEGIN; DROP VIEW IF EXISTS made; CREATE VIEW made AS {definition}; COMMIT");
        client.batch_execute(&make).await.expect("a view");
        for _ in 0..20 {
            client.simple_query("SELECT * FROM made").await.expect("what it shows");
            sleep(10 * PERIOD).await;
        }
    }
}

impl Companion for Clients {
    async fn mirror_ready(&mut self, address: SocketAddr) -> Result<(), UserError> {
        for statements in WRITES.into_iter().chain(READS.chunks(1)) {
            let client = connect(address).await.expect("a session");
            self.at_work.spawn(work(client, statements, Arc::clone(&self.stop)));
        }
        let client = connect(address).await.expect("a session");
        self.at_work.spawn(define(client, Arc::clone(&self.stop)));
        Ok(())
    }

    async fn mirror_leaving(&mut self) -> Result<(), UserError> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.at_work.join_next().await {
            ended.expect("a session that went well");
        }
        Ok(())
    }

    fn transactions(&self) -> Option<u64> {
        None
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_stand_for_is_known() {
    let _turn = take_turn().await;
    let worker = Cluster::start().await;
    worker.connect().await.batch_execute(TABLES).await.expect("tables");
    let desk = Desk::new();
    let out = desk.out("schemas");
    let experiment = understudy_crds::manifest::read(&manifest("schemas", worker.port(), SPEC)).expect("a manifest");
    let mut options = options(experiment, out.clone());
    options.verify = true;
    let (halt, _) = watch::channel(false);
    let mut clients = Clients::default();
    let ended = run::run(options, &mut clients, halt).await.expect("a run");
    for arm in &ended.status.arms {
        println!("{}: {} compared, {} ambiguous, {:?}", arm.name, arm.compared, arm.ambiguous, arm.divergence);
        assert!(arm.state != ArmState::Lost && arm.exchanges.lost == 0, "{arm:#?}");
        let rows = [DivergenceKind::Rows, DivergenceKind::RowCount].map(|kind| arm.divergence.get(&kind).copied());
        assert_eq!(rows, [Some(0), Some(0)], "{arm:#?}");
        assert!(arm.compared > 1000 && arm.ambiguous > 0 && arm.ambiguous < arm.compared, "{arm:#?}");
    }
    assert!(!ended.differs, "{:#?}", ended.status);
    let read: Vec<_> =
        report(&out).fingerprints.into_iter().filter(|f| f.text.contains("balance")).map(|f| f.class).collect();
    assert_eq!(read, [StatementClass::Read]);
}
