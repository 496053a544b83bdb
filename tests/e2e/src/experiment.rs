//! Manifests as a user writes them, and the directory of a run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use understudy_crds::{ShadowExperiment, report::Report};
use understudy_operator::{
    run::{Deciding, Options},
    screen::{Format, Screen},
};

/// A directory of one test: its manifests, its results. It goes with this.
#[derive(Debug)]
pub struct Desk {
    directory: TempDir,
}

impl Desk {
    /// A new directory that every account may enter.
    pub fn new() -> Self {
        let open = fs::Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix("e2e-").permissions(open).tempdir_in("/tmp");
        Self { directory: directory.expect("a directory for the test") }
    }

    /// Where the results of an experiment go.
    pub fn out(&self, name: &str) -> PathBuf {
        // As the kernel names it, so that it can be found in the working directories of processes.
        fs::canonicalize(self.directory.path()).expect("its path").join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("a file of the test");
        path
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

/// A manifest: `spec` is what stands below `target`, indented as there.
pub fn manifest(name: &str, port: u16, spec: &str) -> String {
    manifest_of(name, &format!("host: 127.0.0.1, port: {port}, user: postgres, database: postgres"), spec)
}

/// A manifest with a target of its own; the mirror takes any free port unless it says where to listen.
pub fn manifest_of(name: &str, local: &str, spec: &str) -> String {
    let listen = if local.contains("listen:") { "" } else { ", listen: \"127.0.0.1:0\"" };
    format!(
        "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\nmetadata: {{ name: {name} }}\nspec:\n  \
         target:\n    local: {{ {local}{listen} }}\n{spec}"
    )
}

/// How an experiment is run in a test's own process, its results in `out`.
pub fn options(experiment: ShadowExperiment, out: PathBuf) -> Options {
    Options {
        experiment,
        store: format!("sqlite:{}", out.join("results.db").display()),
        out,
        admin: None,
        promotion: Deciding::Policy,
        verify: false,
        keep: false,
        screen: Screen::new(Format::Text),
    }
}

/// Reads `report.json` of a run.
pub fn report(out: &Path) -> Report {
    let path = out.join("report.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
