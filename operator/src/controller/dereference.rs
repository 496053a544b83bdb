//! Reads everything about one experiment from the API server and from its mirror pod. It decides
//! nothing, and it asks for all that does not depend on each other at once.

use std::{collections::BTreeMap, fmt::Debug};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, ObjectList},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use tokio::try_join;
use understudy_crds::{
    ShadowExperiment,
    condition::{ConditionStatus, ConditionType, Phase},
    experiment::StatefulSetTarget,
    labels::{ARM, REVISION},
};

use super::{
    context::Context,
    error::{ControllerError, Doing, is_missing},
    fit::claim_name,
    mirror_client::MirrorClient,
    names::Names,
    objects::Kind,
    pods, routing,
    status::holds,
    world::{Credentials, Existing, MirrorSaid, Ours, Rival, World},
};

/// A way to the mirror, where there is one.
pub type Mirror = Option<MirrorClient>;

/// The world of an experiment, and a way to its mirror; none when the resource is gone.
pub async fn dereference(
    context: &Context,
    seen: &ShadowExperiment,
) -> Result<Option<(World, Mirror)>, ControllerError> {
    let names = Names::of(seen, context.settings.cluster_domain.as_deref());
    let read = Reader { context, namespace: &names.namespace };
    let Some(experiment) = read.get::<ShadowExperiment>(&names.experiment).await? else { return Ok(None) };
    let target = experiment.spec.target.stateful_set.clone();
    let found = match &target {
        Some(target) => read.target(target).await?,
        None => Found::default(),
    };
    let tls_name = names.tls();
    let (ours, tls, rivals) =
        try_join!(read.ours(&names), read.get::<Secret>(&tls_name), read.rivals(&experiment, target.as_ref()))?;
    let mut ours = ours;
    if let Some(secret) = &tls {
        ours.objects.insert((Kind::Secret, names.tls()), existing(&secret.metadata));
    }
    let client = ours.mirror.as_ref().and_then(|pod| way_to(pod, &names, tls.as_ref()));
    let mirror = hear(context, &experiment, ours.mirror.as_ref(), client.as_ref()).await;
    let Found { stateful_set, governed, worker, worker_claim, service, selected, credentials } = found;
    let attempt = context.attempt(&experiment);
    let now = Timestamp::now();
    let world = World {
        experiment,
        names,
        now,
        stateful_set,
        governed,
        worker,
        worker_claim,
        service,
        selected,
        credentials,
        rivals,
        ours,
        mirror,
        attempt,
    };
    Ok(Some((world, client)))
}

fn way_to(pod: &Pod, names: &Names, tls: Option<&Secret>) -> Mirror {
    let address = pod.status.as_ref()?.pod_ip.as_deref()?;
    let name = names.dns(&names.mirror());
    match MirrorClient::new(address, &name, tls) {
        Ok(client) => Some(client),
        Err(error) => {
            tracing::warn!(experiment = %names.experiment, %error, "the mirror can't be asked");
            None
        }
    }
}

/// Asks the mirror how it is and what it says.
async fn hear(
    context: &Context,
    experiment: &ShadowExperiment,
    pod: Option<&Pod>,
    client: Option<&MirrorClient>,
) -> MirrorSaid {
    // One that has not started yet is not silent.
    let (Some(pod), Some(client)) = (pod, client) else { return MirrorSaid::default() };
    let routed = experiment.status.as_ref().is_some_and(|status| status.phase != Phase::Pending);
    if pods::has_ended(pod) || !(routed && (pods::is_ready(pod) || context.has_heard(experiment))) {
        return MirrorSaid::default();
    }
    let said = async { tokio::try_join!(client.status(), client.candidates_taken()) };
    let (healthy, said) = tokio::join!(client.is_healthy(), said);
    let (status, candidates) = match said {
        Ok((status, candidates)) => (Some(Box::new(status)), candidates),
        Err(error) => {
            tracing::debug!(experiment = %experiment.name_any(), %error, "the mirror's status can't be had");
            (None, String::new())
        }
    };
    MirrorSaid { healthy: Some(healthy), silent: context.heard(experiment, healthy), status, candidates }
}

