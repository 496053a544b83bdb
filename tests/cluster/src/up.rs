//! Starting and stopping, step by step. Each step is somewhere else; here is their order.

use std::{fs, path::Path, process::Command, time::Duration, time::Instant};

use crate::{
    binaries, certificates, cgroups, configuration,
    failure::{Failure, Outcome, Trying},
    images::{self, store},
    layout::{CONTROL, Layout, NODES},
    leftovers,
    machine::{Machine, pid_of},
    network,
    program::{feed, finish, run, until},
    progress::{say, step},
    status, volumes,
};

const DNS: &str = include_str!("../manifests/dns.yaml");
const POLICY: &str = include_str!("../manifests/policy.yaml");
const STORAGE: &str = include_str!("../manifests/storage.yaml");

/// Starts the cluster.
pub fn up(layout: &Layout, binaries: &Path, replace: bool, fresh: bool) -> Outcome<()> {
    let start = Instant::now();
    if !fresh && status::healthy(layout) {
        say("The cluster is up.");
        usage(layout);
        return Ok(());
    }
    clear_others(layout, replace)?;
    if let Some(route) = network::conflict(&run("ip", ["route"])?) {
        return Err(format!("the cluster's addresses are taken on this machine: {route}").into());
    }
    step("clearing what an earlier cluster left", || clear(layout))?;
    binaries::build(layout)?;
    step("certificates", || certificates::make(layout))?;
    step("images", || {
        let made = images::make(layout, binaries)?;
        store::prepare(layout, &made)
    })?;
    let made = step("file systems for volumes", || volumes::make(layout))?;
    step("machines and cables", || start_machines(layout))?;
    step("API server", || {
        until(Duration::from_secs(60), "the API server", || kubectl(layout, &["get", "--raw", "/readyz"]))
    })?;
    step("name server and volumes", || {
        // The namespaces' own accounts come a moment after the API.
        until(Duration::from_secs(30), "the first manifests", || apply(layout, DNS))?;
        apply(layout, POLICY)?;
        apply(layout, STORAGE)?;
        apply(layout, &volumes::classes(&made))
    })?;
    step("nodes", || {
        until(Duration::from_secs(60), "nodes", || {
            let names = kubectl(layout, &["get", "nodes", "--output=name"])?;
            if names.lines().count() == NODES.len() { Ok(()) } else { Err(Failure::from("not all are there")) }
        })?;
        kubectl(layout, &["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"])
    })?;
    step("system pods", || {
        kubectl(layout, &["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s"])?;
        let provisioner = "deployment/local-path-provisioner";
        kubectl(layout, &["--namespace=local-path-storage", "rollout", "status", provisioner, "--timeout=60s"])
    })?;
    say(&format!("The cluster is up after {:.1} s.", start.elapsed().as_secs_f64()));
    usage(layout);
    Ok(())
}

/// Stops the cluster.
pub fn down(layout: &Layout, all: bool) -> Outcome<()> {
    if all {
        for other in leftovers::others(layout.state()) {
            step(&format!("ending the cluster of {}", other.display()), || leftovers::clear(&other))?;
        }
    }
    step("ending the cluster", || clear(layout))
}

/// Makes the images again, and gives the new ones to running nodes. The next start unpacks them for itself.
pub fn images(layout: &Layout, binaries: &Path) -> Outcome<()> {
    binaries::build(layout)?;
    let made = step("images", || images::make(layout, binaries))?;
    for (node, pid) in NODES.iter().filter_map(|node| Some((node, pid_of(layout, node.name)?))) {
        step(&format!("giving them to {}", node.name), || {
            made.iter().filter(|image| image.new).try_for_each(|image| store::import(pid, &image.archive))
        })?;
    }
    for image in made {
        say(&format!("  {}{}", image.name, if image.new { " (new)" } else { "" }));
    }
    Ok(())
}

/// Runs kubectl as the administrator.
pub fn kubectl(layout: &Layout, arguments: &[&str]) -> Outcome<String> {
    finish(&mut client(layout, arguments))
}

/// Applies manifests as the administrator.
pub fn apply(layout: &Layout, manifests: &str) -> Outcome<()> {
    feed(&mut client(layout, &["apply", "--filename=-"]), manifests).map(drop)
}

/// kubectl as the administrator.
pub fn client(layout: &Layout, arguments: &[&str]) -> Command {
    let mut command = Command::new(layout.bin("kubectl"));
    command.arg("--kubeconfig").arg(layout.kubeconfig()).args(arguments);
    // Nothing between this machine and itself.
    for proxy in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    command
}

fn clear_others(layout: &Layout, replace: bool) -> Outcome<()> {
    for other in leftovers::others(layout.state()) {
        // A cluster whose directory is gone is nobody's.
        if !replace && other.exists() {
            return Err(format!(
                "a cluster of {} is running on this machine; end it with `test-cluster down --all`, or use --replace",
                other.display()
            )
            .into());
        }
        step(&format!("ending the cluster of {}", other.display()), || leftovers::clear(&other))?;
    }
    Ok(())
}

/// Ends everything, and forgets what it was; programs, certificates and images stay.
fn clear(layout: &Layout) -> Outcome<()> {
    leftovers::clear(layout.state())?;
    for directory in [layout.state().join("machines"), layout.logs(), layout.volumes()] {
        if directory.exists() {
            fs::remove_dir_all(&directory).trying(|| format!("remove {}", directory.display()))?;
        }
    }
    Ok(())
}

fn start_machines(layout: &Layout) -> Outcome<()> {
    configuration::write(layout)?;
    store::copy(layout)?;
    let mut control = Machine::start(layout, CONTROL)?;
    network::lay_bridge(&control)?;
    control.go()?;
    for node in NODES {
        cgroups::make(node)?;
        let mut machine = Machine::start(layout, node.name)?;
        network::connect(&control, &machine, node)?;
        machine.go()?;
    }
    Ok(())
}

fn usage(layout: &Layout) {
    say(&format!("  export KUBECONFIG={}", layout.kubeconfig().display()));
    say("  kubectl get nodes          Services and pods can be reached from this machine, too");
    say(&format!("  logs are in {}; helm is {}", layout.logs().display(), layout.bin("helm").display()));
}
