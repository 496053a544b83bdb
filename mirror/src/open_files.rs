//! How many files this process may have open. A session has two sockets, and one more for each arm; the limit
//! that a process begins with is often 1,024, which a few hundred sessions use up. The last ones are production's: an
//! arm that would need one of them is let go of.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that no arm takes: what the mirror has open beside its sessions, and a part of all for sessions that come
/// before the arms have let go of theirs.
const fn kept(limit: u64) -> u64 {
    let part = limit / 16;
    if part > 200 { part } else { 200 }
}

/// Raises the limit as far as this process may by itself. The limit then; `u64::MAX`: there is none.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// Sessions that such a limit has room for, with this many arms.
pub const fn sessions(limit: u64, arms: u64) -> u64 {
    limit.saturating_sub(kept(limit)) / (2 + arms)
}

/// An error where this file of an arm is one of those that are production's. The system gives out the lowest number that
/// is free, so that the number tells how many there are.
pub fn spare(file: impl AsFd) -> io::Result<()> {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    let number = u64::try_from(file.as_fd().as_raw_fd()).unwrap_or(0);
    if is_kept(number, limit) { Err(io::Error::other(NONE_TO_SPARE)) } else { Ok(()) }
}

/// Whether the file of this number is one that no arm takes.
const fn is_kept(number: u64, limit: u64) -> bool {
    number >= limit.saturating_sub(kept(limit))
}

const NONE_TO_SPARE: &str = "of the files that the mirror may have open the last ones are production's; raise its limit \
                             of open files (ulimit -n, LimitNOFILE)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_highest_there_may_be_and_stays_so() {
        let raised = raise();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
        assert_eq!(raise(), raised);
    }

    #[test]
    fn each_arm_has_a_socket_of_a_session() {
        assert_eq!([sessions(1024, 2), sessions(20_000, 1), sessions(100, 0)], [206, 6250, 0]);
    }

    #[test]
    fn an_arm_takes_none_of_the_last() {
        for (limit, first) in [(1024, 824), (20_000, 18_750), (100, 0)] {
            assert!(is_kept(first, limit), "{limit}");
            assert!(first == 0 || !is_kept(first - 1, limit), "{limit}");
        }
    }
}
