//! What of the worker's pod an arm's pod is made of, by rule. Pure.
//!
//! Kept: the image, its settings (literal environment, ConfigMaps, memory volumes), security contexts,
//! resources, placement. Left out: sidecars, init containers, probes, hooks, Secrets in any form,
//! service accounts, host paths, and every label, since they are what production is found by.

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Volume};

/// The environment variables that name the data's place; an arm has a place of its own.
const OWN_PLACE: [&str; 2] = ["PGDATA", "POSTGRES_INITDB_WALDIR"];
/// Parts of names of literal variables that may be secrets.
const SECRET_WORDS: [&str; 4] = ["PASSWORD", "SECRET", "TOKEN", "PRIVATE"];

/// The container that PostgreSQL runs in: by name, else by its port, else the first.
pub fn postgres_container(spec: &PodSpec) -> Option<&Container> {
    let by_name = || spec.containers.iter().find(|c| matches!(c.name.as_str(), "postgres" | "postgresql"));
    let by_port = || spec.containers.iter().find(|c| c.ports.iter().flatten().any(|port| port.container_port == 5432));
    by_name().or_else(by_port).or_else(|| spec.containers.first())
}

/// The volume claim that holds the worker's data: the one that `PGDATA` lies in, else the only one.
pub fn data_claim(spec: &PodSpec) -> Option<&str> {
    let container = postgres_container(spec)?;
    let pgdata = container.env.iter().flatten().find(|env| env.name == "PGDATA").and_then(|env| env.value.as_deref());
    let mut claims: Vec<(&str, &str)> = container
        .volume_mounts
        .iter()
        .flatten()
        .filter_map(|mount| Some((mount.mount_path.as_str(), claim_of(spec, &mount.name)?)))
        .collect();
    // The deepest mount comes first.
    claims.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    let inside = |path: &str, place: &str| place.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let by_pgdata = pgdata.and_then(|place| claims.iter().find(|(path, _)| inside(path.trim_end_matches('/'), place)));
    let by_path = || claims.iter().find(|(path, _)| path.contains("postgres") || path.contains("pgdata"));
    let only = || claims.first().filter(|_| claims.len() == 1);
    by_pgdata.or_else(only).or_else(by_path).map(|(_, claim)| *claim)
}

fn claim_of<'a>(spec: &'a PodSpec, volume: &str) -> Option<&'a str> {
    let volume = spec.volumes.iter().flatten().find(|v| v.name == volume)?;
    volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str())
}

/// The variables that an arm gets: literal ones that are no secret.
pub fn environment(container: &Container) -> Vec<EnvVar> {
    let keep = |env: &&EnvVar| {
        let upper = env.name.to_ascii_uppercase();
        env.value_from.is_none()
            && !OWN_PLACE.contains(&env.name.as_str())
            && !SECRET_WORDS.iter().any(|word| upper.contains(word))
    };
    container.env.iter().flatten().filter(keep).cloned().collect()
}

/// The volumes that an arm gets: ConfigMaps and empty directories that PostgreSQL's container mounts.
pub fn volumes(spec: &PodSpec, container: &Container) -> Vec<Volume> {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let harmless =
        |volume: &&Volume| (volume.config_map.is_some() || volume.empty_dir.is_some()) && mounted(&volume.name);
    spec.volumes.iter().flatten().filter(harmless).cloned().collect()
}
