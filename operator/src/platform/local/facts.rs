//! What the worker says about itself, read once before anything is done.
//!
//! Only reads; what the facts mean is decided in [`super::preflight`] and [`super::arm_config`].

use std::time::Duration;

use understudy_mirror::keepalive::Keepalive;

use super::{
    arm_config::WorkerSetting,
    binaries::Version,
    session::{STATEMENT_LIMIT, Session},
};
use crate::error::UserError;

/// Columns of unique indexes whose default calls a volatile function, as `gen_random_uuid()`; a sequence's next number is the
/// same on all of them.
const OWN_KEYS: &str = "
    SELECT format('%I.%I.%I', n.nspname, t.relname, a.attname)
      FROM pg_attrdef d
      JOIN pg_class t ON t.oid = d.adrelid
      JOIN pg_namespace n ON n.oid = t.relnamespace
      JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
     WHERE n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
       AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisunique AND a.attnum = ANY (i.indkey))
       AND EXISTS (SELECT FROM regexp_matches(d.adbin::text, ':funcid ([0-9]+)', 'g') AS called (number)
                     JOIN pg_proc p ON p.oid = called.number[1]::oid
                    WHERE p.provolatile = 'v' AND p.proname <> 'nextval')
     ORDER BY 1";

/// The worker, as far as a clone is concerned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerFacts {
    /// Its version.
    pub version: Version,
    /// Whether our user is a superuser.
    pub superuser: bool,
    /// Whether it is a standby itself.
    pub in_recovery: bool,
    /// Its settings.
    pub settings: Vec<WorkerSetting>,
    /// `max_wal_senders` that are taken.
    pub wal_senders_used: i64,
    /// `max_replication_slots` that are taken.
    pub slots_used: i64,
    /// Bytes of all databases.
    pub data_bytes: u64,
    /// Databases that accept connections, by name.
    pub databases: Vec<String>,
    /// Tablespaces with a place of their own.
    pub tablespaces: Vec<Tablespace>,
    /// Unlogged tables of the experiment's database; a clone has them empty.
    pub unlogged_tables: Vec<String>,
    /// Enabled subscriptions, by name.
    pub subscriptions: Vec<String>,
    /// Columns of the experiment's database that tell rows apart and that each server fills in as it likes.
    pub own_keys: Vec<String>,
}

/// A tablespace outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tablespace {
    /// Its number, for a name that is unique.
    pub oid: u32,
    /// Its directory on the worker.
    pub location: String,
}

impl WorkerFacts {
    /// Asks the worker.
    pub async fn read(session: &Session) -> Result<Self, UserError> {
        let row = session
            .within(
                STATEMENT_LIMIT,
                session.client().query_one(
                    "SELECT current_setting('server_version_num')::int,
                            current_setting('is_superuser') = 'on',
                            pg_is_in_recovery(),
                            (SELECT count(*) FROM pg_stat_replication),
                            (SELECT count(*) FROM pg_replication_slots),
                            (SELECT coalesce(sum(pg_database_size(oid)), 0)::bigint FROM pg_database
                              WHERE has_database_privilege(oid, 'connect') OR current_setting('is_superuser') = 'on')",
                    &[],
                ),
            )
            .await?;
        let get = |e: tokio_postgres::Error| session.failed(&e);
        let number: i32 = row.try_get(0).map_err(get)?;
        let data_bytes: i64 = row.try_get(5).map_err(get)?;
        Ok(Self {
            version: Version::from_number(u32::try_from(number).unwrap_or(0)),
            superuser: row.try_get(1).map_err(get)?,
            in_recovery: row.try_get(2).map_err(get)?,
            wal_senders_used: row.try_get(3).map_err(get)?,
            slots_used: row.try_get(4).map_err(get)?,
            data_bytes: u64::try_from(data_bytes).unwrap_or(0),
            settings: read_settings(session).await?,
            databases: names(session, "SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY 1").await?,
            tablespaces: read_tablespaces(session).await?,
            unlogged_tables: names(
                session,
                "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                  WHERE relpersistence = 'u' AND relkind IN ('r', 'm') ORDER BY 1",
            )
            .await?,
            subscriptions: names(session, "SELECT subname::text FROM pg_stat_subscription ORDER BY 1").await?,
            own_keys: names(session, OWN_KEYS).await?,
        })
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.iter().find(|s| s.name == name).map(|s| s.value.as_str())
    }

