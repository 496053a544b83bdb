//! What a pod's status says, in the few words that are needed. Pure.

use k8s_openapi::api::core::v1::Pod;

/// It answers its readiness probe.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True") && pod.metadata.deletion_timestamp.is_none()
}

/// It has ended, or is ending, and will not come back.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded")) || pod.metadata.deletion_timestamp.is_some()
}

/// How it ended: `: exit status 1, OOMKilled`, or nothing.
pub fn how_it_ended(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let ended = status
        .and_then(|status| status.container_statuses.as_ref())
        .into_iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.terminated.as_ref());
    match ended {
        Some(ended) => {
            let reason = ended.reason.as_deref().map(|reason| format!(", {reason}")).unwrap_or_default();
            format!(": exit status {}{reason}", ended.exit_code)
        }
        None => status.and_then(|s| s.reason.as_deref()).map(|reason| format!(": {reason}")).unwrap_or_default(),
    }
}

/// Why it can't be started, if it can't: no node, no image, no volume.
pub fn trouble(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    if let Some(("False", Some(message))) = condition(pod, "PodScheduled") {
        return Some(format!("pod {name} finds no node: {message}"));
    }
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in containers {
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            if !matches!(reason, "ContainerCreating" | "PodInitializing" | "") {
                let message = waiting.message.as_deref().unwrap_or_default();
                return Some(format!("pod {name} can't be started: {reason} {message}").trim_end().to_owned());
            }
        }
    }
    if status.phase.as_deref() == Some("Failed") {
        return Some(format!("pod {name} has ended{}", how_it_ended(pod)));
    }
    None
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<(&'a str, Option<&'a str>)> {
    let all = pod.status.as_ref()?.conditions.as_ref()?;
    let found = all.iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.as_str(), found.message.as_deref()))
}