#[derive(Default)]
struct Found {
    stateful_set: Option<StatefulSet>,
    governed: bool,
    worker: Option<Pod>,
    worker_claim: Option<PersistentVolumeClaim>,
    service: Option<Service>,
    selected: Vec<String>,
    credentials: Credentials,
}

struct Reader<'a> {
    context: &'a Context,
    namespace: &'a str,
}

impl Reader<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), self.namespace)
    }

    async fn get<K>(&self, name: &str) -> Result<Option<K>, ControllerError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        match self.api::<K>().get(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error).doing("reading what the experiment names"),
        }
    }

    async fn list<K>(&self, selector: &str) -> Result<ObjectList<K>, ControllerError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>()
            .list(&ListParams::default().labels(selector))
            .await
            .doing("listing what belongs to the experiment")
    }

    /// The worker and what leads to it.
    async fn target(&self, target: &StatefulSetTarget) -> Result<Found, ControllerError> {
        let pod = format!("{}-{}", target.name, target.ordinal);
        let (stateful_set, worker, service, secret) = try_join!(
            self.get::<StatefulSet>(&target.name),
            self.get::<Pod>(&pod),
            self.get::<Service>(&target.service),
            self.get::<Secret>(&target.credentials_secret),
        )?;
        let governing = stateful_set.as_ref().and_then(|set| set.spec.as_ref()?.service_name.clone());
        let selector = service.as_ref().and_then(routing::own_selector).unwrap_or_default();
        let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (governed, worker_claim, selected) = try_join!(
            async {
                match governing.filter(|name| !name.is_empty()) {
                    Some(name) => Ok(self.get::<Service>(&name).await?.is_some()),
                    None => Ok(false),
                }
            },
            async {
                match worker.as_ref().and_then(claim_name) {
                    Some(name) => self.get::<PersistentVolumeClaim>(name).await,
                    None => Ok(None),
                }
            },
            async {
                if selector.is_empty() {
                    return Ok(Vec::new());
                }
                let all = self.list::<Pod>(&selector.join(",")).await?;
                Ok(all.items.into_iter().filter(|pod| !pod.labels().contains_key(ARM)).map(|p| p.name_any()).collect())
            },
        )?;
        let credentials = secret.as_ref().map_or(Credentials::Missing, credentials);
        Ok(Found { stateful_set, governed, worker, worker_claim, service, selected, credentials })
    }

    /// Other experiments that are at work on the same worker.
    async fn rivals(
        &self,
        experiment: &ShadowExperiment,
        target: Option<&StatefulSetTarget>,
    ) -> Result<Vec<Rival>, ControllerError> {
        let all = self.api::<ShadowExperiment>().list(&ListParams::default()).await.doing("listing experiments")?;
        let age = |e: &ShadowExperiment| (e.creation_timestamp().map(|time| time.0), e.name_any());
        let same = |other: &&ShadowExperiment| {
            let theirs = other.spec.target.stateful_set.as_ref();
            other.metadata.uid != experiment.metadata.uid
                && theirs.zip(target).is_some_and(|(a, b)| (&a.name, a.ordinal) == (&b.name, b.ordinal))
        };
        let begun = |e: &ShadowExperiment| e.status.as_ref().is_some_and(|status| status.phase != Phase::Pending);
        let rival = |other: &ShadowExperiment| {
            let first = match (begun(other), begun(experiment)) {
                (true, false) => true,
                (false, true) => false,
                _ => age(other) < age(experiment),
            };
            Rival { name: other.name_any(), first }
        };
        Ok(all.items.iter().filter(same).filter(|other| is_at_work(other)).map(rival).collect())
    }

    /// Everything that bears the experiment's label. Secrets are not listed: one is known by its name.
    async fn ours(&self, names: &Names) -> Result<Ours, ControllerError> {
        let selector = names.list_selector();
        let (config_maps, services, policies, claims, pods) = try_join!(
            self.list::<ConfigMap>(&selector),
            self.list::<Service>(&selector),
            self.list::<NetworkPolicy>(&selector),
            self.list::<PersistentVolumeClaim>(&selector),
            self.list::<Pod>(&selector),
        )?;
        let mut objects = BTreeMap::new();
        let mut add = |kind: Kind, meta: &ObjectMeta| {
            objects.insert((kind, meta.name.clone().unwrap_or_default()), existing(meta));
        };
        config_maps.iter().for_each(|object| add(Kind::ConfigMap, &object.metadata));
        services.iter().for_each(|object| add(Kind::Service, &object.metadata));
        policies.iter().for_each(|object| add(Kind::NetworkPolicy, &object.metadata));
        claims.iter().for_each(|object| add(Kind::Volume, &object.metadata));
        pods.iter().for_each(|object| add(Kind::Pod, &object.metadata));
        let (mut mirror, mut arms) = (None, BTreeMap::new());
        for pod in pods.items {
            match pod.labels().get(ARM).cloned() {
                Some(arm) => drop(arms.insert(arm, pod)),
                None if pod.name_any() == names.mirror() => mirror = Some(pod),
                None => {}
            }
        }
        Ok(Ours { objects, mirror, arms })
    }
}

