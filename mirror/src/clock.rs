//! The mirror's clock: monotonic nanoseconds since the mirror began. All times of production and of
//! the arms are on it.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Now, ns since the epoch. The epoch is the first call in the process.
pub fn now_ns() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The moment as the runtime's timers want it.
pub fn instant(at_ns: u64) -> Instant {
    *EPOCH + Duration::from_nanos(at_ns)
}
