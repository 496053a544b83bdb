//! What the server has acknowledged to clients, and whether it is still there.
//!
//! The ledger knows less than the server: a write whose answer was lost may or may not be there.
//! It claims a write only after its commit was answered.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio_postgres::Client;

/// The ledger could not be compared with the server.
#[derive(Debug, thiserror::Error)]
#[error("acknowledged writes could not be looked up ({what}); is the server still up?")]
pub struct LedgerError {
    /// What was looked up.
    pub what: &'static str,
    /// What the server said.
    #[source]
    pub source: tokio_postgres::Error,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerCheck {
    /// Acknowledged writes that were looked up.
    pub checked: u64,
    /// Those that are not there.
    pub missing: u64,
    /// Rows that are there although their transaction was rolled back or refused.
    pub surplus: u64,
}

impl LedgerCheck {
    /// Whether everything acknowledged is there, and nothing else.
    pub fn holds(&self) -> bool {
        let Self { checked: _, missing, surplus } = self;
        *missing == 0 && *surplus == 0
    }
}

/// Keys of events, drawn by clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// First key.
    pub first: i64,
    /// Last key.
    pub last: i64,
}

#[derive(Debug, Default)]
struct Entries {
    /// Acknowledged keys: disjoint runs, first to last.
    events: BTreeMap<i64, i64>,
    /// Keys of transactions that were rolled back or refused.
    refused: BTreeMap<i64, i64>,
    /// Highest acknowledged version, by user.
    users: BTreeMap<i32, i32>,
    /// Highest acknowledged revision, by user and slug.
    reports: BTreeMap<(i32, &'static str), i32>,
    /// Acknowledged sum, by account.
    counters: BTreeMap<i32, i64>,
}

/// Writes that the server has acknowledged.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: Mutex<Entries>,
}

/// Keys that are looked up with one statement.
const CHUNK: usize = 2_000;

