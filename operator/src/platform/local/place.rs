//! Where the local platform puts what it makes: data directories, sockets, logs.
//!
//! It makes the two private directories and checks that the server's account can reach them; what
//! goes into them is not its business.

use std::{
    env, fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::Rng;

use super::{account::Account, process::Launch};
use crate::error::{ErrorKind, Side, UserError, plain_io};

/// The longest path of a unix socket, in bytes.
pub const MAX_SOCKET_PATH_BYTES: usize = 107;

/// The directories of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Data directories and logs; the account's own, closed to others.
    pub data: PathBuf,
    /// Unix sockets and password files; the account's own, closed to others, with a short path.
    pub sockets: PathBuf,
    /// What the user should know about the choice.
    pub note: Option<String>,
}

impl Place {
    /// Where a run with the work directory `base` puts its data: below it, or elsewhere when the
    /// server's account can't get there. Nothing is made yet except `base`.
    pub async fn choose(base: &Path, account: &Account) -> Result<Self, UserError> {
        fs::create_dir_all(base).map_err(|e| UserError::file("make the work directory", base, &e))?;
        let base = fs::canonicalize(base).map_err(|e| UserError::file("find the work directory", base, &e))?;
        let id = random_name();
        let sockets = Path::new("/tmp").join(format!("understudy-{id}"));
        if can_enter(&base, account).await? {
            return Ok(Self { data: base.join("servers"), sockets, note: None });
        }
        let temporary = [env::var_os("TMPDIR").map(PathBuf::from), Some("/var/tmp".into()), Some("/tmp".into())];
        for directory in temporary.into_iter().flatten().filter(|d| d.is_absolute() && d.is_dir()) {
            if can_enter(&directory, account).await? {
                let data = directory.join(format!("understudy-{id}"));
                let blocked = account.blocked_at(&base).unwrap_or(&base);
                let note = format!(
                    "clones go to {}: the account {} can't enter {}",
                    data.display(),
                    account.name(),
                    blocked.display()
                );
                return Ok(Self { data, sockets, note: Some(note) });
            }
        }
        Err(UserError::new(ErrorKind::File, Side::Host, "there is no directory that the server's account can enter")
            .fact("account", account.name())
            .fact("tried", format!("{}, TMPDIR, /var/tmp, /tmp", base.display()))
            .remedy("name an output directory that others may enter, with --out")
            .nothing_changed())
    }

    /// Makes both directories, private to the account. They must not exist yet, except for `data`
    /// below the work directory, which earlier runs may have left empty.
    pub fn make(&self, account: &Account) -> Result<(), UserError> {
        private_directory(&self.data, account)?;
        private_directory(&self.sockets, account)
    }

    /// The path of the socket that a server on `port` makes.
    pub fn socket(&self, port: u16) -> PathBuf {
        self.sockets.join(format!(".s.PGSQL.{port}"))
    }
}

/// Makes a directory that only the account may enter. One that is there already must be empty or
/// the account's own.
pub fn private_directory(path: &Path, account: &Account) -> Result<(), UserError> {
    let failed = |e: &std::io::Error| UserError::file("make a private directory", path, e);
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(|e| failed(&e))?;
            if !found.is_dir() {
                return Err(UserError::new(ErrorKind::File, Side::Host, "something is in the way of a directory")
                    .fact("path", path.display())
                    .remedy("remove it"));
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|e| failed(&e))?;
        }
        Err(e) => return Err(failed(&e)),
    }
    account.take(path)
}

/// Whether the account can enter a directory; asked by trying.
pub(super) async fn can_enter(directory: &Path, account: &Account) -> Result<bool, UserError> {
    if *account == Account::Own {
        return Ok(true);
    }
    let done =
        Launch::new("test", account, "KILL").argument("-x").argument(directory).run(Duration::from_secs(10)).await?;
    Ok(done.status.success())
}

/// Eight letters and digits that nobody guesses twice.
pub(super) fn random_name() -> String {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    (0..8).filter_map(|_| LETTERS.get(rng.random_range(0..LETTERS.len()))).map(|b| char::from(*b)).collect()
}

/// Free and total bytes of the file system that holds `path`, as an ordinary user may use them.
pub fn disk_space(path: &Path) -> Result<DiskSpace, UserError> {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let found =
        rustix::fs::statvfs(existing).map_err(|e| UserError::file("ask for free disk space", existing, &e.into()))?;
    Ok(DiskSpace {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        file_system: found.f_fsid,
    })
}

/// How much room a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Free for ordinary users, bytes.
    pub free_bytes: u64,
    /// In all, bytes.
    pub total_bytes: u64,
    /// Which file system; directories with the same number share their room.
    pub file_system: u64,
}

/// Removes a directory with all that is in it; one that is not there is fine.
pub fn remove_tree(path: &Path) -> Result<(), UserError> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(UserError::new(ErrorKind::File, Side::Host, "can't remove a directory")
            .fact("path", path.display())
            .fact("reason", plain_io(&e))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_get_short_private_paths_and_data_stays_in_the_work_directory() {
        let account = Account::detect().expect("account");
        let base = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().expect("dir");
        let place = Place::choose(base.path(), &account).await.expect("a place");
        assert_eq!(place.data, fs::canonicalize(base.path()).expect("path").join("servers"));
        assert_eq!(place.note, None);
        assert!(place.socket(65535).as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
        place.make(&account).expect("directories");
        for directory in [&place.data, &place.sockets] {
            assert_eq!(fs::metadata(directory).expect("made").permissions().mode() & 0o777, 0o700);
        }
        remove_tree(&place.sockets).expect("removed");
        remove_tree(&place.sockets).expect("removing twice is fine");
    }

    #[tokio::test]
    async fn a_work_directory_that_the_account_cannot_enter_is_left_and_said() {
        let account = Account::detect().expect("account");
        if account == Account::Own {
            eprintln!("skipped: only root runs servers under another account");
            return;
        }
        let base = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("dir");
        let place = Place::choose(base.path(), &account).await.expect("a place");
        assert!(!place.data.starts_with(base.path()));
        let note = place.note.expect("a note");
        assert!(note.contains("can't enter"), "{note}");
    }
}
