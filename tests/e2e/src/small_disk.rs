//! A disk of a few megabytes that a server can be put on, to be filled. Only root can make one.

#![expect(clippy::print_stdout, reason = "what was measured, or left out, is for who reads the test's output")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use understudy_harness::server_account;

/// A file system in memory, below a directory of the test. It goes when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Makes one of 64 MB that belongs to the servers' account. `None`, said loudly: only root can.
    pub fn mount(below: &Path) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            let skipped = "SKIPPED: nothing was tested on a full disk: only root can make one";
            assert!(std::env::var_os("CI").is_none(), "{skipped}");
            println!("{skipped}");
            return None;
        }
        let path = below.join("small-disk");
        fs::create_dir(&path).expect("a directory");
        mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"size=64m,mode=0700").expect("a small disk");
        server_account().take(&path).expect("its owner");
        Some(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a directory of a server that is down here; a link stands in its place.
    pub fn move_here(&self, directory: &Path) {
        let to = self.path.join(directory.file_name().expect("its name"));
        let moved = Command::new("mv").arg(directory).arg(&to).status().expect("mv");
        assert!(moved.success(), "{} can't be moved", directory.display());
        symlink(&to, directory).expect("a link");
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        // More than all of it: nothing else may be on it.
        let zeroes = vec![0; (1 << 26) + 1];
        fs::write(self.path.join("filler"), &zeroes).expect_err("more than there is room for");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server may still be on it: it goes with the server's last file then.
        let _ = unmount(&self.path, UnmountFlags::DETACH);
    }
}
