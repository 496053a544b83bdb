//! Which programs a machine runs, with which arguments. Pure.

use std::path::PathBuf;

use crate::layout::{CONTROL, CONTROL_ADDRESS, Layout, Node, PODS, SERVICES};

/// One program of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What its log is called after.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// What it is given.
    pub arguments: Vec<String>,
    /// What must be there before it is started.
    pub after: After,
}

/// What a program waits for: started too early, it ends or complains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Nothing,
    /// A file.
    File(&'static str),
    /// The API server, with its own rules in it.
    Api,
}

/// The control plane.
pub fn control(layout: &Layout) -> Vec<Program> {
    vec![
        component(layout, "etcd", etcd(layout)),
        component(layout, "kube-apiserver", apiserver(layout)),
        Program { after: After::Api, ..component(layout, "kube-controller-manager", controllers(layout)) },
        Program { after: After::Api, ..component(layout, "kube-scheduler", scheduler(layout)) },
    ]
}

/// A node.
pub fn node(layout: &Layout, node: Node) -> Vec<Program> {
    let directory = layout.machine(node.name).display().to_string();
    let pki = layout.pki().display().to_string();
    let containerd = Program {
        name: "containerd",
        path: PathBuf::from("containerd"),
        arguments: vec!["--config".to_owned(), format!("{directory}/containerd.toml")],
        after: After::Nothing,
    };
    let kubelet = vec![
        format!("--config={directory}/kubelet.yaml"),
        format!("--kubeconfig={pki}/{}.kubeconfig", node.name),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address()),
        "--root-dir=/run/kubelet".to_owned(),
        format!("--node-labels=node.kubernetes.io/instance-type={}", node.instance.name()),
        "--v=1".to_owned(),
    ];
    vec![
        containerd,
        Program { after: After::File("/run/containerd/containerd.sock"), ..component(layout, "kubelet", kubelet) },
        Program {
            name: "network-policy",
            path: layout.bin("network-policy"),
            arguments: vec![format!("--kubeconfig={pki}/network-policy.kubeconfig"), format!("--node={}", node.name)],
            after: After::Nothing,
        },
        component(layout, "kube-proxy", vec![format!("--config={directory}/kube-proxy.yaml")]),
    ]
}

fn component(layout: &Layout, name: &'static str, mut arguments: Vec<String>) -> Program {
    arguments.insert(0, name.to_owned());
    Program { name, path: layout.bin("kubernetes"), arguments, after: After::Nothing }
}

fn etcd(layout: &Layout) -> Vec<String> {
    let url = "http://127.0.0.1:2379";
    vec![
        "--name=control".to_owned(),
        format!("--data-dir={}/etcd", layout.machine(CONTROL).display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // Nothing of a test cluster outlives the machine's power.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn apiserver(layout: &Layout) -> Vec<String> {
    let pki = layout.pki().display().to_string();
    let mut arguments: Vec<String> = [
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        // The control plane has no kube-proxy: what it calls, it calls by the pods' addresses.
        "--enable-aggregator-routing=true",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--shutdown-delay-duration=0s",
        "--profiling=false",
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.push(format!("--advertise-address={CONTROL_ADDRESS}"));
    arguments.push(format!("--service-cluster-ip-range={SERVICES}"));
    for (flag, file) in [
        ("client-ca-file", "ca.crt"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("kubelet-client-certificate", "apiserver-to-kubelet.crt"),
        ("kubelet-client-key", "apiserver-to-kubelet.key"),
        ("service-account-key-file", "service-accounts.pub"),
        ("service-account-signing-key-file", "service-accounts.key"),
        ("requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("proxy-client-cert-file", "front-proxy-client.crt"),
        ("proxy-client-key-file", "front-proxy-client.key"),
    ] {
        arguments.push(format!("--{flag}={pki}/{file}"));
    }
    arguments
}

fn controllers(layout: &Layout) -> Vec<String> {
    let pki = layout.pki().display().to_string();
    vec![
        format!("--kubeconfig={pki}/kube-controller-manager.kubeconfig"),
        format!("--authentication-kubeconfig={pki}/kube-controller-manager.kubeconfig"),
        format!("--authorization-kubeconfig={pki}/kube-controller-manager.kubeconfig"),
        format!("--root-ca-file={pki}/ca.crt"),
        format!("--client-ca-file={pki}/ca.crt"),
        format!("--cluster-signing-cert-file={pki}/ca.crt"),
        format!("--cluster-signing-key-file={pki}/ca.key"),
        format!("--service-account-private-key-file={pki}/service-accounts.key"),
        format!("--cluster-cidr={PODS}"),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        "--node-monitor-grace-period=40s".to_owned(),
    ]
}

fn scheduler(layout: &Layout) -> Vec<String> {
    let pki = layout.pki().display().to_string();
    vec![
        format!("--kubeconfig={pki}/kube-scheduler.kubeconfig"),
        format!("--authentication-kubeconfig={pki}/kube-scheduler.kubeconfig"),
        format!("--authorization-kubeconfig={pki}/kube-scheduler.kubeconfig"),
        "--leader-elect=false".to_owned(),
    ]
}
