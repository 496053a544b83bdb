//! Leader election: a Lease that one operator at a time holds. Only its holder reconciles.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep, timeout};

use super::error::is_conflict;

/// The Lease's name.
const NAME: &str = "understudy-operator";
/// How long a Lease is good without being renewed.
const GOOD_FOR: Duration = Duration::from_secs(15);
const RENEW_EVERY: Duration = Duration::from_secs(4);
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// A Lease, and who we are.
#[derive(Clone)]
pub struct Election {
    leases: Api<Lease>,
    identity: String,
}

impl Election {
    /// In the operator's namespace.
    pub fn new(client: Client, namespace: &str, identity: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), identity }
    }

    /// Waits until the Lease is ours.
    pub async fn win(&self) {
        loop {
            match self.take().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the Lease can't be had"),
            }
            sleep(RENEW_EVERY / 2).await;
        }
    }

    /// Renews the Lease; ends when it is lost.
    pub async fn keep(&self) {
        let mut good_until = Instant::now() + GOOD_FOR;
        while Instant::now() < good_until {
            sleep(RENEW_EVERY).await;
            let asked = Instant::now();
            match self.take().await {
                Ok(true) => good_until = asked + GOOD_FOR,
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "the Lease can't be renewed"),
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait.
    pub async fn release(&self) {
        let give_back = async {
            let mut lease = self.leases.get(NAME).await?;
            if let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_ref() == Some(&self.identity))
            {
                spec.holder_identity = None;
                self.leases.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        // Without it, the next one waits a few seconds.
        let _ = timeout(CALL_LIMIT, give_back).await;
    }

    async fn take(&self) -> kube::Result<bool> {
        timeout(CALL_LIMIT, self.try_take()).await.unwrap_or(Ok(false))
    }

    async fn try_take(&self) -> kube::Result<bool> {
        let now = Timestamp::now();
        let Some(mut lease) = self.leases.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None, now)) };
            return won(self.leases.create(&PostParams::default(), &lease).await);
        };
        if !is_free(lease.spec.as_ref(), &self.identity, now) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(lease.spec.as_ref(), now));
        won(self.leases.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn spec(&self, before: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let ours = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let acquired = before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(GOOD_FOR.as_secs()).ok(),
            acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// Whether a Lease is ours, nobody's, or has run out.
fn is_free(spec: Option<&LeaseSpec>, identity: &str, now: Timestamp) -> bool {
    let Some(spec) = spec else { return true };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let good_for = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds.unwrap_or(0)));
    let renewed = spec.renew_time.as_ref().map(|time| time.0);
    holder.is_empty() || holder == identity || renewed.is_none_or(|renewed| now.duration_since(renewed) > good_for)
}

fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if is_conflict(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_free_when_it_is_ours_nobodys_or_has_run_out() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let lease = |holder: &str, ago: i64| LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(now - SignedDuration::from_secs(ago))),
            ..LeaseSpec::default()
        };
        for (spec, free) in [
            (None, true),
            (Some(lease("us", 1)), true),
            (Some(lease("", 1)), true),
            (Some(lease("them", 14)), false),
            (Some(lease("them", 16)), true),
        ] {
            assert_eq!(is_free(spec.as_ref(), "us", now), free, "{spec:?}");
        }
    }
}
