//! The resource of an experiment, read and written as `kubectl` would.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use understudy_crds::{
    ShadowExperiment,
    condition::{ConditionReason, ConditionType, Outcome},
    labels, manifest,
};

use crate::{
    controller::{names::Names, objects::config::REPORT},
    error::{ErrorKind, Side, UserError},
};

/// Who writes, for server-side apply.
const MANAGER: &str = "kubectl-understudy";

/// A cluster, and the namespace that its context names.
pub(super) struct Cluster {
    client: Client,
    namespace: String,
}

/// The experiments of a namespace.
pub(super) struct Experiments {
    api: Api<ShadowExperiment>,
    /// The namespace.
    pub(super) namespace: String,
}

fn refused(what: &str, error: &kube::Error) -> UserError {
    let (kind, reason) = match error {
        kube::Error::Api(status) => {
            let kind = if status.code == 404 { ErrorKind::Missing } else { ErrorKind::Refused };
            (kind, status.message.clone())
        }
        other => (ErrorKind::Unreachable, other.to_string()),
    };
    UserError::new(kind, Side::Cluster, what).fact("reason", reason)
}

impl Cluster {
    /// Connects as kubectl would.
    pub(super) async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, UserError> {
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let unknown = |reason: String| {
            UserError::new(ErrorKind::Missing, Side::Cluster, "no cluster is known here")
                .fact("reason", reason)
                .remedy("set KUBECONFIG, or name one with --kubeconfig and --context")
        };
        let config = match (kubeconfig, context) {
            (Some(file), _) => {
                let document = Kubeconfig::read_from(file).map_err(|e| unknown(e.to_string()))?;
                Config::from_custom_kubeconfig(document, &options).await.map_err(|e| unknown(e.to_string()))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|e| unknown(e.to_string()))?,
            (None, None) => Config::infer().await.map_err(|e| unknown(e.to_string()))?,
        };
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|e| refused("the cluster can't be used", &e))?;
        Ok(Self { client, namespace })
    }

    /// The experiments of a namespace, or of the context's.
    pub(super) fn experiments(&self, namespace: Option<&str>) -> Experiments {
        let namespace = namespace.unwrap_or(&self.namespace).to_owned();
        Experiments { api: Api::namespaced(self.client.clone(), &namespace), namespace }
    }

    /// Applies an experiment; the namespace that it names, and its name.
    pub(super) async fn apply(
        &self,
        file: &Path,
        namespace: Option<&str>,
    ) -> Result<(Option<String>, String), UserError> {
        let text = std::fs::read_to_string(file).map_err(|e| UserError::file("read the experiment", file, &e))?;
        let experiment = manifest::read(&text).map_err(|e| {
            UserError::new(ErrorKind::InvalidField, Side::Document, format!("{}: not an experiment", file.display()))
                .fact("reason", e)
                .nothing_changed()
        })?;
        let name = experiment.name_any();
        let named = experiment.namespace();
        let experiments = self.experiments(named.as_deref().or(namespace));
        let parameters = PatchParams::apply(MANAGER).force();
        let applied = experiments.api.patch(&name, &parameters, &Patch::Apply(&experiment)).await;
        applied.map_err(|e| refused("the experiment was not taken", &e).nothing_changed())?;
        Ok((named, name))
    }

    /// Throws the kill switch of one experiment, or of all. Who was halted.
    pub(super) async fn halt(
        &self,
        name: Option<&str>,
        namespace: Option<&str>,
        everywhere: bool,
    ) -> Result<Vec<String>, UserError> {
        let patch = Patch::Merge(serde_json::json!({ "spec": { "halt": true } }));
        let here = self.experiments(namespace);
        let found = if let Some(name) = name {
            vec![(here.namespace.clone(), name.to_owned())]
        } else {
            let api = if everywhere { Api::<ShadowExperiment>::all(self.client.clone()) } else { here.api };
            let list = api.list(&ListParams::default()).await;
            let list = list.map_err(|e| refused("the experiments can't be listed", &e))?;
            list.iter().map(|e| (e.namespace().unwrap_or_default(), e.name_any())).collect()
        };
        // All at the same time: nobody waits for another's switch.
        let thrown = found.into_iter().map(async |(namespace, name)| {
            let api: Api<ShadowExperiment> = Api::namespaced(self.client.clone(), &namespace);
            let done = api.patch(&name, &PatchParams::default(), &patch).await;
            done.map(|_| name.clone()).map_err(|e| refused(&format!("{name} can't be halted"), &e))
        });
        futures_util::future::join_all(thrown).await.into_iter().collect()
    }

    /// A document of an experiment's report, once there is one.
    pub(super) async fn report(&self, namespace: Option<&str>, name: &str) -> Result<String, UserError> {
        let experiments = self.experiments(namespace);
        let names = Names::of(&experiments.get(name).await?, None);
        let namespace = &experiments.namespace;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let missing = || {
            UserError::new(ErrorKind::Missing, Side::Cluster, format!("there is no report of {name} yet"))
                .remedy("wait for its verdict: kubectl wait --for=condition=Concluded shadow/NAME")
        };
        let found = api.get(&names.report()).await.map_err(|_| missing())?;
        found.data.and_then(|mut data| data.remove(REPORT)).ok_or_else(missing)
    }
}

