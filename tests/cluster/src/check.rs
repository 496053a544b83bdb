//! Whether the cluster is one: a PostgreSQL in a StatefulSet with a volume of every class, reached by
//! `kubectl exec`, by its Service's name from another node, and from this machine. It removes what it made.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use crate::{
    cgroups,
    failure::{Failure, Outcome, Trying as _},
    layout::{API_SERVICE, Layout, NODES, Node},
    program::until,
    progress::{say, step},
    up::{apply, client, kubectl},
};

const NAMESPACE: &str = "--namespace=understudy-check";
const OWN_VOLUMES: &str =
    r#"--output=jsonpath={.items[?(@.spec.claimRef.namespace=="understudy-check")].metadata.name}"#;
const MANIFESTS: &str = include_str!("../manifests/check.yaml");
/// On another node than the server, by a rule of the manifest.
const BY_NAME: &str =
    "psql 'host=check user=postgres password=check dbname=app' --tuples-only --no-align --command 'select 1'";
const REACHES: &str = "pg_isready --quiet --host check-one --timeout 1";
/// Sums as long as it takes one processor to do so.
const WORK: &str = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";

/// Checks a running cluster.
pub fn check(layout: &Layout) -> Outcome<()> {
    let outcome = every_way(layout);
    if outcome.is_err() {
        let events = kubectl(layout, &[NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"])?;
        events.lines().rev().take(12).for_each(say);
    }
    let removed = step("everything is removed", || {
        kubectl(layout, &["delete", "namespace", "understudy-check", "--ignore-not-found", "--timeout=90s"])?;
        until(Duration::from_secs(60), "volumes", || {
            let left = kubectl(layout, &["get", "persistentvolumes", OWN_VOLUMES])?;
            if left.trim().is_empty() { Ok(()) } else { Err(Failure::from(left)) }
        })
    });
    outcome.and(removed)
}

fn every_way(layout: &Layout) -> Outcome<()> {
    step("a PostgreSQL with a volume of each class, and a client", || {
        until(Duration::from_secs(20), "a namespace that can be used", || apply(layout, MANIFESTS))?;
        kubectl(layout, &[NAMESPACE, "rollout", "status", "statefulset/check", "--timeout=120s"])?;
        kubectl(layout, &[NAMESPACE, "wait", "--for=condition=Ready", "pod/client", "pod/small", "--timeout=120s"])
    })?;
    step("kubectl exec", || exec(layout, "check-0", "psql -d app -Atc 'select 1'").and_then(|told| same(&told, "1")))?;
    step("the Service's name, from another node", || {
        exec(layout, "client", BY_NAME).and_then(|told| same(&told, "1"))
    })?;
    step("a Service's address, from two nodes", || {
        exec(layout, "client", REACHES)?;
        exec(layout, "small", REACHES)
    })?;
    step("the API server's name, from a pod with a token", || {
        let token = "test -s /var/run/secrets/kubernetes.io/serviceaccount/token && \
                     getent hosts kubernetes.default.svc.cluster.local | cut -d ' ' -f 1";
        exec(layout, "client", token).and_then(|told| same(&told, API_SERVICE))
    })?;
    step("kubectl logs", || {
        let told = kubectl(layout, &[NAMESPACE, "logs", "check-0"])?;
        if told.contains("ready to accept connections") { Ok(()) } else { Err(Failure::from(told)) }
    })?;
    step("kubectl port-forward", || {
        let mut forward = client(layout, &[NAMESPACE, "port-forward", "pod/check-0", ":5432"])
            .stdout(Stdio::piped())
            .spawn()
            .trying(|| "run kubectl".to_owned())?;
        // Kept to the end: without a reader the next line would be its last.
        let mut output = BufReader::new(forward.stdout.take().ok_or("no output")?);
        let mut told = String::new();
        output.read_line(&mut told).trying(|| "read what kubectl says".to_owned())?;
        // "Forwarding from 127.0.0.1:40000 -> 5432"
        let address = told.split_whitespace().find(|word| word.starts_with("127."));
        let answer = address.ok_or_else(|| format!("no address in {told:?}")).and_then(answers);
        let _ = forward.kill().and_then(|()| forward.wait());
        Ok(answer?)
    })?;
    step("each class is its file system", || {
        for class in ["ext4", "xfs", "btrfs"] {
            let told = exec(layout, "check-0", &format!("stat -f -c %T /volumes/{class}"))?;
            same(told.replace("ext2/ext3", "ext4").trim(), class)?;
        }
        Ok(())
    })?;
    step("the pod and the Service, from this machine", || {
        for path in ["{.spec.clusterIP}", "{.status.podIP}"] {
            let object = if path.contains("spec") { "service/check-one" } else { "pod/check-0" };
            let address = kubectl(layout, &[NAMESPACE, "get", object, &format!("--output=jsonpath={path}")])?;
            answers(&format!("{address}:5432"))?;
        }
        Ok(())
    })?;
    step("a NetworkPolicy, and its end", || {
        apply(layout, include_str!("../manifests/check-policy.yaml"))?;
        until(Duration::from_secs(10), "a refusal", || {
            exec(layout, "client", REACHES).map_or(Ok(()), |_| Err("reached it still"))
        })?;
        exec(layout, "small", REACHES)?;
        exec(layout, "check-0", "! timeout 2 pg_isready --quiet --host check-one --timeout 1")?;
        kubectl(layout, &[NAMESPACE, "delete", "networkpolicy", "only-small"])?;
        until(Duration::from_secs(10), "the policy's end", || exec(layout, "client", REACHES))
    })?;
    step("the small node is held back by its quota, a standard one is not", || {
        for (node, pod) in NODES.iter().filter_map(|node| Some((node, pod_on(*node)?))) {
            let before = cgroups::throttled(*node)?;
            exec(layout, pod, WORK)?;
            let held = cgroups::throttled(*node)? > before;
            if held != node.instance.millicpus().is_some() {
                return Err(format!("{}: held back: {held}", node.name).into());
            }
        }
        Ok(())
    })
}

/// Where the manifests put which pod.
fn pod_on(node: Node) -> Option<&'static str> {
    match node.name {
        "node-2" => Some("client"),
        "node-3" => Some("small"),
        _ => None,
    }
}

/// Whether a PostgreSQL is at an address: it answers the question for TLS with one byte.
fn answers(address: &str) -> Result<(), String> {
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&SSL_REQUEST)?;
        stream.read_exact(&mut [0])
    };
    ask().map_err(|error| format!("{address}: {error}"))
}

fn exec(layout: &Layout, pod: &str, script: &str) -> Outcome<String> {
    kubectl(layout, &[NAMESPACE, "exec", pod, "--", "sh", "-c", script])
}

fn same(told: &str, expected: &str) -> Outcome<()> {
    if told.trim() == expected { Ok(()) } else { Err(format!("{:?} instead of {expected}", told.trim()).into()) }
}
