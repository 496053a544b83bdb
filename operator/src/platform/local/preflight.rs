//! Whether an experiment can be done, before anything is made or changed.
//!
//! Pure: facts in, complaints out. Each complaint is one block that says what to do.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use super::{facts::WorkerFacts, place::DiskSpace};
use crate::error::{ErrorKind, Side, UserError};

/// Versions that clones can be made of.
pub const SUPPORTED_MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// What the experiment needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The worker's address and user, for messages.
    pub worker: String,
    /// Where the document names them, for messages.
    pub fields: Fields,
    /// How many clones there will be.
    pub clones: usize,
    /// Where each clone's data goes, and how much room there is; empty where others see to that.
    pub room: Vec<(PathBuf, DiskSpace)>,
}

/// The fields of the document that say which server is the worker and who clones it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The server.
    pub server: &'static str,
    /// The user.
    pub user: &'static str,
}

/// A server of this machine.
pub const LOCAL: Fields = Fields { server: "spec.target.local", user: "spec.target.local.user" };
/// A pod.
pub const STATEFUL_SET: Fields =
    Fields { server: "spec.target.statefulSet", user: "spec.target.statefulSet.credentialsSecret" };

/// Everything that stands in the way; empty when the experiment can be done.
pub fn problems(facts: &WorkerFacts, needs: &Needs) -> Vec<UserError> {
    let mut found = Vec::new();
    let worker = format!("{} ({})", needs.worker, facts.product());
    let unfit = |what: &str, reason: String, remedy: &str| {
        UserError::new(ErrorKind::Unfit, Side::Worker, what)
            .fact("worker", &worker)
            .fact("reason", reason)
            .remedy(remedy)
            .nothing_changed()
    };
    let clones = i64::try_from(needs.clones).unwrap_or(i64::MAX);

    if !SUPPORTED_MAJORS.contains(&facts.version.major) {
        found.push(unfit(
            "the worker's version is not supported",
            format!("it is {}", facts.product()),
            "use a worker of PostgreSQL 13 to 18",
        ));
    }
    if !facts.superuser {
        found.push(unfit(
            "the user may not clone the worker",
            "it is not a superuser".into(),
            &format!("name a superuser in {}", needs.fields.user),
        ));
    }
    if facts.in_recovery {
        found.push(unfit(
            "the worker is a standby",
            "it follows another server, so it takes no writes".into(),
            &format!("name the primary in {}", needs.fields.server),
        ));
    }
    if facts.setting("wal_level") == Some("minimal") {
        found.push(unfit(
            "the worker refuses a base backup",
            "wal_level = minimal".into(),
            "ALTER SYSTEM SET wal_level = replica; ALTER SYSTEM SET max_wal_senders = 10; and restart the worker",
        ));
    } else {
        let free = facts.number("max_wal_senders") - facts.wal_senders_used;
        if free < clones {
            let reason = match facts.number("max_wal_senders") {
                0 => "max_wal_senders = 0".to_owned(),
                all => format!("max_wal_senders = {all}, {} of them free; {} are needed", free.max(0), clones),
            };
            let remedy = format!(
                "ALTER SYSTEM SET max_wal_senders = {}; and restart the worker",
                (facts.wal_senders_used + clones).max(10)
            );
            found.push(unfit("the worker refuses a base backup", reason, &remedy));
        }
    }
    let slots = facts.number("max_replication_slots");
    if slots <= facts.slots_used {
        found.push(unfit(
            "the worker can't keep WAL for the clones",
            format!("max_replication_slots = {slots}, all taken; one temporary slot is needed"),
            &format!("ALTER SYSTEM SET max_replication_slots = {}; and restart the worker", facts.slots_used + 10),
        ));
    }
    if let Some(names) = facts.setting("synchronous_standby_names").filter(|names| takes_everybody(names)) {
        found.push(unfit(
            "a clone would become a synchronous standby of the worker",
            format!("synchronous_standby_names = '{names}' takes any standby, a clone too"),
            "name the standbys that count in synchronous_standby_names instead of *, then SELECT pg_reload_conf();",
        ));
    }
    found.extend(no_room(facts, needs));
    found
}

/// Bytes that a clone may need: the data, room for its indexes and its own WAL.
pub fn clone_bytes(facts: &WorkerFacts) -> u64 {
    const OWN_WAL_BYTES: u64 = 256 << 20;
    facts.data_bytes.saturating_add(facts.data_bytes / 5).saturating_add(OWN_WAL_BYTES)
}

