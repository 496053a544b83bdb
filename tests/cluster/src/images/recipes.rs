//! What is in each image, and how it starts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{hexadecimal, tree::Tree};
use crate::{
    failure::{Outcome, Trying},
    layout::Layout,
    program::run,
    progress::warn,
};

/// Where Debian's PostgreSQL is, by major version.
const SERVERS: &str = "/usr/lib/postgresql";

/// What a shell script, `kubectl exec` and `kubectl cp` expect.
const TOOLS: [&str; 39] = [
    "sh", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "dirname", "du", "env", "false",
    "find", "getent", "grep", "head", "hostname", "id", "kill", "ls", "mkdir", "mktemp", "mv", "ps", "rm", "sed",
    "setpriv", "sleep", "sort", "stat", "sync", "tail", "tar", "test", "timeout", "touch", "wc",
];

/// What talks to a PostgreSQL.
const CLIENTS: [&str; 4] = ["psql", "pg_basebackup", "pg_isready", "pg_dump"];

/// An image before it is written.
#[derive(Debug)]
pub struct Image {
    /// Its name without the prefix.
    pub name: &'static str,
    /// Its tag.
    pub tag: String,
    /// Another tag of the very same image, for tests that roll out another image.
    pub also: Option<String>,
    /// Its files.
    pub tree: Tree,
    /// User and group, by number.
    pub user: &'static str,
    /// `NAME=VALUE`.
    pub environment: Vec<String>,
    /// What is started.
    pub entrypoint: Vec<String>,
    /// Its arguments, unless the pod has others.
    pub command: Vec<String>,
}

impl Image {
    /// What tells this image from another.
    pub fn fingerprint(&self) -> Outcome<String> {
        let Self { name, tag, also, tree, user, environment, entrypoint, command } = self;
        let mut hash = Sha256::new();
        hash.update(format!("{name} {tag} {also:?} {user} {environment:?} {entrypoint:?} {command:?}"));
        tree.fingerprint(&mut hash)?;
        Ok(hexadecimal(&hash.finalize()))
    }
}

/// All images. Those of Understudy's programs that were not built are left out, with a word.
pub fn all(layout: &Layout, binaries: &Path) -> Outcome<Vec<Image>> {
    let mut images = vec![
        service("pause", Tree::base(), layout),
        service("coredns", Tree::base(), layout),
        provisioner(layout),
        understudy(layout, binaries)?,
    ];
    images.extend(workload(layout, binaries)?);
    for (major, directory) in servers()? {
        images.push(postgres(&major, &directory)?);
    }
    images.iter_mut().try_for_each(|image| image.tree.link())?;
    Ok(images)
}

/// One static program and nothing else.
fn service(name: &'static str, mut tree: Tree, layout: &Layout) -> Image {
    tree.file(&format!("usr/bin/{name}"), &layout.bin(name));
    Image {
        name,
        tag: "latest".to_owned(),
        also: None,
        tree,
        user: "65532:65532",
        environment: vec!["PATH=/usr/bin".to_owned()],
        entrypoint: vec![format!("/usr/bin/{name}")],
        command: Vec::new(),
    }
}

/// The provisioner runs scripts, in pods of this same image.
fn provisioner(layout: &Layout) -> Image {
    let mut tree = Tree::base();
    tools(&mut tree);
    service("local-path-provisioner", tree, layout)
}

fn understudy(layout: &Layout, binaries: &Path) -> Outcome<Image> {
    let mut tree = Tree::base();
    tools(&mut tree);
    for program in ["understudy", "understudy-operator", "understudy-mirror"] {
        let built = binaries.join(program);
        if built.exists() {
            tree.program(&format!("usr/bin/{program}"), &stripped(layout, program, &built)?);
        } else {
            warn(&format!("{} is not there: the image understudy is without it", built.display()));
        }
    }
    if let Some((_, directory)) = servers()?.pop() {
        for client in CLIENTS {
            tree.program(&format!("usr/bin/{client}"), &directory.join("bin").join(client));
        }
    }
    Ok(Image {
        name: "understudy",
        tag: "latest".to_owned(),
        also: None,
        tree,
        user: "65532:65532",
        environment: vec!["PATH=/usr/bin".to_owned(), "LANG=C.UTF-8".to_owned(), "HOME=/tmp".to_owned()],
        entrypoint: Vec::new(),
        command: vec!["understudy".to_owned()],
    })
}

