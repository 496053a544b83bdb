//! Digests of tables, so that the contents of two servers can be held against each other.

use tokio_postgres::{Client, Config, NoTls};

/// Table and expression over its rows `t`.
pub type Rows = (&'static str, &'static str);

/// pgbench's tables; the time at which a row of history was written is each server's own.
pub const PGBENCH: [Rows; 4] = [
    ("pgbench_accounts", "t::text"),
    ("pgbench_branches", "t::text"),
    ("pgbench_tellers", "t::text"),
    ("pgbench_history", "ROW(t.tid, t.bid, t.aid, t.delta, t.filler)::text"),
];

/// A connection by the text of an arm's `endpoint`.
pub async fn connect(endpoint: &str) -> Client {
    let mut config: Config = endpoint.parse().expect("an endpoint");
    config.user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.expect("a connection to the endpoint");
    // It ends with the client.
    tokio::spawn(connection);
    client
}

/// Number of rows and a digest that does not depend on their order, for each table.
pub async fn digests(client: &Client, tables: &[Rows]) -> Vec<(String, i64, String)> {
    let mut found = Vec::new();
    for (table, row) in tables {
        let sql =
            format!("SELECT count(*), coalesce(sum(hashtextextended({row}, 0)::numeric), 0)::text FROM {table} t");
        let row = client.query_one(&sql, &[]).await.expect("a digest");
        found.push(((*table).to_owned(), row.get(0), row.get(1)));
    }
    found
}