impl Experiments {
    /// One of them.
    pub(super) async fn get(&self, name: &str) -> Result<ShadowExperiment, UserError> {
        self.api.get(name).await.map_err(|e| {
            refused("there is no such experiment, or it can't be read", &e)
                .fact("experiment", format!("{}/{name}", self.namespace))
        })
    }

    /// Asks for the rollout of a candidate. Its name.
    pub(super) async fn promote(
        &self,
        name: &str,
        candidate: Option<String>,
        force: bool,
    ) -> Result<String, UserError> {
        let experiment = self.get(name).await?;
        let verdict = experiment.status.as_ref().and_then(|status| status.verdict.clone());
        let wins = verdict.as_ref().is_some_and(|verdict| verdict.outcome == Outcome::Better);
        let judged = verdict.as_ref().and_then(|verdict| verdict.candidate.clone());
        let refuse = |what: &str| {
            let error = UserError::new(ErrorKind::InvalidField, Side::Document, what).nothing_changed();
            match &verdict {
                Some(verdict) => error.fact("verdict", format!("{:?}: {}", verdict.outcome, verdict.message)),
                None => error,
            }
        };
        let Some(chosen) = candidate.or_else(|| judged.clone()) else {
            let why = if verdict.is_some() { "the verdict names no winner" } else { "there is no verdict yet" };
            return Err(refuse(why).remedy("wait for a verdict, or name a candidate with --candidate and --force"));
        };
        if !experiment.spec.candidates.iter().any(|candidate| candidate.name == chosen) {
            return Err(refuse("the experiment has no such candidate").fact("candidate", &chosen));
        }
        let is_winner = wins && judged.as_deref() == Some(chosen.as_str());
        if !force && !is_winner {
            return Err(refuse("only a candidate that is Better is promoted")
                .fact("candidate", &chosen)
                .remedy("let the experiment go on, or promote it all the same with --force"));
        }
        let mut annotations = BTreeMap::from([(labels::PROMOTE, Some(chosen.clone()))]);
        if was_taken_back(&experiment) {
            // Its record would stand in the way of another attempt; that of one under way must stay.
            annotations.insert(labels::ROLLOUT, None);
        }
        let patch = serde_json::json!({ "metadata": { "annotations": annotations } });
        let asked = self.api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        asked.map_err(|e| refused("the promotion was not taken", &e).nothing_changed())?;
        Ok(chosen)
    }
}

/// Whether an earlier promotion failed, and its change is off the workers again.
fn was_taken_back(experiment: &ShadowExperiment) -> bool {
    experiment.status.as_ref().is_some_and(|status| {
        status.conditions.iter().any(|condition| {
            condition.type_ == ConditionType::Promoted && condition.reason == ConditionReason::PromotionReverted
        })
    })
}
