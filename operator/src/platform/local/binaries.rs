//! Finds PostgreSQL server binaries of the right major version.
//!
//! It looks and asks for versions; it must not install or change anything.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{account::Account, process::Launch};
use crate::error::{ErrorKind, Side, UserError};

/// A directory with `postgres`, `initdb`, `pg_basebackup` and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The directory.
    pub directory: PathBuf,
    /// What `postgres --version` says.
    pub version: Version,
}

/// A server version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 15 in 15.18.
    pub major: u32,
    /// 18 in 15.18; 0 for a version that is not released.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// From `server_version_num`: 150018.
    pub const fn from_number(number: u32) -> Self {
        Self { major: number / 10_000, minor: number % 10_000 }
    }

    /// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub fn from_banner(banner: &str) -> Option<Self> {
        let word = banner.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>();
        let major = digits(word);
        let minor = word.get(major.len()..).and_then(|rest| rest.strip_prefix('.')).map(digits).unwrap_or_default();
        Some(Self { major: major.parse().ok()?, minor: minor.parse().unwrap_or(0) })
    }
}

impl Binaries {
    /// The path of one program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Binaries of this major version: the usual places, `pg_config`, then `PATH`.
    pub async fn find(major: u32, account: &Account) -> Result<Self, UserError> {
        let mut found = Vec::new();
        for directory in candidates(major, &search_path()) {
            if let Ok(binaries) = Self::in_directory(&directory, account).await {
                if binaries.version.major == major {
                    return Ok(binaries);
                }
                found.push(format!("{} in {}", binaries.version, directory.display()));
            }
        }
        Err(UserError::new(ErrorKind::Missing, Side::Host, format!("there is no PostgreSQL {major} server on this machine"))
            .fact("found", if found.is_empty() { "no PostgreSQL server".to_owned() } else { found.join("\n") })
            .fact("reason", "a clone needs the worker's major version")
            .remedy(format!(
                "install the package postgresql-{major} (Debian, Ubuntu; other versions from apt.postgresql.org) or postgresql{major}-server (Red Hat), or put its directory into PATH"
            ))
            .nothing_changed())
    }

    /// The newest binaries there are on this machine.
    pub async fn newest(account: &Account) -> Result<Self, UserError> {
        let mut best: Option<Self> = None;
        for directory in (13..=18).rev().flat_map(|major| candidates(major, &search_path())) {
            if let Ok(binaries) = Self::in_directory(&directory, account).await
                && best.as_ref().is_none_or(|best| best.version < binaries.version)
            {
                best = Some(binaries);
            }
        }
        best.ok_or_else(|| {
            UserError::new(ErrorKind::Missing, Side::Host, "there is no PostgreSQL server on this machine")
                .remedy("install PostgreSQL 13 or newer: apt-get install postgresql (Debian, Ubuntu), dnf install postgresql-server (Red Hat)")
                .nothing_changed()
        })
    }

    /// Binaries in a directory that the user named in `field`; they must be of this major version.
    pub async fn named(field: &str, directory: &Path, major: u32, account: &Account) -> Result<Self, UserError> {
        let error = |reason: String| {
            UserError::new(ErrorKind::InvalidField, Side::Document, format!("{field}: not the server binaries of PostgreSQL {major}"))
                .fact("value", directory.display())
                .fact("reason", reason)
                .remedy(format!("name the directory that holds postgres and pg_basebackup of version {major}, like /usr/lib/postgresql/{major}/bin"))
                .nothing_changed()
        };
        let binaries = Self::in_directory(directory, account).await.map_err(error)?;
        if binaries.version.major == major {
            Ok(binaries)
        } else {
            Err(error(format!("postgres there is version {}; the worker is version {major}", binaries.version)))
        }
    }

    async fn in_directory(directory: &Path, account: &Account) -> Result<Self, String> {
        for program in ["postgres", "pg_basebackup", "initdb"] {
            if !directory.join(program).is_file() {
                return Err(format!("there is no {program} in it"));
            }
        }
        // Run as the account that will run it: a directory that it can't enter is no use.
        let done = Launch::new(directory.join("postgres"), account, "KILL")
            .argument("--version")
            .run(Duration::from_secs(10))
            .await
            .map_err(|e| e.what)?;
        match Version::from_banner(&done.stdout) {
            Some(version) if done.status.success() => Ok(Self { directory: directory.to_owned(), version }),
            _ => Err(done.stderr.lines().next().unwrap_or("postgres --version says nothing").to_owned()),
        }
    }
}

/// The directories that may hold binaries of this major version, the likeliest first, each once.
fn candidates(major: u32, path: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = vec![
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
        PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin")),
        PathBuf::from(format!("/usr/local/pgsql-{major}/bin")),
        PathBuf::from("/usr/local/pgsql/bin"),
    ];
    for directory in path {
        // What is in PATH may be a link into the real directory, or a wrapper beside pg_config.
        if let Some(real) =
            fs::canonicalize(directory.join("postgres")).ok().and_then(|p| p.parent().map(Path::to_owned))
        {
            all.push(real);
        }
    }
    let mut seen = Vec::new();
    all.retain(|directory| {
        directory.is_dir() && !seen.contains(directory) && {
            seen.push(directory.clone());
            true
        }
    });
    all
}

fn search_path() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let bindir = std::process::Command::new("pg_config").arg("--bindir").output();
    if let Some(text) = bindir.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok()) {
        directories.push(PathBuf::from(text.trim()));
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_banners_and_numbers() {
        let cases = [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some((15, 18))),
            ("postgres (PostgreSQL) 18beta1", Some((18, 0))),
            ("postgres (PostgreSQL) 13.0", Some((13, 0))),
            ("postgres: command not found", None),
            ("", None),
        ];
        for (banner, expected) in cases {
            assert_eq!(Version::from_banner(banner).map(|v| (v.major, v.minor)), expected, "{banner}");
        }
        assert_eq!(Version::from_number(150_018), Version { major: 15, minor: 18 });
    }

    #[tokio::test]
    async fn a_missing_version_says_what_was_found_and_what_to_install() {
        let account = Account::detect().expect("account");
        let error = Binaries::find(99, &account).await.expect_err("PostgreSQL 99");
        assert_eq!(error.kind, ErrorKind::Missing);
        assert!(error.to_string().contains("install the package postgresql-99"), "{error}");
    }

    #[tokio::test]
    async fn a_named_directory_without_a_server_names_the_field() {
        let account = Account::detect().expect("account");
        let error = Binaries::named("spec.candidates[0].binaries", Path::new("/usr/share"), 15, &account)
            .await
            .expect_err("no server in /usr/share");
        assert!(error.to_string().starts_with("spec.candidates[0].binaries: "), "{error}");
        assert!(error.to_string().contains("there is no postgres in it"), "{error}");
    }
}
