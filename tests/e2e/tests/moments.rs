//! Rows that hold the moment in which they were made, as `created_at` does in most tables: an arm makes its own a little
//! later, and they are the same rows all the same. What else differs in them is found.

use understudy_crds::condition::DivergenceKind;
use understudy_e2e::{application::connect, stage::Servers};

const TABLE: &str = "CREATE TABLE orders (id serial PRIMARY KEY, n int, created_at timestamptz DEFAULT now(),
    updated_at timestamp DEFAULT clock_timestamp())";
const READ: &str = "SELECT * FROM orders WHERE id = $1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_say_when_they_were_made_are_the_same_rows_and_others_are_not() {
    let servers = Servers::start(2, TABLE).await;
    let arms = servers.addresses();
    let stage = servers.mirror("64Mi", &arms).await;
    let client = connect(stage.through).await.expect("a session");
    let read = client.prepare(READ).await.expect("a statement");
    for id in 1..=20 {
        // In text and in binary, with types told before and without.
        let insert = format!("INSERT INTO orders (n) VALUES ({id}) RETURNING id, created_at, updated_at");
        client.simple_query(&insert).await.expect("a row");
        client.simple_query(&format!("SELECT * FROM orders WHERE id = {id}")).await.expect("a row");
        assert_eq!(client.query(&read, &[&id]).await.expect("a row").len(), 1);
        client.query("UPDATE orders SET updated_at = now() WHERE id = $1 RETURNING *", &[&id]).await.expect("a row");
        client.simple_query("SELECT id, xmin FROM orders").await.expect("rows");
    }
    for name in ["baseline", "candidate"] {
        let arm = stage.expect_level(name, &[("orders", "t.id::text || t.n::text")]).await;
        assert!(arm.divergence.values().all(|n| *n == 0), "{arm:#?}");
    }
    let candidate = stage.servers.arms[1].connect().await;
    candidate.batch_execute("UPDATE orders SET n = 99 WHERE id = 7").await.expect("another row");
    client.query(&read, &[&7]).await.expect("a row");
    let differs =
        |kinds: &std::collections::BTreeMap<DivergenceKind, i64>| kinds.get(&DivergenceKind::Rows) == Some(&1);
    stage.arm_until("candidate", "found to differ", |arm| differs(&arm.divergence)).await;
    let baseline = stage.arm("baseline").await;
    assert!(baseline.divergence.values().all(|n| *n == 0), "{baseline:#?}");
    stage.end().await;
}
