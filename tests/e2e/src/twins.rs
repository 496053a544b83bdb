//! Two workers that were made alike: one is reached directly, before the other stands the mirror with two
//! arms. What a client does to one it does to the other, so answers may be compared down to the numbers of objects.

use std::{net::SocketAddr, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use understudy_crds::{condition::ArmState, status::ArmStatus};
use understudy_harness::{Cluster, ClusterBuilder};

use crate::{
    child::{Ended, Running, start},
    experiment::Desk,
    http,
    turn::{Turn, take_turn_beside_others},
};

const LEVEL_LIMIT: Duration = Duration::from_secs(60);

/// Four servers and a mirror.
#[derive(Debug)]
pub struct Twins {
    /// The worker that is reached directly.
    pub direct: Cluster,
    /// The worker behind the mirror.
    pub worker: Cluster,
    /// `baseline` and `candidate`.
    pub arms: [Cluster; 2],
    /// The mirror.
    pub mirror: Running,
    /// Where it listens.
    pub through: SocketAddr,
    /// Its admin HTTP.
    pub admin: String,
    _desk: Desk,
    _turn: Turn,
}

impl Twins {
    /// Waits for its turn, which it shares with others of its kind, and starts everything; `of_worker` sets up the two workers, `prepared` is run on all.
    pub async fn start(of_worker: impl Fn(ClusterBuilder) -> ClusterBuilder, prepared: &str) -> Self {
        Self::start_with(of_worker, prepared, "").await
    }

    /// The same, with these lines as the mirror's configuration document.
    pub async fn start_with(
        of_worker: impl Fn(ClusterBuilder) -> ClusterBuilder,
        prepared: &str,
        document: &str,
    ) -> Self {
        let turn = take_turn_beside_others().await;
        let arm = || Cluster::builder().setting("max_prepared_transactions", "4");
        let worker = || of_worker(arm()).start();
        let (direct, worker, baseline, candidate) = tokio::join!(worker(), worker(), arm().start(), arm().start());
        for server in [&direct, &worker, &baseline, &candidate] {
            server.connect().await.batch_execute(prepared).await.expect("a prepared server");
        }
        let arm = |name: &str, of: &Cluster| format!("{name}={}", address(of));
        let (worker_at, arms) =
            (address(&worker).to_string(), [arm("baseline", &baseline), arm("candidate", &candidate)]);
        let desk = Desk::new();
        let config = desk.write("mirror.yaml", &format!("admin: 127.0.0.1:0\n{document}"));
        let config = config.to_string_lossy();
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--config", &config, "--worker", &worker_at];
        arguments.extend(arms.iter().flat_map(|arm| ["--arm", arm]));
        let mut mirror = start("understudy-mirror", arguments);
        let through = mirror.mirror().await;
        let admin = mirror.admin().await;
        Self { direct, worker, arms: [baseline, candidate], mirror, through, admin, _desk: desk, _turn: turn }
    }
}

impl Twins {
    /// Waits until both arms have played everything that there was to play, and holds their contents against the
    /// worker's: every table, every sequence.
    pub async fn expect_level(&self, left_out: &[&str]) -> Vec<ArmStatus> {
        let wanted = contents(&self.worker.connect().await, left_out).await;
        let mut levelled = Vec::new();
        for (index, arm) in self.arms.iter().enumerate() {
            let client = arm.connect().await;
            let end = Instant::now() + LEVEL_LIMIT;
            let (status, settled, found) = loop {
                let status = self.arm(index).await;
                let counts = &status.exchanges;
                let settled = status.lag.exchanges == 0
                    && counts.played + counts.skipped.values().sum::<i64>() == counts.captured;
                let found = contents(&client, left_out).await;
                // The worker's last exchanges may be on their way to the arms.
                if status.state != ArmState::Live || settled && found == wanted || Instant::now() > end {
                    break (status, settled, found);
                }
                sleep(Duration::from_millis(20)).await;
            };
            let said = self.mirror.transcript();
            assert_eq!((status.state, status.exchanges.lost), (ArmState::Live, 0), "{status:#?}\n{said}");
            assert_eq!(found, wanted, "{status:#?}\n{said}");
            assert!(settled && status.exchanges.played > 0, "{status:#?}\n{said}");
            levelled.push(status);
        }
        levelled
    }

    /// A number of its metrics.
    pub async fn metric(&self, name: &str) -> u64 {
        let text = http::get(&self.admin, "/metrics").await.expect("metrics");
        let value = |line: &str| line.strip_prefix("understudy_")?.strip_prefix(name)?.trim().parse().ok();
        text.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    async fn arm(&self, index: usize) -> ArmStatus {
        let status = http::status(&self.admin).await.unwrap_or_else(|e| panic!("{e}\n{}", self.mirror.transcript()));
        status.arms.into_iter().nth(index).expect("the arm")
    }

    /// Ends the mirror in good order; what it said.
    pub async fn end(self) -> Ended {
        self.end_warned_of("nothing").await
    }

    /// The same, of a mirror that has warned of this and of nothing else.
    pub async fn end_warned_of(self, what: &str) -> Ended {
        self.mirror.signal(Signal::TERM);
        let ended = self.mirror.ended_within(Duration::from_secs(20)).await;
        ended.expect_code(0);
        let expected = |line: &&str| !line.contains(what);
        for line in ended.stderr.lines().filter(expected) {
            assert!(!["WARN", "ERROR", "panicked"].iter().any(|word| line.contains(word)), "{}", ended.stderr);
        }
        ended
    }
}

/// Where a server can be reached.
pub fn address(of: &Cluster) -> SocketAddr {
    ([127, 0, 0, 1], of.port()).into()
}

/// Each table with a digest of its rows, and each sequence with where it stands. `left_out`: columns, as
/// `schema.table.column`, that each server fills with what is its own, such as the time.
pub async fn contents(client: &Client, left_out: &[&str]) -> Vec<String> {
    let tables =
        "SELECT format('%I.%I', n.nspname, c.relname), string_agg(format('t.%I', a.attname), ', ' ORDER BY a.attnum)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
        AND format('%s.%s.%s', n.nspname, c.relname, a.attname) <> ALL ($1)
        GROUP BY 1 ORDER BY 1";
    let mut found = Vec::new();
    for row in client.query(tables, &[&left_out]).await.expect("the tables") {
        let (table, columns): (String, String) = (row.get(0), row.get(1));
        let digest = format!(
            "SELECT format('%s rows, %s', count(*), sum(hashtextextended(ROW({columns})::text, 0)::numeric)) FROM {table} t"
        );
        // A table may be dropped between the two questions: it is asked for again then.
        if let Ok(row) = client.query_one(&digest, &[]).await {
            found.push(format!("{table}: {}", row.get::<_, String>(0)));
        }
    }
    let sequences = "SELECT format('%I.%I: %s', schemaname, sequencename, last_value) FROM pg_sequences ORDER BY 1";
    // The arm may be dropping one just now.
    let sequences = client.query(sequences, &[]).await.unwrap_or_default();
    found.extend(sequences.iter().map(|row| row.get::<_, String>(0)));
    found
}
