//! The statements that build the data set. Pure text: every value follows from the row's number, so
//! that the same rows come out wherever and whenever they run.

use super::{ACCOUNTS, DAYS, EVENTS, FIRST_EVENT_S, USERS};

/// Tables without keys; those follow when the rows are there, which is quicker.
///
/// `parallel_workers = 0`: an application with many clients gains nothing from parallel plans, and
/// on a small machine they would be noise in every latency.
pub(super) const TABLES: &str = "
    SET synchronous_commit = off;
    CREATE TABLE accounts (
        id integer NOT NULL,
        name text NOT NULL,
        event_count bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);
    CREATE TABLE users (
        id integer NOT NULL,
        account_id integer NOT NULL,
        email text NOT NULL,
        plan text NOT NULL,
        created_at timestamptz NOT NULL,
        profile jsonb NOT NULL,
        version integer NOT NULL DEFAULT 0
    ) WITH (fillfactor = 80);
    CREATE TABLE reports (
        user_id integer NOT NULL,
        slug text NOT NULL,
        title text NOT NULL,
        revision integer NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE events (
        id bigint NOT NULL,
        user_id integer NOT NULL,
        event_type text NOT NULL,
        ts timestamptz NOT NULL,
        properties jsonb NOT NULL
    );
    ALTER TABLE events SET (parallel_workers = 0);";

/// Keys and the one index that the application has today.
pub(super) const KEYS: &str = "
    ALTER TABLE accounts ADD PRIMARY KEY (id);
    ALTER TABLE users ADD PRIMARY KEY (id);
    ALTER TABLE reports ADD PRIMARY KEY (user_id, slug);
    ALTER TABLE events ADD PRIMARY KEY (id);
    CREATE INDEX events_type_ts ON events (event_type, ts);";

/// What autovacuum would otherwise do in the middle of the demo. Each runs by itself, since `VACUUM`
/// can't run beside other statements. The checkpoint makes the first clone start at once.
pub(super) const SETTLE: [&str; 6] = [
    "VACUUM (FREEZE, ANALYZE) accounts",
    "VACUUM (FREEZE, ANALYZE) users",
    "VACUUM (FREEZE, ANALYZE) reports",
    "VACUUM (FREEZE, ANALYZE) events",
    "RESET synchronous_commit",
    "CHECKPOINT",
];

pub(super) fn accounts() -> String {
    format!("INSERT INTO accounts (id, name) SELECT i, 'Account ' || i FROM generate_series(1, {ACCOUNTS}) i")
}

pub(super) fn users() -> String {
    format!(
        "INSERT INTO users (id, account_id, email, plan, created_at, profile)
         SELECT i, 1 + i % {ACCOUNTS}, 'user' || i || '@example.com', (ARRAY['free', 'team', 'business'])[1 + i % 3],
                to_timestamp({FIRST_EVENT_S} - i * 97), format('{{\"locale\": \"%s\", \"theme\": \"light\"}}',
                (ARRAY['de', 'en', 'fr', 'ja'])[1 + i % 4])::jsonb
         FROM generate_series(1, {USERS}) i;
         INSERT INTO reports (user_id, slug, title, revision, updated_at)
         SELECT i, 'weekly', 'Weekly summary', 1, to_timestamp({FIRST_EVENT_S} - i * 11)
         FROM generate_series(1, {USERS}, 5) i"
    )
}

/// Events `first..=last`. A few users are far more active than most (the cube of a uniform number),
/// as in every analytics database; types and properties are independent of the user.
pub(super) fn events(first: u64, last: u64) -> String {
    let step_us = DAYS.unsigned_abs() * 86_400_000_000 / EVENTS;
    format!(
        "INSERT INTO events (id, user_id, event_type, ts, properties)
         SELECT i,
                1 + floor({USERS} * power((hashint8extended(i, 1) & 1048575) / 1048576.0::float8, 3))::integer,
                (ARRAY['page_view', 'page_view', 'page_view', 'page_view', 'click', 'click', 'click', 'search',
                       'signup', 'purchase'])[1 + (hashint8extended(i, 2) & 65535) % 10],
                to_timestamp({FIRST_EVENT_S}) + (i - 1) * {step_us} * interval '1 microsecond',
                format('{{\"page\": \"/p/%s\", \"ms\": %s, \"country\": \"%s\"}}',
                       (hashint8extended(i, 3) & 65535) % 800, hashint8extended(i, 4) & 511,
                       (ARRAY['DE', 'FR', 'JP', 'US'])[1 + (hashint8extended(i, 5) & 3)])::jsonb
         FROM generate_series({first}::bigint, {last}::bigint) i"
    )
}

#[cfg(test)]
mod tests {
    use super::super::EVENT_TYPES;
    use super::*;

    #[test]
    fn every_event_type_is_loaded() {
        let text = events(1, 10);
        for event_type in EVENT_TYPES {
            assert!(text.contains(&format!("'{event_type}'")), "{event_type}");
        }
    }

    #[test]
    fn no_index_of_the_application_includes_the_user() {
        let index = KEYS.lines().filter(|line| line.contains("ON events") || line.contains("TABLE events"));
        assert!(index.clone().count() == 2 && index.clone().all(|line| !line.contains("user_id")));
    }
}