/// Whether an experiment keeps others off its worker.
fn is_at_work(experiment: &ShadowExperiment) -> bool {
    // One that nobody has looked at yet comes in its turn.
    let Some(status) = &experiment.status else { return true };
    let denied = |type_| holds(&status.conditions, type_) == Some(ConditionStatus::False);
    match status.phase {
        // One that was refused itself is not in the way.
        Phase::Pending => !denied(ConditionType::Accepted),
        // Nor is one that has its verdict and has left the path.
        Phase::Concluded => !denied(ConditionType::Mirroring),
        Phase::Halted | Phase::Failed | Phase::Promoted => false,
        Phase::Cloning | Phase::CatchingUp | Phase::WarmingUp | Phase::Observing | Phase::Promoting => true,
    }
}

fn existing(meta: &ObjectMeta) -> Existing {
    let note = |map: &Option<BTreeMap<String, String>>, key: &str| map.as_ref().and_then(|map| map.get(key)).cloned();
    Existing {
        revision: note(&meta.annotations, REVISION).unwrap_or_default(),
        going: meta.deletion_timestamp.is_some(),
        arm: note(&meta.labels, ARM),
    }
}

fn credentials(secret: &Secret) -> Credentials {
    let get = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).filter(|value| !value.0.is_empty());
    let missing: Vec<&'static str> = ["username", "password"].into_iter().filter(|key| get(key).is_none()).collect();
    let user = get("username").and_then(|value| String::from_utf8(value.0.clone()).ok());
    match user {
        Some(user) if missing.is_empty() => Credentials::Complete { user: user.trim_end_matches('\n').to_owned() },
        _ if missing.is_empty() => Credentials::Incomplete(vec!["readable username"]),
        _ => Credentials::Incomplete(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_experiment_keeps_others_off_while_it_is_or_may_come_in_the_path() {
        let experiment = |phase: &str, condition: &str, holds: &str| -> ShadowExperiment {
            let condition = json!({
                "type": condition, "status": holds, "reason": "AsPlanned", "message": "",
                "lastTransitionTime": "2026-11-22T12:00:00Z",
            });
            serde_json::from_value(json!({
                "apiVersion": "understudy.dev/v1alpha1", "kind": "ShadowExperiment", "metadata": { "name": "idx" },
                "spec": { "target": {} }, "status": { "phase": phase, "conditions": [condition] },
            }))
            .unwrap()
        };
        for (phase, condition, holds, at_work) in [
            ("Pending", "Accepted", "True", true),
            ("Pending", "Accepted", "False", false),
            ("Cloning", "Mirroring", "False", true),
            ("Observing", "Mirroring", "True", true),
            ("Concluded", "Mirroring", "True", true),
            ("Concluded", "Mirroring", "False", false),
            ("Promoting", "Mirroring", "False", true),
            ("Promoted", "Mirroring", "False", false),
            ("Halted", "Mirroring", "False", false),
        ] {
            assert_eq!(is_at_work(&experiment(phase, condition, holds)), at_work, "{phase} {condition} {holds}");
        }
    }
}
