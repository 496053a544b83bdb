//! What is up. It changes nothing.

use crate::{
    failure::Outcome,
    layout::{CONTROL, Layout, NODES},
    leftovers,
    machine::pid_of,
    progress::say,
    up::kubectl,
};

/// Whether all machines run and the API server answers.
pub fn healthy(layout: &Layout) -> bool {
    machines().all(|name| pid_of(layout, name).is_some())
        && kubectl(layout, &["get", "--raw", "/readyz", "--request-timeout=5s"]).is_ok()
}

/// Prints what is up.
pub fn print(layout: &Layout) -> Outcome<()> {
    for name in machines() {
        say(&match pid_of(layout, name) {
            Some(pid) => format!("  {name:<8} runs (process {pid})"),
            None => format!("  {name:<8} does not run"),
        });
    }
    for other in leftovers::others(layout.state()) {
        say(&format!("  a cluster of {} runs on this machine", other.display()));
    }
    if !healthy(layout) {
        return Err("the cluster is not up".into());
    }
    say(&kubectl(layout, &["get", "nodes", "--label-columns=node.kubernetes.io/instance-type"])?);
    say(&kubectl(layout, &["get", "pods", "--all-namespaces", "--output=wide"])?);
    say(&kubectl(layout, &["get", "storageclasses"])?);
    Ok(())
}

fn machines() -> impl Iterator<Item = &'static str> {
    std::iter::once(CONTROL).chain(NODES.into_iter().map(|node| node.name))
}
