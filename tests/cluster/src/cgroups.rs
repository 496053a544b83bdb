//! The control groups that the nodes' pods are in. A small node really is small: its group has a quota.
//! Nothing is written to a group that this did not make. Version 1 is what it runs on; version 2 is provided
//! for and was not tried.

use std::{fs, io::ErrorKind, path::Path};

use crate::{
    failure::{Outcome, Trying},
    layout::{CGROUP_PREFIX, Node},
};

const ROOT: &str = "/sys/fs/cgroup";
/// Microseconds over which the quota is handed out. A tenth of the kernel's default: a statement of a few
/// milliseconds must feel a smaller machine always, not only when statements before it used the quota up.
const PERIOD_US: u32 = 10_000;

/// Makes a node's group in every hierarchy.
pub fn make(node: Node) -> Outcome<()> {
    let quota = node.instance.millicpus().map(|millicpus| millicpus * PERIOD_US / 1000);
    for hierarchy in hierarchies() {
        let group = Path::new(&hierarchy).join(node.cgroup());
        fs::create_dir_all(&group).trying(|| format!("make {}", group.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.join(file).exists() {
                let all = read(&Path::new(&hierarchy).join(file))
                    .or_else(|_| read(&Path::new(&hierarchy).join(format!("{file}.effective"))))?;
                write(&group.join(file), all.trim())?;
            }
        }
        if let Some(quota) = quota {
            if group.join("cpu.cfs_quota_us").exists() {
                write(&group.join("cpu.cfs_period_us"), &PERIOD_US.to_string())?;
                write(&group.join("cpu.cfs_quota_us"), &quota.to_string())?;
            } else if group.join("cpu.max").exists() {
                write(&group.join("cpu.max"), &format!("{quota} {PERIOD_US}"))?;
            }
        }
    }
    Ok(())
}

/// Removes every group whose name is ours, with what is below it. The processes must have ended.
pub fn clear() -> Outcome<()> {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(&hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(CGROUP_PREFIX) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Whether there is a group of ours.
pub fn any() -> bool {
    hierarchies().iter().any(|hierarchy| {
        fs::read_dir(hierarchy)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(CGROUP_PREFIX))
    })
}

/// How often a node's group had to wait for its quota.
pub fn throttled(node: Node) -> Outcome<u64> {
    let counts = hierarchies().into_iter().find_map(|hierarchy| {
        let counts = fs::read_to_string(Path::new(&hierarchy).join(node.cgroup()).join("cpu.stat")).ok()?;
        counts.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.trim().parse().ok())
    });
    counts.ok_or_else(|| format!("no control group of {} counts processor time", node.name).into())
}

fn remove(group: &Path) -> Outcome<()> {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    crate::program::until(std::time::Duration::from_secs(5), "an empty control group", || match fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Where the hierarchies are: one of version 2, or one for each controller of version 1.
fn hierarchies() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, kind) = (fields.next()?, fields.next()?);
            (place.starts_with(ROOT) && matches!(kind, "cgroup" | "cgroup2")).then(|| place.to_owned())
        })
        .collect()
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).trying(|| format!("read {}", path.display()))
}

fn write(path: &Path, value: &str) -> Outcome<()> {
    fs::write(path, value).trying(|| format!("write {value} to {}", path.display()))
}
