//! How we reach the worker: with its password, which never leaves this module in readable form
//! except into a private password file for the server's own programs.

use std::{
    fmt, fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio_postgres::Config;
use understudy_crds::experiment::LocalTarget;

use super::{
    account::Account,
    session::{Names, Session},
};
use crate::error::{ErrorKind, Side, UserError};

/// The name under which our sessions show up in the worker's `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "understudy";

/// The worker under study.
#[derive(Clone, Debug)]
pub struct Worker {
    target: LocalTarget,
    port: u16,
    password: Option<Password>,
}

#[derive(Clone)]
struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Worker {
    /// From the document; reads the password file.
    pub fn new(target: &LocalTarget) -> Result<Self, UserError> {
        let port = u16::try_from(target.port).ok().filter(|port| *port != 0).ok_or_else(|| {
            UserError::new(ErrorKind::InvalidField, Side::Document, "spec.target.local.port: not a port")
                .fact("value", target.port)
                .remedy("use a number between 1 and 65535")
                .nothing_changed()
        })?;
        let password = match &target.password_file {
            None => None,
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|e| {
                    UserError {
                        what: "spec.target.local.passwordFile: can't be read".into(),
                        side: Side::Document,
                        ..UserError::file("", Path::new(file), &e)
                    }
                    .remedy("name a readable file whose first line is the password")
                    .nothing_changed()
                })?;
                Some(Password(text.lines().next().unwrap_or_default().to_owned()))
            }
        };
        Ok(Self { target: target.clone(), port, password })
    }

    /// Its address, for people.
    pub fn label(&self) -> String {
        if self.is_socket() {
            format!("{}/.s.PGSQL.{}", self.target.host, self.port)
        } else {
            format!("{}:{}", self.target.host, self.port)
        }
    }

    /// The document's words about it.
    pub fn target(&self) -> &LocalTarget {
        &self.target
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Opens a control session to the experiment's database.
    pub async fn connect(&self) -> Result<Session, UserError> {
        self.connect_to(&self.target.database, Names::System).await
    }

    /// Opens a session to a database.
    pub async fn connect_to(&self, database: &str, names: Names) -> Result<Session, UserError> {
        Session::open(&self.config(database), Side::Worker, &self.label(), names).await
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host(&self.target.host)
            .port(self.port)
            .user(&self.target.user)
            .dbname(database)
            .application_name(APPLICATION_NAME)
            .connect_timeout(Duration::from_secs(10))
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(Duration::from_secs(60));
        if let Some(Password(password)) = &self.password {
            config.password(password);
        }
        config
    }

    /// Writes the password where `libpq` finds it: a private file of the account. `None` when the
    /// worker asks for none.
    pub fn write_password_file(&self, path: &Path, account: &Account) -> Result<Option<PathBuf>, UserError> {
        let Some(Password(password)) = &self.password else { return Ok(None) };
        let failed = |e: &std::io::Error| UserError::file("write a password file", path, e);
        let _ = fs::remove_file(path);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| failed(&e))?;
        file.write_all(password_line(password).as_bytes()).map_err(|e| failed(&e))?;
        account.take(path)?;
        Ok(Some(path.to_owned()))
    }

    /// A `libpq` connection string without the password.
    pub fn conninfo(&self, password_file: Option<&Path>, application_name: &str) -> String {
        let mut parts = vec![
            ("host", self.target.host.clone()),
            ("port", self.port.to_string()),
            ("user", self.target.user.clone()),
            ("application_name", application_name.to_owned()),
            ("connect_timeout", "10".to_owned()),
            ("sslmode", "prefer".to_owned()),
        ];
        if let Some(file) = password_file {
            parts.push(("passfile", file.display().to_string()));
        }
        let quoted = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
        parts.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect::<Vec<_>>().join(" ")
    }

    fn is_socket(&self) -> bool {
        self.target.host.starts_with('/')
    }
}

fn password_line(password: &str) -> String {
    format!("*:*:*:*:{}\n", password.replace('\\', "\\\\").replace(':', "\\:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> LocalTarget {
        LocalTarget {
            host: "127.0.0.1".into(),
            port: 5432,
            user: "o'neil".into(),
            database: "app".into(),
            password_file: None,
            listen: "127.0.0.1:0".into(),
        }
    }

    #[test]
    fn connection_strings_are_quoted_and_never_hold_the_password() {
        let worker = Worker { password: Some(Password("geheim".into())), ..Worker::new(&target()).expect("worker") };
        let text = worker.conninfo(Some(Path::new("/tmp/p")), "understudy");
        assert_eq!(
            text,
            "host='127.0.0.1' port='5432' user='o\\'neil' application_name='understudy' connect_timeout='10' sslmode='prefer' passfile='/tmp/p'"
        );
        assert!(!format!("{worker:?}").contains("geheim"));
    }

    #[test]
    fn password_lines_escape_what_the_format_uses() {
        assert_eq!(password_line(r"a:b\c"), "*:*:*:*:a\\:b\\\\c\n");
    }

    #[test]
    fn a_password_file_that_is_not_there_names_the_field() {
        let target = LocalTarget { password_file: Some("/nowhere/p".into()), ..target() };
        let error = Worker::new(&target).expect_err("no file");
        assert_eq!(
            error.to_string(),
            "spec.target.local.passwordFile: can't be read\n  path     /nowhere/p\n  reason   no such file or directory\n  do       name a readable file whose first line is the password\n  nothing was changed"
        );
    }
}
