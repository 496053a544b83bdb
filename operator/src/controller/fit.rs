//! Whether an experiment can be run as the world is, and what of the world it then stands on. Pure;
//! each refusal names what is wrong and what would be right.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PersistentVolumeClaim, Pod, PodSpec, Service},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use understudy_crds::{
    ShadowExperiment, condition::ConditionReason, experiment::StatefulSetTarget, pods,
    support::unsupported_on_kubernetes, validate::violations,
};

use super::{
    names::Names,
    routing,
    template::{data_claim, postgres_container},
    world::{Credentials, World},
};

/// Why an experiment is not run now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub reason: ConditionReason,
    /// For people.
    pub message: String,
}

impl Refusal {
    fn new(reason: ConditionReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// The port that clients reach PostgreSQL by, as the Service leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number in the pod.
    pub number: i32,
    /// What the mirror must call it, so that the Service finds it.
    pub name: String,
}

/// What an experiment stands on.
#[derive(Clone, Debug)]
pub struct Fit<'a> {
    /// The experiment.
    pub experiment: &'a ShadowExperiment,
    /// Its worker, as the document has it.
    pub target: &'a StatefulSetTarget,
    /// What its things are called.
    pub names: Names,
    /// The worker's pod's name.
    pub worker_name: String,
    /// Where the worker is reached past its Service.
    pub worker_host: String,
    /// The worker's pod's description.
    pub worker_spec: &'a PodSpec,
    /// PostgreSQL's container in it.
    pub container: &'a Container,
    /// The claim with its data.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// How large the worker's volume is.
    pub volume_size: String,
    /// The port.
    pub port: Port,
    /// The superuser.
    pub user: &'a str,
}

/// What the experiment stands on, or why it can't be run.
pub fn examine(world: &World) -> Result<Fit<'_>, Refusal> {
    use ConditionReason::{InvalidSpec, TargetMissing, WorkerTaken};
    let experiment = &world.experiment;
    if let Some(first) = violations(experiment).first() {
        return Err(Refusal::new(InvalidSpec, first.to_string()));
    }
    if let Some(first) = unsupported_on_kubernetes(&experiment.spec).first() {
        return Err(Refusal::new(InvalidSpec, first.to_string()));
    }
    let target = experiment
        .spec
        .target
        .stateful_set
        .as_ref()
        .ok_or_else(|| Refusal::new(InvalidSpec, "spec.target.statefulSet is missing"))?;
    if let Some(rival) = world.rivals.iter().find(|rival| rival.first) {
        let message = format!(
            "{} is at work on {}-{}; one experiment at a time studies a worker",
            rival.name, target.name, target.ordinal
        );
        return Err(Refusal::new(WorkerTaken, message));
    }
    let missing = |field: &str, kind: &str, name: &str| {
        let message = format!(
            "spec.target.statefulSet.{field}: there is no {kind} `{name}` in namespace `{}`",
            world.names.namespace
        );
        Refusal::new(TargetMissing, message)
    };
    let set = world.stateful_set.as_ref().ok_or_else(|| missing("name", "StatefulSet", &target.name))?;
    let worker_name = format!("{}-{}", target.name, target.ordinal);
    let worker = world.worker.as_ref().ok_or_else(|| missing("ordinal", "pod", &worker_name))?;
    let service = world.service.as_ref().ok_or_else(|| missing("service", "Service", &target.service))?;
    let user = match &world.credentials {
        Credentials::Missing => return Err(missing("credentialsSecret", "Secret", &target.credentials_secret)),
        Credentials::Incomplete(keys) => {
            let message = format!(
                "spec.target.statefulSet.credentialsSecret: Secret `{}` has no {}",
                target.credentials_secret,
                keys.join(" and no ")
            );
            return Err(Refusal::new(TargetMissing, message));
        }
        Credentials::Complete { user } => user,
    };
    let worker_spec = worker.spec.as_ref().ok_or_else(|| missing("ordinal", "pod", &worker_name))?;
    let container = postgres_container(worker_spec).ok_or_else(|| missing("ordinal", "pod", &worker_name))?;
    let address = worker.status.as_ref().and_then(|status| status.pod_ip.clone());
    let governing = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|_| world.governed);
    let worker_host = match (governing, address) {
        (Some(governing), _) => world.names.dns(&format!("{worker_name}.{governing}")),
        (None, Some(address)) => address,
        (None, None) => {
            return Err(Refusal::new(TargetMissing, format!("pod `{worker_name}` has no address yet")));
        }
    };
    let port = routable(world, service, worker, container)?;
    let claim = world.worker_claim.as_ref();
    Ok(Fit {
        experiment,
        target,
        names: world.names.clone(),
        worker_name,
        worker_host,
        worker_spec,
        container,
        claim,
        volume_size: size_of(claim).unwrap_or_else(|| "10Gi".to_owned()),
        port,
        user,
    })
}

