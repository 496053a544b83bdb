//! The documents that the programs read, from the templates in `config/`. No decisions are made here.

use std::{fs, path::Path};

use crate::{
    failure::{Outcome, Trying},
    layout::{CONTROL, DNS_SERVICE, Layout, NODES, Node, PODS, STORE},
};

/// Writes everything that the machines read, and the administrator's kubeconfig.
pub fn write(layout: &Layout) -> Outcome<()> {
    put(&layout.machine(CONTROL).join("empty"), "")?;
    for user in ["kube-controller-manager", "kube-scheduler", "kube-proxy", "network-policy"] {
        put(&layout.pki().join(format!("{user}.kubeconfig")), &kubeconfig(layout, user))?;
    }
    for node in NODES {
        write_node(layout, node)?;
    }
    put(&layout.kubeconfig(), &kubeconfig(layout, "admin"))
}

/// Writes what the machine that unpacks images reads.
pub fn write_store(layout: &Layout, root: &Path) -> Outcome<()> {
    let directory = layout.machine(STORE);
    put(&directory.join("containerd.toml"), &containerd(root, &directory, "\"io.containerd.grpc.v1.cri\""))
}

fn write_node(layout: &Layout, node: Node) -> Outcome<()> {
    let directory = layout.machine(node.name);
    let pki = layout.pki().display().to_string();
    put(&layout.pki().join(format!("{}.kubeconfig", node.name)), &kubeconfig(layout, node.name))?;
    put(&directory.join("containerd.toml"), &containerd(&directory.join("containerd"), &directory, ""))?;
    put(
        &directory.join("cni/10-understudy.conflist"),
        &fill(include_str!("../config/cni.conflist"), &[("pods", &node.pods())]),
    )?;
    put(&directory.join("resolv.conf"), "# Nothing outside the cluster can be reached from it.\n")?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = u32::try_from(processors).unwrap_or(1).saturating_mul(1000);
    let reserved = node.instance.millicpus().map_or(0, |millicpus| all.saturating_sub(millicpus));
    put(
        &directory.join("kubelet.yaml"),
        &fill(
            include_str!("../config/kubelet.yaml"),
            &[
                ("name", node.name),
                ("pki", &pki),
                ("directory", &directory.display().to_string()),
                ("cgroup", &format!("/{}", node.cgroup())),
                ("cfs", if node.instance.millicpus().is_none() { "true" } else { "false" }),
                ("reserved", &format!("{reserved}m")),
                ("dns", DNS_SERVICE),
                ("pods", &node.pods()),
            ],
        ),
    )?;
    put(
        &directory.join("kube-proxy.yaml"),
        &fill(include_str!("../config/kube-proxy.yaml"), &[("name", node.name), ("pki", &pki), ("all_pods", PODS)]),
    )
}

fn containerd(root: &Path, directory: &Path, disabled: &str) -> String {
    fill(
        include_str!("../config/containerd.toml"),
        &[
            ("root", &root.display().to_string()),
            ("cni", &directory.join("cni").display().to_string()),
            ("disabled", disabled),
        ],
    )
}

fn kubeconfig(layout: &Layout, user: &str) -> String {
    fill(
        include_str!("../config/kubeconfig.yaml"),
        &[("server", &Layout::server()), ("pki", &layout.pki().display().to_string()), ("user", user)],
    )
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn put(path: &Path, text: &str) -> Outcome<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).trying(|| format!("make {}", directory.display()))?;
    }
    fs::write(path, text).trying(|| format!("write {}", path.display()))
}
