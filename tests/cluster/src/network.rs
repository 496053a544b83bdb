//! The cables: a bridge in the control plane's network, a cable to it from every node, and one from the
//! host. The host gets one interface and the routes through it, which vanish with the control plane.

use std::{fmt::Write as _, process::Command};

use crate::{
    failure::Outcome,
    layout::{CONTROL_ADDRESS, HOST_ADDRESS, HOST_INTERFACE, NODES, Node, PODS, SERVICES},
    machine::Machine,
    program::feed,
};

/// The bridge, with the host at it.
pub fn lay_bridge(control: &Machine) -> Outcome<()> {
    let host = std::process::id();
    within(
        control.pid,
        &format!(
            "link set lo up\n\
             link add us-bridge type bridge\n\
             address add {CONTROL_ADDRESS}/24 dev us-bridge\n\
             link set us-bridge up\n\
             link add us-to-host type veth peer name {HOST_INTERFACE} netns {host}\n\
             link set us-to-host master us-bridge up\n\
             {}",
            routes("us-bridge")
        ),
    )?;
    batch(
        Command::new("ip").args(["-batch", "-"]),
        &format!(
            "address add {HOST_ADDRESS}/24 dev {HOST_INTERFACE}\n\
             link set {HOST_INTERFACE} up\n\
             {}",
            routes(HOST_INTERFACE)
        ),
    )
}

/// The cable of one node.
pub fn connect(control: &Machine, machine: &Machine, node: Node) -> Outcome<()> {
    let cable = node.cable();
    within(
        control.pid,
        &format!(
            "link add {cable} type veth peer name eth0 netns {}\n\
             link set {cable} master us-bridge up\n",
            machine.pid
        ),
    )?;
    let mut inside = format!(
        "link set lo up\naddress add {}/24 dev eth0\nlink set eth0 up\nroute add default via {CONTROL_ADDRESS}\n",
        node.address()
    );
    for other in NODES.into_iter().filter(|other| *other != node) {
        let _ = writeln!(inside, "route add {} via {}", other.pods(), other.address());
    }
    within(machine.pid, &inside)
}

/// How somebody who is no node reaches pods (at their nodes) and Services (at the first node).
fn routes(interface: &str) -> String {
    let mut text = String::new();
    for node in NODES {
        let _ = writeln!(text, "route add {} via {} dev {interface}", node.pods(), node.address());
    }
    if let Some(first) = NODES.first() {
        let _ = writeln!(text, "route add {SERVICES} via {} dev {interface}", first.address());
    }
    text
}

fn within(pid: i32, commands: &str) -> Outcome<()> {
    batch(Command::new("nsenter").args(["--target", &pid.to_string(), "--net", "ip", "-batch", "-"]), commands)
}

fn batch(command: &mut Command, commands: &str) -> Outcome<()> {
    feed(command, commands).map(drop)
}

/// Whether the host has something else at the cluster's addresses.
pub fn conflict(routes: &str) -> Option<String> {
    routes
        .lines()
        .filter(|line| !line.contains(HOST_INTERFACE))
        .find(|line| {
            ["10.213.", "10.214.", "10.215."].iter().any(|net| line.starts_with(net)) || line.starts_with(PODS)
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_somebody_elses_routes_are_in_the_way() {
        let own = "default via 192.0.2.1 dev eth0\n10.214.1.0/24 via 10.213.0.11 dev us-host\n";
        assert_eq!(conflict(own), None);
        assert!(conflict("10.214.0.0/16 dev docker0\n").is_some());
    }
}
