//! Makes new, empty clusters: for the demo and for tests, never for clones.
//!
//! A cluster is initialised once for each directory of templates and then copied. Copies share
//! their system identifier, so they must not replicate from one another by accident.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use super::{
    account::Account, binaries::Binaries, place::private_directory, process::Launch, server_log::last_complaint,
};
use crate::error::{ErrorKind, Side, UserError};

/// The superuser of clusters that are made here.
pub const SUPERUSER: &str = "postgres";

const LIMIT: Duration = Duration::from_secs(120);

/// Makes a cluster in `data_dir`, which must not exist, by copying the template in `templates` (made
/// when it is not there). `templates` must be a directory that the account may write to.
pub async fn make_cluster(
    binaries: &Binaries,
    account: &Account,
    templates: &Path,
    data_dir: &Path,
) -> Result<(), UserError> {
    let template = template(binaries, account, templates).await?;
    let done = Launch::new("cp", account, "KILL")
        .arguments(["-a", "--reflink=auto", "--"])
        .argument(template)
        .argument(data_dir)
        .run(LIMIT)
        .await?;
    if done.status.success() { Ok(()) } else { Err(failed("copy a new cluster", data_dir, &done.stderr)) }
}

async fn template(binaries: &Binaries, account: &Account, templates: &Path) -> Result<PathBuf, UserError> {
    let template = templates.join(format!("template-{}", binaries.version));
    if template.is_dir() {
        return Ok(template);
    }
    // Several processes may want it at once; the lock ends with the file, also when we are killed.
    let lock_path = templates.join("lock");
    let lock = File::create(&lock_path).map_err(|e| UserError::file("lock the templates", &lock_path, &e))?;
    let lock = tokio::task::spawn_blocking(move || flock(&lock, FlockOperation::LockExclusive).map(|()| lock))
        .await
        .map_err(|e| failed("lock the templates", &lock_path, &e.to_string()))?
        .map_err(|e| UserError::file("lock the templates", &lock_path, &e.into()))?;
    if !template.is_dir() {
        let unfinished = templates.join(format!("unfinished-{}", binaries.version));
        super::place::remove_tree(&unfinished)?;
        private_directory(&unfinished, account)?;
        let done = Launch::new(binaries.program("initdb"), account, "KILL")
            .arguments(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", SUPERUSER, "-D"])
            .argument(&unfinished)
            .run(LIMIT)
            .await?;
        if !done.status.success() {
            return Err(failed("initialise a new cluster", &unfinished, &done.stderr));
        }
        fs::rename(&unfinished, &template).map_err(|e| UserError::file("keep a new cluster", &template, &e))?;
    }
    drop(lock);
    Ok(template)
}

fn failed(doing: &str, path: &Path, stderr: &str) -> UserError {
    let reason = last_complaint(stderr)
        .or_else(|| stderr.lines().find(|line| line.contains("error")).map(str::to_owned))
        .or_else(|| stderr.lines().last().map(str::to_owned))
        .unwrap_or_default();
    let kind = if stderr.contains("No space left on device") { ErrorKind::DiskFull } else { ErrorKind::Exited };
    UserError::new(kind, Side::Host, format!("can't {doing}")).fact("path", path.display()).fact("reason", reason)
}