    /// A setting that is a whole number; 0 when it is not there.
    pub fn number(&self, name: &str) -> i64 {
        self.setting(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// When it gives up clients that say nothing any more.
    pub fn keepalive(&self) -> Keepalive {
        let set = |name| u64::try_from(self.number(name)).ok().filter(|value| *value > 0);
        Keepalive {
            idle: set("tcp_keepalives_idle").map(Duration::from_secs),
            interval: set("tcp_keepalives_interval").map(Duration::from_secs),
            count: set("tcp_keepalives_count").and_then(|count| u32::try_from(count).ok()),
            user_timeout: set("tcp_user_timeout").map(Duration::from_millis),
        }
    }

    /// `PostgreSQL 15.18`.
    pub fn product(&self) -> String {
        format!("PostgreSQL {}", self.version)
    }
}

/// Settings of the server itself: what a role or a database set for our session stands in the
/// catalogs and is cloned with them, so the value below it is looked up in the files.
async fn read_settings(session: &Session) -> Result<Vec<WorkerSetting>, UserError> {
    let rows = session
        .rows(
            "SELECT s.name, coalesce(f.setting, s.reset_val, s.setting, ''), s.context,
                    CASE WHEN f.setting IS NOT NULL THEN 'configuration file' ELSE s.source END, s.vartype
               FROM pg_settings s
               LEFT JOIN LATERAL (SELECT setting FROM pg_file_settings f
                                   WHERE f.name = s.name AND f.applied ORDER BY seqno DESC LIMIT 1) f
                      ON s.source IN ('user', 'database', 'database user', 'client', 'session')
              ORDER BY s.name",
            &[],
        )
        .await;
    let rows = match rows {
        Ok(rows) => rows,
        // pg_file_settings is for superusers; the preflight says so in its own words.
        Err(_) => {
            session
                .rows(
                    "SELECT name, coalesce(reset_val, ''), context, source, vartype FROM pg_settings ORDER BY name",
                    &[],
                )
                .await?
        }
    };
    rows.iter()
        .map(|row| {
            Ok(WorkerSetting {
                name: row.try_get(0)?,
                value: row.try_get(1)?,
                context: row.try_get(2)?,
                source: row.try_get(3)?,
            })
        })
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|e| session.failed(&e))
}

async fn read_tablespaces(session: &Session) -> Result<Vec<Tablespace>, UserError> {
    let rows = session
        .rows(
            "SELECT oid, pg_tablespace_location(oid) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '/%'",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(Tablespace { oid: row.try_get(0)?, location: row.try_get(1)? }))
        .collect::<Result<_, tokio_postgres::Error>>()
        .map_err(|e| session.failed(&e))
}

async fn names(session: &Session, sql: &str) -> Result<Vec<String>, UserError> {
    let rows = session.rows(sql, &[]).await?;
    rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(|e| session.failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_worker_leaves_to_the_system_is_left_to_the_system() {
        let setting = |name: &str, value: &str| WorkerSetting {
            name: name.to_owned(),
            value: value.to_owned(),
            source: String::new(),
            context: String::new(),
        };
        let settings = vec![
            setting("tcp_keepalives_idle", "60"),
            setting("tcp_keepalives_interval", "0"),
            setting("tcp_keepalives_count", "6"),
            setting("tcp_user_timeout", "90000"),
        ];
        let found = WorkerFacts { settings, ..WorkerFacts::default() }.keepalive();
        let (idle, user_timeout) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(90)));
        assert_eq!(found, Keepalive { idle, interval: None, count: Some(6), user_timeout });
        assert_eq!(WorkerFacts::default().keepalive(), Keepalive::default());
    }
}