/// A copy without what only a debugger reads: a third of the size, and of the time to hand it to the nodes.
fn stripped(layout: &Layout, program: &str, built: &Path) -> Outcome<PathBuf> {
    let directory = layout.images().join("stripped");
    fs::create_dir_all(&directory).trying(|| format!("make {}", directory.display()))?;
    let copy = directory.join(program);
    let time = |path: &Path| fs::metadata(path).and_then(|data| data.modified());
    let built_at = time(built).trying(|| format!("read {}", built.display()))?;
    // The copy has the original's time, so that another of the same time is the same.
    if time(&copy).is_ok_and(|copied_at| copied_at == built_at) {
        return Ok(copy);
    }
    let arguments =
        ["--strip-debug".as_ref(), "--preserve-dates".as_ref(), "-o".as_ref(), copy.as_os_str(), built.as_os_str()];
    // Without the tool, the image is large.
    Ok(run("strip", arguments).map_or_else(|_| built.to_owned(), |_| copy))
}

/// The clients of the tests of the operator, where they were built.
fn workload(layout: &Layout, binaries: &Path) -> Outcome<Option<Image>> {
    let built = binaries.join("understudy-workload");
    if !built.exists() {
        return Ok(None);
    }
    let mut tree = Tree::base();
    tree.program("usr/bin/understudy-workload", &stripped(layout, "understudy-workload", &built)?);
    Ok(Some(Image {
        name: "workload",
        tag: "latest".to_owned(),
        also: None,
        tree,
        user: "65532:65532",
        environment: vec!["PATH=/usr/bin".to_owned()],
        entrypoint: Vec::new(),
        command: vec!["understudy-workload".to_owned(), "run".to_owned()],
    }))
}

/// A server of this machine's, with its contrib modules, but without the just-in-time compiler: that
/// would be a hundred megabytes of LLVM.
fn postgres(major: &str, directory: &Path) -> Outcome<Image> {
    let mut tree = Tree::base();
    tools(&mut tree);
    tree.copy(directory, &|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name != "bitcode" && name != "pgxs" && !name.starts_with("llvmjit")
    })?;
    tree.copy(&Path::new("/usr/share/postgresql").join(major), &|path| !path.ends_with("man"))?;
    for data in ["/usr/share/zoneinfo", "/usr/lib/locale/C.utf8"] {
        tree.copy(Path::new(data), &|path| !path.ends_with("right") && !path.ends_with("posix"))?;
    }
    for own in ["/var/lib/postgresql", "/var/lib/postgresql/data", "/run/postgresql"] {
        tree.directory(own.trim_start_matches('/'), 0o775, 999);
    }
    tree.symlink("var/run", "/run");
    tree.text("usr/bin/entrypoint", include_str!("postgres-entrypoint.sh"), 0o755);
    Ok(Image {
        name: "postgres",
        tag: major.to_owned(),
        also: Some(format!("{major}-again")),
        tree,
        user: "999:999",
        environment: vec![
            format!("PATH={}/bin:/usr/bin", directory.display()),
            "LANG=C.UTF-8".to_owned(),
            "HOME=/var/lib/postgresql".to_owned(),
            "PGDATA=/var/lib/postgresql/data".to_owned(),
            format!("PG_MAJOR={major}"),
        ],
        entrypoint: vec!["/usr/bin/entrypoint".to_owned()],
        command: vec!["postgres".to_owned()],
    })
}

fn tools(tree: &mut Tree) {
    for tool in TOOLS {
        let found = ["/usr/bin", "/bin"].iter().map(|place| Path::new(place).join(tool)).find(|path| path.exists());
        if let Some(found) = found {
            tree.program(&format!("usr/bin/{tool}"), &found);
        }
    }
}

/// The servers of this machine's, the newest last.
fn servers() -> Outcome<Vec<(String, PathBuf)>> {
    let list = fs::read_dir(SERVERS).trying(|| format!("read {SERVERS}"))?;
    let mut found: Vec<(String, PathBuf)> = list
        .flatten()
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .collect();
    found.sort_by_key(|(major, _)| major.parse::<u32>().unwrap_or_default());
    Ok(found)
}
