//! The mirror's clock: monotonic nanoseconds since the mirror began. All measured times,
//! production's and the arms', are on it; when an arm plays something is up to its own (`shadow/arm_clock.rs`).

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

use crate::capture::moments::Moments;

static EPOCH_NS: LazyLock<u64> = LazyLock::new(monotonic_ns);
static MOMENTS: LazyLock<Moments> = LazyLock::new(|| since(SystemTime::now()));
/// 2000-01-01 UTC, from where PostgreSQL counts, since 1970.
const OF_POSTGRES: Duration = Duration::from_secs(946_684_800);
const DAY_S: u64 = 24 * 3600;
const NS_PER_S: u64 = 1_000_000_000;
/// Longer than any mirror runs.
const MOST_DAYS: u32 = 1000;

/// Now, ns since the epoch. The epoch is the first call in the process.
pub fn now_ns() -> u64 {
    // In this order: the first call makes the epoch.
    let epoch_ns = *EPOCH_NS;
    monotonic_ns().saturating_sub(epoch_ns)
}

/// As the kernel counts. The difference of two `Instant`s, which do not say what they hold, takes more instructions than
/// the clock itself, and this is asked with every message.
fn monotonic_ns() -> u64 {
    // This clock is always there.
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    since.as_secs().wrapping_mul(NS_PER_S).wrapping_add(u64::from(since.subsec_nanos()))
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
