//! Images unpacked once: a containerd of its own, in a machine of its own that exists for seconds, fills
//! a store; every node then starts with a copy of it. Copies share their files by hard links: layers are
//! never written to, and the databases are copied for real.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use super::{Made, hexadecimal};
use crate::{
    configuration,
    failure::{Outcome, Trying},
    layout::{Layout, NODES, STORE},
    machine::{Machine, entered},
    program::{run, until},
};

const ROOT: &str = "store";
const DATABASES: [&str; 2] =
    ["io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"];

/// Makes the store, unless it has these very images.
pub fn prepare(layout: &Layout, images: &[Made]) -> Outcome<()> {
    let (root, stamp) = (layout.images().join(ROOT), layout.images().join("store.stamp"));
    let wanted = fingerprint(layout, images)?;
    if fs::read_to_string(&stamp).ok().as_deref() == Some(wanted.as_str()) {
        return Ok(());
    }
    for old in [&root, &layout.machine(STORE)] {
        if old.exists() {
            fs::remove_dir_all(old).trying(|| format!("remove {}", old.display()))?;
        }
    }
    let _ = fs::remove_file(&stamp);
    configuration::write_store(layout, &root)?;
    let list: Vec<String> = images.iter().map(|image| image.archive.display().to_string()).collect();
    fs::write(layout.machine(STORE).join("archives"), list.join("\n"))
        .trying(|| "write the list of archives".to_owned())?;
    let mut machine = Machine::start(layout, STORE)?;
    machine.go()?;
    machine.wait().map_err(|failure| {
        let log = fs::read_to_string(layout.logs().join("store.log")).unwrap_or_default();
        format!("can't unpack the images: {failure}; {}", log.trim())
    })?;
    fs::write(&stamp, wanted).trying(|| format!("write {}", stamp.display()))
}

/// Fills the store: what the machine of that name does.
pub fn fill(layout: &Layout) -> Outcome<()> {
    let directory = layout.machine(STORE);
    let mut containerd: Child = Command::new("containerd")
        .arg("--config")
        .arg(directory.join("containerd.toml"))
        .stdin(Stdio::null())
        .spawn()
        .trying(|| "start containerd".to_owned())?;
    until(Duration::from_secs(20), "containerd", || run("ctr", ["version"]))?;
    let list = fs::read_to_string(directory.join("archives")).trying(|| "read the list of archives".to_owned())?;
    for archive in list.lines() {
        run("ctr", ["--namespace", "k8s.io", "images", "import", archive])?;
    }
    // Asked to end, it leaves whole files.
    if let Some(pid) = i32::try_from(containerd.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    containerd.wait().trying(|| "wait for containerd".to_owned()).map(drop)
}

/// Gives every node its copy.
pub fn copy(layout: &Layout) -> Outcome<()> {
    let root = layout.images().join(ROOT);
    for node in NODES {
        let own = layout.machine(node.name).join("containerd");
        run("cp", ["-al".as_ref(), root.as_os_str(), own.as_os_str()])?;
        for database in DATABASES {
            let copy = own.join(database);
            fs::remove_file(&copy).trying(|| format!("remove {}", copy.display()))?;
            fs::copy(root.join(database), &copy).trying(|| format!("copy {}", copy.display()))?;
        }
    }
    Ok(())
}

/// Gives a running node an image.
pub fn import(pid: i32, archive: &Path) -> Outcome<()> {
    let mut command = entered(pid, "ctr");
    command.args(["--namespace", "k8s.io", "images", "import"]).arg(archive);
    crate::program::finish(&mut command).map(drop)
}

fn fingerprint(layout: &Layout, images: &[Made]) -> Outcome<String> {
    let mut hash = Sha256::new();
    for image in images {
        let stamp = image.archive.with_extension("stamp");
        hash.update(&image.name);
        hash.update(fs::read(&stamp).trying(|| format!("read {}", stamp.display()))?);
    }
    hash.update(layout.state().as_os_str().as_encoded_bytes());
    Ok(hexadecimal(&hash.finalize()))
}
