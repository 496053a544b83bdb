//! What a mirror counts of its connections, as its metrics show it, and what has grown since.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{Instant, sleep};

use crate::http;

const LIMIT: Duration = Duration::from_secs(20);

/// Counters by their names and labels, such as `connections_refused{cause="length"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted(BTreeMap<String, u64>);

impl Counted {
    /// As they are now. What runs by itself is left out.
    pub async fn now(admin: &str) -> Self {
        let text = http::get(admin, "/metrics").await.expect("metrics");
        let counter = |line: &str| {
            let (name, value) = line.strip_prefix("understudy_")?.rsplit_once(' ')?;
            let (name, labels) = name.split_once("_total")?;
            (name != "arm_clock_stood_microseconds").then_some(())?;
            Some((format!("{name}{labels}"), value.parse().ok()?))
        };
        let counted = Self(text.lines().filter_map(counter).collect());
        assert!(counted.0.contains_key("connections"), "{text}");
        counted
    }

    /// Waits until these have grown by so much since then, and no other has grown at all.
    pub async fn expect_grown(&self, admin: &str, what: &str, wanted: &[(&str, u64)]) -> Self {
        let wanted: BTreeMap<&str, u64> = wanted.iter().copied().filter(|(_, by)| *by > 0).collect();
        let end = Instant::now() + LIMIT;
        loop {
            let now = Self::now(admin).await;
            let grown: BTreeMap<&str, u64> = now
                .0
                .iter()
                .map(|(name, value)| (name.as_str(), value - self.0.get(name).copied().unwrap_or(0)))
                .filter(|(_, by)| *by > 0)
                .collect();
            if grown == wanted {
                return now;
            }
            assert!(Instant::now() < end, "{what}: {grown:?} and not {wanted:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}