impl Ledger {
    fn with<T>(&self, change: impl FnOnce(&mut Entries) -> T) -> T {
        change(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn events(&self, keys: Keys) {
        self.with(|entries| add(&mut entries.events, keys));
    }

    pub(super) fn refused(&self, keys: Keys) {
        self.with(|entries| add(&mut entries.refused, keys));
    }

    pub(super) fn counted(&self, account: i32, events: i64) {
        self.with(|entries| *entries.counters.entry(account).or_default() += events);
    }

    pub(super) fn user(&self, user: i32, version: i32) {
        self.with(|entries| raise(entries.users.entry(user).or_default(), version));
    }

    pub(super) fn report(&self, user: i32, slug: &'static str, revision: i32) {
        self.with(|entries| raise(entries.reports.entry((user, slug)).or_default(), revision));
    }

    /// Looks for every acknowledged write on the server behind `client`.
    pub async fn check(&self, client: &Client) -> Result<LedgerCheck, LedgerError> {
        let (events, refused, users, reports, counters) = self.with(|entries| {
            let Entries { events, refused, users, reports, counters } = entries;
            (pairs(events), pairs(refused), pairs(users), pairs(reports), pairs(counters))
        });
        let mut check = LedgerCheck::default();
        for chunk in events.chunks(CHUNK) {
            let expected: i64 = chunk.iter().map(|(first, last)| last - first + 1).sum();
            let found = count_events(client, chunk).await?;
            check.add(expected, expected.saturating_sub(found));
        }
        for chunk in refused.chunks(CHUNK) {
            check.surplus += count_events(client, chunk).await?.unsigned_abs();
        }
        for chunk in users.chunks(CHUNK) {
            let (ids, versions): (Vec<i32>, Vec<i32>) = chunk.iter().copied().unzip();
            let sql = "SELECT count(*) FROM unnest($1::integer[], $2::integer[]) AS l(id, version)
                       JOIN users u ON u.id = l.id AND u.version >= l.version";
            let failed = |source| LedgerError { what: "users", source };
            let found: i64 = client.query_one_scalar(sql, &[&ids, &versions]).await.map_err(failed)?;
            check.compare(ids.len(), found);
        }
        for chunk in reports.chunks(CHUNK) {
            let users: Vec<i32> = chunk.iter().map(|((user, _), _)| *user).collect();
            let slugs: Vec<&str> = chunk.iter().map(|((_, slug), _)| *slug).collect();
            let revisions: Vec<i32> = chunk.iter().map(|(_, revision)| *revision).collect();
            let sql =
                "SELECT count(*) FROM unnest($1::integer[], $2::text[], $3::integer[]) AS l(user_id, slug, revision)
                       JOIN reports r ON r.user_id = l.user_id AND r.slug = l.slug AND r.revision >= l.revision";
            let failed = |source| LedgerError { what: "reports", source };
            let found: i64 = client.query_one_scalar(sql, &[&users, &slugs, &revisions]).await.map_err(failed)?;
            check.compare(users.len(), found);
        }
        for chunk in counters.chunks(CHUNK) {
            let (ids, sums): (Vec<i32>, Vec<i64>) = chunk.iter().copied().unzip();
            let sql = "SELECT count(*) FROM unnest($1::integer[], $2::bigint[]) AS l(id, events)
                       JOIN accounts a ON a.id = l.id AND a.event_count >= l.events";
            let failed = |source| LedgerError { what: "accounts", source };
            let found: i64 = client.query_one_scalar(sql, &[&ids, &sums]).await.map_err(failed)?;
            check.compare(ids.len(), found);
        }
        Ok(check)
    }
}

impl LedgerCheck {
    fn add(&mut self, expected: i64, missing: i64) {
        self.checked += expected.unsigned_abs();
        self.missing += missing.max(0).unsigned_abs();
    }

    fn compare(&mut self, expected: usize, found: i64) {
        let expected = i64::try_from(expected).unwrap_or(i64::MAX);
        self.add(expected, expected - found);
    }
}

async fn count_events(client: &Client, runs: &[(i64, i64)]) -> Result<i64, LedgerError> {
    let (first, last): (Vec<i64>, Vec<i64>) = runs.iter().copied().unzip();
    let sql = "SELECT count(*) FROM unnest($1::bigint[], $2::bigint[]) AS l(first, last)
               JOIN events e ON e.id BETWEEN l.first AND l.last";
    let failed = |source| LedgerError { what: "events", source };
    client.query_one_scalar(sql, &[&first, &last]).await.map_err(failed)
}

fn pairs<K: Clone, V: Copy>(map: &BTreeMap<K, V>) -> Vec<(K, V)> {
    map.iter().map(|(key, value)| (key.clone(), *value)).collect()
}

fn raise(known: &mut i32, to: i32) {
    *known = (*known).max(to);
}

/// Adds a run of keys to disjoint runs, joining it to the one that ends just before it.
fn add(runs: &mut BTreeMap<i64, i64>, keys: Keys) {
    let Keys { first, last } = keys;
    match runs.range_mut(..first).next_back() {
        Some((_, end)) if *end + 1 == first => *end = last,
        _ => {
            runs.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_batches_become_one_run() {
        let mut runs = BTreeMap::new();
        for (first, last) in [(10, 14), (15, 15), (20, 22), (16, 19), (23, 23), (100, 101)] {
            add(&mut runs, Keys { first, last });
        }
        let covered: Vec<i64> = runs.iter().flat_map(|(first, last)| *first..=*last).collect();
        assert_eq!(covered, (10..=23).chain(100..=101).collect::<Vec<_>>());
        assert!(runs.len() <= 4, "{runs:?}");
    }

    #[test]
    fn the_ledger_holds_when_nothing_is_missing_and_nothing_is_left_over() {
        let mut check = LedgerCheck::default();
        check.compare(5, 5);
        assert!(check.holds() && check.checked == 5);
        check.compare(5, 4);
        assert!(!check.holds() && check.missing == 1);
        assert!(!LedgerCheck { checked: 9, missing: 0, surplus: 1 }.holds());
    }
}
