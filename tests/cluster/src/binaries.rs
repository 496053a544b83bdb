//! Programs built from their Go modules, at pinned versions, when their sources or versions changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

use crate::{
    failure::{Outcome, Trying},
    images::hexadecimal,
    layout::{KUBERNETES, Layout},
    program::{finish, run},
    progress::step,
};

/// One program, and where it comes from.
enum Source {
    /// A package of a module of ours beside this crate.
    Ours { module: &'static str, package: &'static str },
    /// A package of somebody else's, with its version.
    Theirs(&'static str),
}

const PROGRAMS: [(&str, Source); 7] = [
    ("kubernetes", Source::Ours { module: "kubernetes", package: "." }),
    ("kubectl", Source::Ours { module: "kubernetes", package: "kubectl" }),
    ("pause", Source::Ours { module: "kubernetes", package: "pause" }),
    ("network-policy", Source::Ours { module: "kubernetes", package: "policy" }),
    ("coredns", Source::Ours { module: "coredns", package: "." }),
    ("local-path-provisioner", Source::Theirs("github.com/rancher/local-path-provisioner@v0.0.30")),
    ("helm", Source::Theirs("helm.sh/helm/v3/cmd/helm@v3.19.0")),
];

/// Builds what is missing or old.
pub fn build(layout: &Layout) -> Outcome<()> {
    let directory = layout.state().join("bin");
    fs::create_dir_all(&directory).trying(|| format!("make {}", directory.display()))?;
    let go = run("go", ["version"]).map_err(|failure| format!("the cluster is built with Go 1.26: {failure}"))?;
    for (program, source) in PROGRAMS {
        let stamp = directory.join(format!("{program}.stamp"));
        let wanted = fingerprint(&go, &source)?;
        if layout.bin(program).exists() && fs::read_to_string(&stamp).ok().as_deref() == Some(wanted.as_str()) {
            continue;
        }
        let patience = if program == "kubernetes" { " (the first time takes minutes)" } else { "" };
        step(&format!("building {program}{patience}"), || build_one(layout, program, &source))?;
        fs::write(&stamp, wanted).trying(|| format!("write {}", stamp.display()))?;
    }
    Ok(())
}

fn build_one(layout: &Layout, program: &str, source: &Source) -> Outcome<()> {
    let mut command = Command::new("nice");
    command.args(["-n", "5", "go"]).env("CGO_ENABLED", "0").env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly");
    match source {
        Source::Ours { module, package } => {
            command.current_dir(sources(module));
            command.args(["build", "-ldflags", &linked(), "-o"]).arg(layout.bin(program)).arg(format!("./{package}"));
        }
        Source::Theirs(package) => {
            command.current_dir(layout.state()).env("GOBIN", layout.state().join("bin"));
            command.args(["install", "-ldflags", "-s -w", package]);
        }
    }
    finish(&mut command).map(drop)
}

/// Without them the server calls itself v0.0.0.
fn linked() -> String {
    let mut parts = KUBERNETES.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let place = "k8s.io/component-base/version";
    format!(
        "-s -w -X {place}.gitVersion=v{KUBERNETES} -X {place}.gitMajor={major} -X {place}.gitMinor={minor} \
         -X {place}.gitTreeState=clean"
    )
}

fn sources(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(module)
}

fn fingerprint(go: &str, source: &Source) -> Outcome<String> {
    let mut hash = Sha256::new();
    hash.update(go);
    match source {
        Source::Theirs(package) => hash.update(package),
        Source::Ours { module, package } => {
            hash.update(linked());
            let package = sources(module).join(package);
            let list = fs::read_dir(&package).trying(|| format!("read {}", package.display()))?;
            let mut files: Vec<PathBuf> = list.flatten().map(|entry| entry.path()).collect();
            files.retain(|file| file.extension().is_some_and(|end| end == "go"));
            files.extend(["go.mod", "go.sum"].map(|file| sources(module).join(file)));
            files.sort();
            for path in files {
                hash.update(fs::read(&path).trying(|| format!("read {}", path.display()))?);
            }
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}
