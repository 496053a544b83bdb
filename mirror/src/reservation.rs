//! How many addresses may be reserved for what may come, as the system counts them. Reads what the system says, and
//! reserves nothing.

use std::fs;

/// Addresses to reserve for a large request of which `most_bytes` are kept at most, bytes: all of them, where what is never
/// used costs nothing. Where the system gives out no more than it has (`vm.overcommit_memory=2`, as PostgreSQL's manual
/// advises for a server of its own), each reservation is taken from the worker: none then.
pub fn room_bytes(most_bytes: usize) -> usize {
    room(most_bytes, &fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default())
}

fn room(most_bytes: usize, overcommit: &str) -> usize {
    if overcommit.trim() == "2" { 0 } else { most_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reserved_where_a_reservation_is_memory() {
        for (overcommit, bytes) in [("0\n", 1 << 30), ("1\n", 1 << 30), ("2\n", 0), ("", 1 << 30)] {
            assert_eq!(room(1 << 30, overcommit), bytes, "{overcommit:?}");
        }
    }
}