fn no_room(facts: &WorkerFacts, needs: &Needs) -> Vec<UserError> {
    let mut seen: Vec<u64> = Vec::new();
    let mut found = Vec::new();
    for (directory, space) in &needs.room {
        if seen.contains(&space.file_system) {
            continue;
        }
        seen.push(space.file_system);
        let sharing = needs.room.iter().filter(|(_, other)| other.file_system == space.file_system).count();
        let needed = clone_bytes(facts).saturating_mul(u64::try_from(sharing).unwrap_or(u64::MAX));
        if needed > space.free_bytes {
            found.push(
                UserError::new(ErrorKind::DiskFull, Side::Host, "there is not enough room for the clones")
                    .fact("directory", directory.display())
                    .fact("free", mebibytes(space.free_bytes))
                    .fact("needed", format!("{} for {sharing} of the worker's {}", mebibytes(needed), mebibytes(facts.data_bytes)))
                    .remedy("free some space, or put the clones elsewhere: --out for all, spec.candidates[].storage.directory for one")
                    .nothing_changed(),
            );
        }
    }
    found
}

/// Bytes for people: `1,234 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    let digits = bytes.div_ceil(1 << 20).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + " MiB"
}

/// Whether the mirror may listen there: an address, and not the worker's own.
pub fn listen_problem(listen: &str, worker_host: &str, worker_port: u16) -> Option<UserError> {
    let wrong = |reason: String| {
        UserError::new(
            ErrorKind::InvalidField,
            Side::Document,
            "spec.target.local.listen: the mirror can't listen there",
        )
        .fact("value", listen)
        .fact("reason", reason)
        .remedy("use HOST:PORT with a free port, or port 0 for any: 127.0.0.1:0")
        .nothing_changed()
    };
    let numeric = listen.replace("localhost:", "127.0.0.1:");
    let Ok(address) = numeric.parse::<SocketAddr>() else {
        return Some(wrong("it is not an address and a port".into()));
    };
    let same_host = address.ip().is_unspecified()
        || worker_host == address.ip().to_string()
        || (address.ip().is_loopback() && worker_host == "localhost");
    (address.port() == worker_port && same_host).then(|| wrong("the worker itself listens there".into()))
}

/// What the worker's access rules make of clients that come through a mirror, where clients of other machines may, and the
/// worker takes the mirror for one of its own machine's: `peer` and `trust` let in who they were not meant for.
pub fn access_note(listen: &str, worker_host: &str) -> Option<String> {
    let is_own = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let (from, _) = listen.rsplit_once(':')?;
    let is_open = !is_own(from.trim_start_matches('[').trim_end_matches(']'));
    let is_near = worker_host.starts_with('/') || is_own(worker_host);
    (is_open && is_near).then(|| {
        format!(
            "the worker sees every client as one from this machine: lines of its pg_hba.conf with peer or trust for {} \
             let anybody in who reaches {listen}",
            if worker_host.starts_with('/') { "local" } else { "127.0.0.1" }
        )
    })
}

