//! A machine, seen from inside: the first process of its PID namespace. It lays out the mounts that make
//! the machine a machine of its own, starts the programs, starts them again when they end, and buries
//! orphans. It decides nothing about the cluster, and must not end while the machine is wanted.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::BufRead as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::process::{WaitOptions, wait};

use crate::{
    failure::{Outcome, Trying},
    images::store,
    layout::{CONTROL, Layout, Node, PRIVATE, STORE},
    machine::programs::{After, Program, control, node},
    program::{run as execute, until},
    progress::say,
    up::kubectl,
    volumes::FILE_SYSTEMS,
};

/// Values of the whole machine that a kubelet would change. Each node sees its own: a file of the value
/// that the kubelet wants, mounted over the real one.
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Runs a machine until it is ended.
pub fn run(layout: &Layout, name: &str) -> Outcome<()> {
    // Whoever started this lays the cables first. If they are gone, so is the reason to be.
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).trying(|| "read".to_owned())?;
    if line.trim() != "go" {
        return Err("not told to start".into());
    }
    execute("mount", ["--make-rshared", "/"])?;
    for place in PRIVATE {
        execute("mount", ["-t", "tmpfs", "-o", "mode=755", "understudy", place])?;
    }
    fs::write("/proc/sys/kernel/hostname", name).trying(|| "set the host name".to_owned())?;
    if name == STORE {
        return store::fill(layout);
    }
    if name == CONTROL {
        return supervise(layout, name, &control(layout));
    }
    let this = Node::named(name).ok_or("no machine of that name")?;
    furnish(layout, this)?;
    supervise(layout, name, &node(layout, this))
}

/// What a node needs beyond a machine: volumes, a kubelet's directory, forwarding.
fn furnish(layout: &Layout, node: Node) -> Outcome<()> {
    let machine = layout.machine(node.name);
    for (from, to) in [("kubelet", "/run/kubelet"), ("pod-logs", "/run/pod-logs")] {
        let from = machine.join(from);
        fs::create_dir_all(&from).trying(|| format!("make {}", from.display()))?;
        bind(&from, Path::new(to))?;
    }
    for file_system in FILE_SYSTEMS {
        let own = layout.volumes().join(file_system.name()).join(node.name);
        if own.exists() {
            bind(&own, &Path::new("/run/volumes").join(file_system.name()))?;
        }
    }
    let values = Path::new("/run/tunables");
    fs::create_dir_all(values).trying(|| "make /run/tunables".to_owned())?;
    for (tunable, value) in TUNABLES {
        let file = values.join(tunable.replace('/', "."));
        fs::write(&file, format!("{value}\n")).trying(|| format!("write {}", file.display()))?;
        execute("mount", ["--bind".as_ref(), file.as_os_str(), format!("/proc/sys/{tunable}").as_ref()])?;
    }
    for (setting, needed) in [("net/ipv4/ip_forward", true), ("net/bridge/bridge-nf-call-iptables", false)] {
        let written = fs::write(Path::new("/proc/sys").join(setting), "1");
        if needed {
            written.trying(|| format!("set {setting}"))?;
        }
    }
    Ok(())
}

fn bind(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to).trying(|| format!("make {}", to.display()))?;
    execute("mount", ["--bind".as_ref(), from.as_os_str(), to.as_os_str()])?;
    execute("mount", ["--make-rshared".as_ref(), to.as_os_str()]).map(drop)
}

/// Starts the programs and keeps them running, for ever.
fn supervise(layout: &Layout, machine: &str, programs: &[Program]) -> Outcome<()> {
    let mut running = HashMap::new();
    for program in programs {
        match program.after {
            After::Nothing => {}
            After::File(file) => {
                let there = || if Path::new(file).exists() { Ok(()) } else { Err("not there") };
                until(Duration::from_secs(20), file, there)?;
            }
            After::Api => {
                until(Duration::from_secs(60), "the API server", || kubectl(layout, &["get", "--raw", "/readyz"]))?;
            }
        }
        running.insert(start(layout, machine, program)?.id(), program);
    }
    loop {
        let Ok(Some((pid, status))) = wait(WaitOptions::empty()) else {
            thread::sleep(Duration::from_millis(200));
            continue;
        };
        // Most are orphans that end here.
        let Some(program) = u32::try_from(pid.as_raw_pid()).ok().and_then(|pid| running.remove(&pid)) else { continue };
        say(&format!("{} ended ({status:?}); starting it again", program.name));
        thread::sleep(Duration::from_secs(1));
        running.insert(start(layout, machine, program)?.id(), program);
    }
}

fn start(layout: &Layout, machine: &str, program: &Program) -> Outcome<Child> {
    let path = layout.logs().join(format!("{machine}-{}.log", program.name));
    let log = File::options().create(true).append(true).open(&path).trying(|| format!("write {}", path.display()))?;
    Command::new(&program.path)
        .args(&program.arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().trying(|| "share a log".to_owned())?)
        .stderr(log)
        .spawn()
        .trying(|| format!("start {}", program.path.display()))
}
