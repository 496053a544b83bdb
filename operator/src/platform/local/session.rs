//! A control connection to the worker or to an arm: every wait has a limit, every error names the
//! server and never carries data.

use std::{future::Future, sync::Arc, time::Duration};

use tokio_postgres::{
    Client, Config, NoTls, Row, Socket, Statement,
    config::SslMode,
    error::SqlState,
    tls::MakeTlsConnect,
    types::{FromSql, ToSql},
};
use understudy_mirror::tls::TlsClient;

use crate::{
    error::{ErrorKind, Side, UserError, plain_io},
    peer::postgres::MutualTls,
};

/// How long a control statement may take, unless it is told otherwise.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Settings of our own sessions: the server's timeouts are for its clients, and nothing that a user
/// made may stand in for a system function.
const OWN: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
                   SET idle_in_transaction_session_timeout = 0; SET client_min_messages = error";

/// An open control connection.
#[derive(Debug)]
pub struct Session {
    client: Arc<Client>,
    tls: Option<MutualTls>,
    side: Side,
    label: String,
    pid: i32,
}

/// What `search_path` a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// System functions and tables only: for our own statements.
    System,
    /// As the role and the database have it: for the user's statements.
    User,
}

impl Session {
    /// Connects, within ten seconds.
    pub async fn open(config: &Config, side: Side, label: &str, names: Names) -> Result<Self, UserError> {
        Self::open_by(config, None, side, label, names).await
    }

    /// Connects over mutual TLS, within ten seconds. A server that offers none is an error.
    pub async fn open_over_tls(
        config: &Config,
        tls: &TlsClient,
        side: Side,
        label: &str,
        names: Names,
    ) -> Result<Self, UserError> {
        let mut config = config.clone();
        config.ssl_mode(SslMode::Require);
        Self::open_by(&config, Some(MutualTls(tls.clone())), side, label, names).await
    }

    async fn open_by(
        config: &Config,
        tls: Option<MutualTls>,
        side: Side,
        label: &str,
        names: Names,
    ) -> Result<Self, UserError> {
        let connect = async {
            let client = match tls.clone() {
                None => connected(config, NoTls).await?,
                Some(tls) => connected(config, tls).await?,
            };
            client.batch_execute(OWN).await?;
            if names == Names::System {
                client.batch_execute("SET search_path = pg_catalog").await?;
            }
            let pid = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await?.try_get(0)?;
            Ok((client, pid))
        };
        match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok((client, pid))) => Ok(Self { client: Arc::new(client), tls, side, label: label.to_owned(), pid }),
            Ok(Err(error)) => Err(refused(&error, config, side, label)),
            Err(_) => Err(UserError::new(ErrorKind::TimedOut, side, format!("{} does not answer", who(side)))
                .fact(word(side), label)
                .fact("limit", format!("{} s to connect", CONNECT_LIMIT.as_secs()))),
        }
    }

    /// The number of this session's backend.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The connection itself, for what is not offered here. Mind the limits.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, to be used from another task.
    pub fn shared_client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }

    /// Prepares a statement.
    pub async fn prepare(&self, sql: &str) -> Result<Statement, UserError> {
        self.within(STATEMENT_LIMIT, self.client.prepare(sql)).await
    }

    /// Rows of a query.
    pub async fn rows(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, UserError> {
        self.within(STATEMENT_LIMIT, self.client.query(sql, values)).await
    }

    /// The first column of the first row of a query; `None` without a row or with a null.
    pub async fn value<T>(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Option<T>, UserError>
    where
        T: for<'a> FromSql<'a>,
    {
        match self.rows(sql, values).await?.first() {
            Some(row) => row.try_get(0).map_err(|e| self.failed(&e)),
            None => Ok(None),
        }
    }

    /// Runs statements that need no answer.
    pub async fn run(&self, sql: &str, limit: Duration) -> Result<(), UserError> {
        self.within(limit, self.client.batch_execute(sql)).await
    }

    /// Waits for something this connection does, within a limit.
    pub async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, UserError> {
        if let Ok(result) = tokio::time::timeout(limit, work).await {
            return result.map_err(|e| self.failed(&e));
        }
        // The server would go on with a statement that nobody waits for any more.
        let cancelling = async {
            match self.tls.clone() {
                None => self.client.cancel_token().cancel_query(NoTls).await,
                Some(tls) => self.client.cancel_token().cancel_query(tls).await,
            }
        };
        let _ = tokio::time::timeout(CONNECT_LIMIT, cancelling).await;
        Err(UserError::new(ErrorKind::TimedOut, self.side, format!("{} takes too long to answer", who(self.side)))
            .fact(word(self.side), &self.label)
            .fact("limit", format!("{} s", limit.as_secs())))
    }

    /// What went wrong with a statement, in the server's own words.
    pub fn failed(&self, error: &tokio_postgres::Error) -> UserError {
        let kind = match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => ErrorKind::DiskFull,
            Some(_) => ErrorKind::Refused,
            None => ErrorKind::Unreachable,
        };
        let what = match kind {
            ErrorKind::Unreachable => format!("the connection to {} broke", who(self.side)),
            _ => format!("{} refuses a statement", who(self.side)),
        };
        UserError::new(kind, self.side, what).fact(word(self.side), &self.label).fact("reason", said(error))
    }
}

