//! Names, addresses and places: everything about the cluster that is known before it exists. Pure, but
//! for the state directory's absolute path and its lock.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::failure::{Outcome, Trying};

/// The version that the binary is built from and calls itself.
pub const KUBERNETES: &str = "1.34.4";
/// The interface on the host; its name is how leftovers are recognised.
pub const HOST_INTERFACE: &str = "us-host";
/// The host's address among the machines.
pub const HOST_ADDRESS: &str = "10.213.0.254";
/// The control plane's address.
pub const CONTROL_ADDRESS: &str = "10.213.0.1";
/// All pods of all nodes.
pub const PODS: &str = "10.214.0.0/16";
/// All Services.
pub const SERVICES: &str = "10.215.0.0/16";
/// The Service of the API server: the first of them.
pub const API_SERVICE: &str = "10.215.0.1";
/// The Service of the name server; `manifests/dns.yaml` has it too.
pub const DNS_SERVICE: &str = "10.215.0.10";
/// What the names of all control groups begin with; a node's name follows.
pub const CGROUP_PREFIX: &str = "understudy-";
/// The machine that runs the control plane.
pub const CONTROL: &str = "control";
/// The machine that exists for seconds, to unpack images.
pub const STORE: &str = "store";

/// What a node is worth: a real difference between instance types, not only another label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instance {
    /// All processors.
    Standard,
    /// Two fifths of one processor.
    Small,
}

impl Instance {
    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Small => "small",
        }
    }

    /// Thousandths of a processor that everything on the node gets together; none is no limit.
    pub const fn millicpus(self) -> Option<u32> {
        match self {
            Self::Standard => None,
            Self::Small => Some(400),
        }
    }
}

/// One node of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its name, and its machine's.
    pub name: &'static str,
    number: u8,
    /// Its worth.
    pub instance: Instance,
}

/// All nodes.
pub const NODES: [Node; 3] = [
    Node { name: "node-1", number: 1, instance: Instance::Standard },
    Node { name: "node-2", number: 2, instance: Instance::Standard },
    Node { name: "node-3", number: 3, instance: Instance::Small },
];

impl Node {
    /// The node of a name.
    pub fn named(name: &str) -> Option<Self> {
        NODES.into_iter().find(|node| node.name == name)
    }

    /// Its address among the machines.
    pub fn address(self) -> String {
        format!("10.213.0.{}", 10 + self.number)
    }

    /// The network of its pods.
    pub fn pods(self) -> String {
        format!("10.214.{}.0/24", self.number)
    }

    /// The control group that all its pods are in.
    pub fn cgroup(self) -> String {
        format!("{CGROUP_PREFIX}{}", self.name)
    }

    /// The name of its cable's end at the bridge.
    pub fn cable(self) -> String {
        format!("us-{}", self.name)
    }
}

/// Where the cluster's files are.
#[derive(Debug, Clone)]
pub struct Layout {
    state: PathBuf,
}

/// Directories that a machine has of its own; the state directory can't be in one of them.
pub const PRIVATE: [&str; 3] = ["/run", "/var/lib", "/var/log"];

impl Layout {
    /// A layout in `state`, which need not exist.
    pub fn new(state: &Path) -> Outcome<Self> {
        let state = std::path::absolute(state).trying(|| format!("find {}", state.display()))?;
        if let Some(private) = PRIVATE.iter().find(|private| state.starts_with(private)) {
            return Err(format!(
                "{} can't hold the cluster: its machines have a {private} of their own; use --state",
                state.display()
            )
            .into());
        }
        Ok(Self { state })
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Waits until nobody else starts or stops this cluster; the file holds them off while it is open.
    pub fn lock(&self) -> Outcome<File> {
        fs::create_dir_all(&self.state).trying(|| format!("make {}", self.state.display()))?;
        let path = self.state.join("lock");
        let file = File::create(&path).trying(|| format!("make {}", path.display()))?;
        file.lock().trying(|| format!("lock {}", path.display()))?;
        Ok(file)
    }

    /// Programs that were built.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.state.join("bin").join(program)
    }

    /// Keys, certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.state.join("pki")
    }

    /// What a machine writes.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.state.join("machines").join(name)
    }

    /// What programs print: `logs/MACHINE-PROGRAM.log`.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// Image archives, and the store that they are unpacked in.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Loop-mounted file systems and the files that they are in.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("kubeconfig")
    }

    /// The API server's URL.
    pub fn server() -> String {
        format!("https://{CONTROL_ADDRESS}:6443")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_the_machines_would_not_see_is_refused() {
        assert!(Layout::new(Path::new("/var/lib/ci/target/cluster")).is_err());
        assert!(Layout::new(Path::new("/home/me/target/cluster")).is_ok());
    }

    #[test]
    fn cables_fit_into_the_kernels_names() {
        assert!(NODES.iter().all(|node| node.cable().len() < 16));
    }
}
