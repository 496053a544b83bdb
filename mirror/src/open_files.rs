//! How many files this process may have open. A session has two sockets, and one more for each arm; the limit
//! that a process begins with is often 1,024, which a few hundred sessions use up.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the mirror has open beside its sessions, with room to spare.
const OTHERS: u64 = 200;

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
    limit.saturating_sub(OTHERS) / (2 + arms)
}

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
        assert_eq!([sessions(1024, 2), sessions(20_000, 1), sessions(100, 0)], [206, 6600, 0]);
    }
}
