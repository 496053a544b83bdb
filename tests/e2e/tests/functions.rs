//! The list of functions that can't write, held against a real server.

use understudy_harness::Cluster;

/// Regenerate the list with this query on a new server, and look at what is new.
const VOLATILE: &str = "SELECT DISTINCT proname::text FROM pg_proc
                         WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v' AND proname = ANY ($1)";

#[tokio::test]
async fn no_function_that_is_taken_for_harmless_is_volatile_on_this_server() {
    let listed: Vec<&str> =
        include_str!("../../../mirror/src/shadow/statement/readonly_functions.txt").lines().collect();
    assert!(listed.len() > 2000 && listed.contains(&"lower") && !listed.contains(&"nextval"));
    let cluster = Cluster::start().await;
    let rows = cluster.connect().await.query(VOLATILE, &[&listed]).await.expect("functions");
    let volatile: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(volatile.is_empty(), "these may write: {volatile:?}");
}
