//! Memory in small pages only. While an arm hangs, what is captured needs new memory all the time, and it is
//! production's threads that touch it first: the kernel clears a huge page whole at that moment, which takes
//! milliseconds on a virtual machine, and every session of the thread waits. Measured in PERFORMANCE.md.

/// Does without them in this process. Only for a process that is a mirror and nothing else: what it starts does
/// without them as well, and a server would no longer be like the one that it is compared with.
pub fn avoid() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "memory may come in huge pages, which takes milliseconds each");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_given_no_huge_page() {
        avoid();
        assert_eq!(rustix::thread::transparent_huge_pages_are_disabled(), Ok(true));
    }
}