/// The name of the claim that holds a worker's data.
pub fn claim_name(worker: &Pod) -> Option<&str> {
    data_claim(worker.spec.as_ref()?)
}

fn size_of(claim: Option<&PersistentVolumeClaim>) -> Option<String> {
    let claim = claim?;
    let bound = claim.status.as_ref().and_then(|status| status.capacity.as_ref()).and_then(|c| c.get("storage"));
    let asked = || claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage");
    bound.or_else(asked).map(|quantity| quantity.0.clone())
}

/// The port through which the mirror can take the Service's place, or why it can't.
fn routable(world: &World, service: &Service, worker: &Pod, container: &Container) -> Result<Port, Refusal> {
    let name = service.name_any();
    let refuse = |why: String| Refusal::new(ConditionReason::ServiceNotRoutable, format!("Service `{name}` {why}"));
    let Some(spec) = &service.spec else { return Err(refuse("is empty".to_owned())) };
    if spec.cluster_ip.as_deref() == Some("None") {
        return Err(refuse(
            "is headless: its clients connect to the pod itself, so the mirror can't take its place; \
             make a Service with a cluster IP for this pod and point the clients at it"
                .to_owned(),
        ));
    }
    let selector: BTreeMap<String, String> = routing::own_selector(service).unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") || selector.is_empty() {
        return Err(refuse("has no selector, so there is nothing that the mirror could take the place of".to_owned()));
    }
    let worker_name = worker.name_any();
    let others: Vec<&str> = world.selected.iter().map(String::as_str).filter(|pod| **pod != worker_name).collect();
    if !others.is_empty() {
        return Err(refuse(format!(
            "selects {} beside {worker_name}; name a Service for this pod alone \
             (selector `statefulset.kubernetes.io/pod-name: {worker_name}`)",
            others.join(", ")
        )));
    }
    if !world.selected.contains(&worker_name) {
        return Err(refuse(format!("does not select {worker_name}")));
    }
    let mut found: Option<Port> = None;
    for port in spec.ports.iter().flatten() {
        let target = port.target_port.clone().unwrap_or(IntOrString::Int(port.port));
        let named = container.ports.iter().flatten().find(|p| match &target {
            IntOrString::String(name) => p.name.as_deref() == Some(name),
            IntOrString::Int(number) => p.container_port == *number,
        });
        let this = match (&target, named) {
            (IntOrString::Int(number), named) => {
                let name = named.and_then(|p| p.name.clone()).unwrap_or_else(|| "postgres".to_owned());
                Port { number: *number, name }
            }
            (IntOrString::String(name), Some(port)) => Port { number: port.container_port, name: name.clone() },
            (IntOrString::String(name), None) => {
                return Err(refuse(format!(
                    "leads to port `{name}`, which is not one of container `{}`; give PostgreSQL a Service of its own",
                    container.name
                )));
            }
        };
        match &found {
            Some(other) if other.number != this.number => {
                return Err(refuse(format!(
                    "leads to ports {} and {}; give PostgreSQL a Service of its own",
                    other.number, this.number
                )));
            }
            _ => found = Some(this),
        }
    }
    let found = found.ok_or_else(|| refuse("has no port".to_owned()))?;
    let taken = [pods::HEALTH_PORT, pods::CONTROL_PORT, pods::AGENT_PORT];
    if taken.iter().any(|port| i32::from(*port) == found.number) {
        return Err(refuse(format!("leads to port {}, which the mirror needs for itself", found.number)));
    }
    // Names that the mirror's other ports have.
    let name = if matches!(found.name.as_str(), "control" | "health") { "postgres".to_owned() } else { found.name };
    Ok(Port { number: found.number, name })
}
