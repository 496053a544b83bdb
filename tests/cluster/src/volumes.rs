//! File systems for volumes: one sparse file each, mounted by a loop device under the state directory,
//! with a directory for every node. They are made anew at every start.

use std::{
    fs::{self, File},
    path::Path,
};

use crate::{
    failure::{Outcome, Trying},
    layout::{Layout, NODES},
    program::run,
    progress::warn,
};

/// How large each file system says it is. The files are sparse.
const SIZE: u64 = 20 << 30;

/// A file system that volumes can be on; the storage class has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// The default class.
    Ext4,
    /// The one of large servers.
    Xfs,
    /// With zstd compression.
    Btrfs,
}

/// All of them.
pub const FILE_SYSTEMS: [FileSystem; 3] = [FileSystem::Ext4, FileSystem::Xfs, FileSystem::Btrfs];

impl FileSystem {
    /// Its name: the kernel's, and the storage class's.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    const fn make(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f", "-K"],
            Self::Btrfs => &["mkfs.btrfs", "-q", "-f", "-K"],
        }
    }

    const fn options(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Xfs => "loop,noatime",
            Self::Btrfs => "loop,noatime,compress=zstd",
        }
    }
}

/// Makes and mounts all file systems that this kernel has, and says which.
pub fn make(layout: &Layout) -> Outcome<Vec<FileSystem>> {
    let known = fs::read_to_string("/proc/filesystems").trying(|| "read /proc/filesystems".to_owned())?;
    let mut made = Vec::new();
    for file_system in FILE_SYSTEMS {
        if !known.split_whitespace().any(|name| name == file_system.name()) {
            warn(&format!("this kernel has no {0}: there is no storage class {0}", file_system.name()));
            continue;
        }
        make_one(&layout.volumes(), file_system)?;
        made.push(file_system);
    }
    Ok(made)
}

fn make_one(directory: &Path, file_system: FileSystem) -> Outcome<()> {
    let name = file_system.name();
    let (place, image) = (directory.join(name), directory.join(format!("{name}.img")));
    fs::create_dir_all(&place).trying(|| format!("make {}", place.display()))?;
    // A new file, not the old one emptied: whatever still holds the old one keeps it to itself.
    if image.exists() {
        fs::remove_file(&image).trying(|| format!("remove {}", image.display()))?;
    }
    let file = File::create(&image).trying(|| format!("make {}", image.display()))?;
    file.set_len(SIZE).trying(|| format!("size {}", image.display()))?;
    let (program, arguments) = file_system.make().split_first().ok_or("no mkfs")?;
    run(program, arguments.iter().map(std::convert::AsRef::as_ref).chain([image.as_os_str()]))?;
    run(
        "mount",
        [
            "-t".as_ref(),
            name.as_ref(),
            "-o".as_ref(),
            file_system.options().as_ref(),
            image.as_os_str(),
            place.as_os_str(),
        ],
    )?;
    for node in NODES {
        let own = place.join(node.name);
        fs::create_dir_all(&own).trying(|| format!("make {}", own.display()))?;
    }
    Ok(())
}

/// The storage classes of file systems.
pub fn classes(made: &[FileSystem]) -> String {
    let class = include_str!("../manifests/class.yaml");
    made.iter().fold(String::new(), |text, file_system| {
        let default = matches!(file_system, FileSystem::Ext4).to_string();
        text + &class.replace("{name}", file_system.name()).replace("{default}", &default)
    })
}