async fn connected<T>(config: &Config, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // The task ends with the connection; its error comes back from the next statement.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// The server's message, or the system's. Not its DETAIL, which may hold a user's data.
pub fn said(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return match db.hint() {
            Some(hint) => format!("{}\n{hint}", db.message()),
            None => db.message().to_owned(),
        };
    }
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    match source.downcast_ref::<std::io::Error>() {
        Some(io) => plain_io(io),
        None => source.to_string(),
    }
}

fn who(side: Side) -> &'static str {
    match side {
        Side::Arm => "the clone",
        _ => "the worker",
    }
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Arm => "clone",
        _ => "worker",
    }
}

fn refused(error: &tokio_postgres::Error, config: &Config, side: Side, label: &str) -> UserError {
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or_default();
    let refuse = |what: &str, remedy: &str| {
        UserError::new(ErrorKind::Refused, side, format!("{} {what}", who(side)))
            .fact(word(side), format!("{label}, user {user}, database {database}"))
            .fact("reason", said(error))
            .remedy(remedy)
    };
    let error = match error.code().map(SqlState::code) {
        Some("28P01") => refuse(
            "does not accept the password",
            "put the right password on the first line of spec.target.local.passwordFile",
        ),
        Some("28000") if side == Side::Arm => refuse(
            "does not let us in",
            "it lets in nobody but the mirror: from the address that ordered its cut, with its certificate",
        ),
        Some("28000") => refuse(
            "does not let us in",
            "allow this user and database from this machine in the worker's pg_hba.conf, then SELECT pg_reload_conf();",
        ),
        Some("3D000") => refuse("has no such database", "name a database of the worker in spec.target.local.database"),
        Some("53300") => refuse("has no free connection", "raise max_connections, or close sessions"),
        Some("57P03") => refuse("is not ready yet", "wait until it has started"),
        Some(_) => refuse("refuses the connection", "see its log for more"),
        None if said(error).contains("password") => {
            refuse("asks for a password", "name a file with the password in spec.target.local.passwordFile")
        }
        None => {
            let error = UserError::new(ErrorKind::Unreachable, side, format!("{} can't be reached", who(side)))
                .fact(word(side), label)
                .fact("reason", said(error));
            match side {
                // No field of the document says where a clone is.
                Side::Arm => error,
                _ => error.remedy("check spec.target.local.host and spec.target.local.port, and that the server runs"),
            }
        }
    };
    if side == Side::Worker { error.nothing_changed() } else { error }
}
