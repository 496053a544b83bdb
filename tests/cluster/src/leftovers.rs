//! What a cluster leaves outside its directory when it is ended or killed, found by its marks and cleared:
//! processes (by their arguments), the host's interface (by its name), mounts and loop devices (by the
//! state directory), control groups (by their names). Nothing else is touched.

use std::{fs, path::Path};

use rustix::mount::{UnmountFlags, unmount};

use crate::{
    cgroups,
    failure::{Outcome, Trying},
    layout::HOST_INTERFACE,
    machine::{self, Found},
    program::run,
};

/// Ends the machines of the cluster in `state` and clears everything of it. Says whether there was any.
pub fn clear(state: &Path) -> Outcome<bool> {
    let machines: Vec<Found> = machine::found().into_iter().filter(|found| found.state == state).collect();
    let pids: Vec<i32> = machines.iter().map(|found| found.pid).collect();
    machine::end(&pids)?;
    let mounts = mounts_below(state, &fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    for place in &mounts {
        unmount(place.as_str(), UnmountFlags::DETACH).trying(|| format!("unmount {place}"))?;
    }
    let mut any = !pids.is_empty() || !mounts.is_empty();
    for device in loop_devices(state) {
        // Devices let go of their files by themselves when unmounted; these were left before they could.
        let _ = run("losetup", ["--detach", &device]);
        any = true;
    }
    // These are of no directory: with the machines of this one gone, they are nobody's or another's.
    if machine::found().is_empty() {
        if Path::new("/sys/class/net").join(HOST_INTERFACE).exists() {
            // The interface goes when its other end does, which the kernel does in its own time.
            let _ = run("ip", ["link", "delete", HOST_INTERFACE]);
            any = true;
        }
        any |= cgroups::any();
        cgroups::clear()?;
    }
    Ok(any)
}

/// Other directories whose clusters run on this machine.
pub fn others(state: &Path) -> Vec<std::path::PathBuf> {
    let mut others: Vec<_> = machine::found().into_iter().map(|found| found.state).filter(|s| s != state).collect();
    others.sort();
    others.dedup();
    others
}

/// Mounts below a directory, the deepest and latest first.
fn mounts_below(directory: &Path, mounts: &str) -> Vec<String> {
    mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
        .map(|place| place.replace("\\040", " "))
        .filter(|place| Path::new(place).starts_with(directory))
        .collect()
}

/// Loop devices on files below a directory, whether the files are still there or not.
fn loop_devices(directory: &Path) -> Vec<String> {
    let list = run("losetup", ["--noheadings", "--raw", "--output", "NAME,BACK-FILE"]).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, file)| Path::new(file).starts_with(directory))
        .map(|(device, _)| device.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_directory_are_found_and_the_latest_comes_first() {
        let mounts = "/dev/vda / ext4 rw 0 0\n\
                      /dev/loop0 /r/target/cluster/volumes/ext4 ext4 rw 0 0\n\
                      /dev/loop1 /r/target/cluster-2/volumes/xfs xfs rw 0 0\n\
                      /dev/loop2 /r/target/cluster/volumes/xfs xfs rw 0 0\n";
        assert_eq!(
            mounts_below(Path::new("/r/target/cluster"), mounts),
            ["/r/target/cluster/volumes/xfs", "/r/target/cluster/volumes/ext4"]
        );
    }
}
