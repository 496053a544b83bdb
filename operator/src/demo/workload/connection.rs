//! One connection of a client, with the statements that are prepared on it.

use std::{collections::HashMap, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, Error, NoTls, Statement, error::SqlState};

use super::role::Role;

/// How long a connection may take to open, or to end.
const LIMIT: Duration = Duration::from_secs(5);

/// An arrival was not served as intended.
#[derive(Debug)]
pub(super) enum ActionError {
    Database(Error),
    /// An answer was not what the application relies on.
    Answer(&'static str),
}

impl From<Error> for ActionError {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl ActionError {
    /// What went wrong, without anything that users sent: the SQLSTATE, or the kind of failure.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Database(error) => match error.code() {
                Some(state) => format!("SQLSTATE {}", state.code()),
                None if error.is_closed() => "the connection was closed".to_owned(),
                None => "the connection failed".to_owned(),
            },
            Self::Answer(what) => (*what).to_owned(),
        }
    }

    pub(super) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION))
    }
}

/// An open connection with the statements that are prepared on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    prepared: HashMap<&'static str, Statement>,
    driver: JoinHandle<()>,
}

impl Connection {
    pub(super) async fn open(config: &Config, role: Role) -> Result<Self, Error> {
        let mut config = config.clone();
        config.application_name(role.application_name()).connect_timeout(LIMIT);
        let (client, connection) = config.connect(NoTls).await?;
        let driver = tokio::spawn(async move {
            // What ended the connection reaches the session as the error of its next statement.
            let _ = connection.await;
        });
        Ok(Self { client, prepared: HashMap::new(), driver })
    }

    /// The named statement for `sql`, prepared at its first use.
    pub(super) async fn prepared(&mut self, sql: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Says goodbye to the server and waits until the connection has ended.
    pub(super) async fn close(self) {
        let Self { client, prepared, driver } = self;
        drop(prepared);
        drop(client);
        let abort = driver.abort_handle();
        if timeout(LIMIT, driver).await.is_err() {
            abort.abort();
        }
    }
}