/// What keys that each server makes for itself mean for the verdict.
pub fn own_keys_note(keys: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let (shown, rest) = keys.split_at(keys.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    (!keys.is_empty()).then(|| {
        format!(
            "each clone gives new rows other keys than the worker where these are left to their defaults, and can't be \
             compared once they are used: {}{more}",
            shown.join(", ")
        )
    })
}

/// Whether a list of synchronous standbys has a `*` as a name.
fn takes_everybody(names: &str) -> bool {
    let mut quoted = false;
    names.chars().any(|c| {
        quoted ^= c == '"';
        c == '*' && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::local::{arm_config::WorkerSetting, binaries::Version};

    fn facts(settings: &[(&str, &str)]) -> WorkerFacts {
        let defaults = [
            ("wal_level", "replica"),
            ("max_wal_senders", "10"),
            ("max_replication_slots", "10"),
            ("synchronous_standby_names", ""),
        ];
        let all = defaults.iter().map(|d| settings.iter().find(|s| s.0 == d.0).unwrap_or(d));
        WorkerFacts {
            version: Version { major: 15, minor: 18 },
            superuser: true,
            data_bytes: 100 << 20,
            settings: all
                .map(|(name, value)| WorkerSetting {
                    name: (*name).into(),
                    value: (*value).into(),
                    source: "configuration file".into(),
                    context: "postmaster".into(),
                })
                .collect(),
            ..WorkerFacts::default()
        }
    }

    fn needs(free_mib: u64) -> Needs {
        let space = DiskSpace { free_bytes: free_mib << 20, total_bytes: 1 << 40, file_system: 1 };
        let room = vec![("/a".into(), space), ("/b".into(), space)];
        Needs { worker: "127.0.0.1:5432, user app".into(), fields: LOCAL, clones: 2, room }
    }

    #[test]
    fn a_fit_worker_has_no_problems() {
        assert_eq!(problems(&facts(&[]), &needs(4096)), []);
    }

    #[test]
    fn each_obstacle_is_one_clear_complaint() {
        let cases: [(WorkerFacts, u64, &str); 9] = [
            (facts(&[("wal_level", "minimal")]), 4096, "wal_level = minimal"),
            (facts(&[("max_wal_senders", "0")]), 4096, "max_wal_senders = 0"),
            (facts(&[("max_wal_senders", "1")]), 4096, "max_wal_senders = 1, 1 of them free; 2 are needed"),
            (facts(&[("max_replication_slots", "0")]), 4096, "max_replication_slots = 0"),
            (facts(&[("synchronous_standby_names", "ANY 1 (*)")]), 4096, "takes any standby"),
            (facts(&[]), 500, "752 MiB for 2 of the worker's 100 MiB"),
            (WorkerFacts { superuser: false, ..facts(&[]) }, 4096, "not a superuser"),
            (WorkerFacts { in_recovery: true, ..facts(&[]) }, 4096, "follows another server"),
            (WorkerFacts { version: Version { major: 12, minor: 1 }, ..facts(&[]) }, 4096, "it is PostgreSQL 12.1"),
        ];
        for (facts, free, expected) in cases {
            let found = problems(&facts, &needs(free));
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            let text = found[0].to_string();
            assert!(text.contains(expected) && text.ends_with("nothing was changed"), "{expected}: {text}");
        }
    }

    #[test]
    fn a_pod_is_judged_alike_but_for_its_disk_and_its_fields() {
        let needs = Needs { fields: STATEFUL_SET, room: Vec::new(), ..needs(0) };
        assert_eq!(problems(&facts(&[]), &needs), []);
        let found = problems(&WorkerFacts { superuser: false, ..facts(&[("max_wal_senders", "1")]) }, &needs);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains("name a superuser in spec.target.statefulSet.credentialsSecret"), "{texts:?}");
        assert!(texts[1].contains("2 are needed"), "{texts:?}");
    }

    #[test]
    fn the_mirror_may_not_listen_on_the_worker() {
        for (listen, bad) in [
            ("127.0.0.1:0", false),
            ("127.0.0.1:6432", false),
            ("127.0.0.1:5432", true),
            ("0.0.0.0:5432", true),
            ("localhost:5432", true),
            ("nonsense", true),
            ("127.0.0.2:5432", false),
        ] {
            assert_eq!(listen_problem(listen, "127.0.0.1", 5432).is_some(), bad, "{listen}");
        }
    }

    #[test]
    fn keys_that_each_server_makes_are_named_and_counted() {
        let keys = |count: usize| (0..count).map(|n| format!("public.t{n}.id")).collect::<Vec<_>>();
        assert_eq!(own_keys_note(&[]), None);
        assert!(
            own_keys_note(&keys(3)).is_some_and(|note| note.ends_with(": public.t0.id, public.t1.id, public.t2.id"))
        );
        assert!(own_keys_note(&keys(5)).is_some_and(|note| note.ends_with("public.t2.id and 2 more")));
    }

    #[test]
    fn it_is_said_where_clients_of_other_machines_look_like_the_worker_s_own() {
        for (listen, worker, said) in [
            ("0.0.0.0:6432", "127.0.0.1", true),
            ("10.0.0.7:6432", "/run/postgresql", true),
            ("[::]:6432", "localhost", true),
            ("127.0.0.1:0", "/run/postgresql", false),
            ("[::1]:0", "127.0.0.1", false),
            ("localhost:6432", "localhost", false),
            ("0.0.0.0:6432", "10.0.0.8", false),
        ] {
            assert_eq!(access_note(listen, worker).is_some(), said, "{listen}, {worker}");
        }
    }

    #[test]
    fn only_a_bare_star_takes_everybody() {
        for (names, expected) in [("*", true), ("FIRST 2 (a, *)", true), ("a, b", false), ("", false), ("\"*\"", false)]
        {
            assert_eq!(takes_everybody(names), expected, "{names}");
        }
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!(
            [mebibytes(0), mebibytes(1), mebibytes(1234 << 20), mebibytes(1_234_567 << 20)],
            ["0 MiB", "1 MiB", "1,234 MiB", "1,234,567 MiB"]
        );
    }
}
