//! The mirror's clock: monotonic nanoseconds since the mirror began. All times of production and of
//! the arms are on it.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime},
};

use crate::capture::moments::Moments;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
static MOMENTS: LazyLock<Moments> = LazyLock::new(|| since(SystemTime::now()));
/// 2000-01-01 UTC, from where PostgreSQL counts, since 1970.
const OF_POSTGRES: Duration = Duration::from_secs(946_684_800);
const DAY_S: u64 = 24 * 3600;
/// Longer than any mirror runs.
const MOST_DAYS: u32 = 1000;

/// Now, ns since the epoch. The epoch is the first call in the process.
pub fn now_ns() -> u64 {
    u64::try_from(EPOCH.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Moments that a server may put into its rows while the mirror runs, in any time zone.
pub fn moments() -> Moments {
    *MOMENTS
}

fn since(now: SystemTime) -> Moments {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(OF_POSTGRES);
    let day = u32::try_from(since.as_secs() / DAY_S).unwrap_or_default().saturating_sub(1);
    Moments::between(day, day.saturating_add(MOST_DAYS))
}

/// The moment as the runtime's timers want it.
pub fn instant(at_ns: u64) -> Instant {
    *EPOCH + Duration::from_nanos(at_ns)
}
