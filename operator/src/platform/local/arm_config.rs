//! A clone's own `postgresql.conf`: the worker's settings, without what ties them to the worker,
//! in quarantine, plus the candidate's parameters.
//!
//! Pure. A clone of production must not act on the world, and this is the first line of that.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use understudy_crds::labels;

use super::{door::Door, lsn::Lsn};

/// One setting of the worker, as `pg_settings` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerSetting {
    /// Its name.
    pub name: String,
    /// The server's value, in the setting's own unit.
    pub value: String,
    /// Where the value comes from.
    pub source: String,
    /// What it takes to change it.
    pub context: String,
}

/// Who the clone is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmIdentity {
    /// The experiment's name.
    pub experiment: String,
    /// The arm's name.
    pub arm: String,
    /// Where its socket goes.
    pub socket_dir: PathBuf,
    /// Its port.
    pub port: u16,
}

/// Which part of its life the clone is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It follows the worker's WAL.
    Follow {
        /// How it reaches the worker, without a password.
        primary_conninfo: String,
    },
    /// It recovers to the cut, and waits there.
    Recover {
        /// How it reaches the worker, without a password.
        primary_conninfo: String,
        /// The cut: the first position that is not replayed any more.
        cut: Lsn,
    },
    /// It lives on mirrored traffic.
    Own {
        /// The one way in over the network, besides its own socket.
        door: Option<Door>,
    },
}

impl Stage {
    /// The way in over the network.
    const fn door(&self) -> Option<&Door> {
        match self {
            Self::Own { door } => door.as_ref(),
            Self::Follow { .. } | Self::Recover { .. } => None,
        }
    }
}

/// Sources of values that are not the server's configuration.
const NOT_CONFIGURED: [&str; 8] =
    ["default", "override", "client", "session", "user", "database", "database user", "interactive"];

/// Settings that are the clone's own, or that must not be taken along: paths, the network, secrets,
/// logs, archiving, replication.
const OWN: [&str; 32] = [
    "allow_alter_system",
    "cluster_name",
    "config_file",
    "data_directory",
    "db_user_namespace",
    "event_source",
    "external_pid_file",
    "fsync_writethrough",
    "gss_accept_delegation",
    "hba_file",
    "hot_standby",
    "hot_standby_feedback",
    "huge_pages",
    "ident_file",
    "idle_replication_slot_timeout",
    "krb_caseins_users",
    "krb_server_keyfile",
    "lc_messages",
    "listen_addresses",
    "logging_collector",
    "max_logical_replication_workers",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_sync_workers_per_subscription",
    "port",
    "promote_trigger_file",
    "restart_after_crash",
    "restore_command",
    "stats_temp_directory",
    "trace_recovery_messages",
    "wal_keep_size",
    "wal_retrieve_retry_interval",
];

/// The same, by the beginning of the name.
const OWN_PREFIXES: [&str; 18] = [
    "archive_",
    "auto_explain.",
    "bonjour",
    "cron.",
    "log_",
    "max_active_replication",
    "oauth_",
    "primary_",
    "recovery_",
    "ssl",
    "sync_replication",
    "synchronized_standby",
    "synchronous_standby",
    "syslog_",
    "unix_socket",
    "wal_receiver",
    "wal_sender",
    "pg_net.",
];

/// Libraries whose background jobs act on the world or change data without a client.
const JOB_LIBRARIES: [&str; 9] =
    ["pg_cron", "pg_net", "pg_partman_bgw", "pg_squeeze", "pglogical", "bdr", "spock", "pgactive", "pg_background"];

/// Settings that a standby must have at least as high as its primary.
const AT_LEAST_THE_WORKERS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

/// Whether a setting belongs to the clone itself, so that a candidate can't change it.
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A clone does not inherit these, but may be given them.
    let judged = ["huge_pages", "wal_keep_size", "max_slot_wal_keep_size", "restart_after_crash"];
    !judged.contains(&name.as_str())
        && (OWN.contains(&name.as_str()) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// The complete `postgresql.conf` of a clone.
pub fn render(
    identity: &ArmIdentity,
    worker: &[WorkerSetting],
    parameters: &BTreeMap<String, String>,
    stage: &Stage,
) -> String {
    let mut settings: BTreeMap<String, String> = BTreeMap::new();
    for WorkerSetting { name, value, source, context } in worker {
        let own = OWN.contains(&name.as_str()) || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if !own && context != "internal" && !NOT_CONFIGURED.contains(&source.as_str()) {
            settings.insert(name.clone(), value.clone());
        }
        // `on` would keep a clone from starting where huge pages are used up by the worker.
        if name == "huge_pages" && value == "off" {
            settings.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in parameters {
        settings.insert(name.to_ascii_lowercase(), value.clone());
    }
    if let Some(libraries) = settings.get_mut("shared_preload_libraries") {
        *libraries = without_jobs(libraries);
        if libraries.split(',').any(|library| library.trim() == "timescaledb") {
            settings.insert("timescaledb.max_background_workers".into(), "0".into());
        }
    }
    if !matches!(stage, Stage::Own { .. }) {
        keep_what_a_standby_needs(&mut settings, worker);
    }

    let mut text = format!(
        "# Written by Understudy for the arm {} of the experiment {}; changes are lost.\n\n\
         # The worker's settings and the candidate's.\n",
        identity.arm, identity.experiment
    );
    for (name, value) in &settings {
        line(&mut text, name, value);
    }
    text.push_str("\n# Quarantine: it acts on nothing but its own tables.\n");
    for (name, value) in quarantine(identity, stage) {
        line(&mut text, name, &value);
    }
    let (conninfo, recovery) = match stage {
        Stage::Follow { primary_conninfo } => (Some(primary_conninfo), None),
        Stage::Recover { primary_conninfo, cut } => (Some(primary_conninfo), Some(cut)),
        Stage::Own { .. } => (None, None),
    };
    if let Some(conninfo) = conninfo {
        text.push_str("\n# It follows the worker's WAL.\n");
        line(&mut text, "primary_conninfo", conninfo);
        line(&mut text, "recovery_target_timeline", "current");
        line(&mut text, "wal_receiver_status_interval", "1s");
        line(&mut text, "wal_retrieve_retry_interval", "100ms");
    }
    if let Some(cut) = recovery {
        line(&mut text, "recovery_target_lsn", &cut.to_string());
        // `on` would replay the record that begins at the cut as well.
        line(&mut text, "recovery_target_inclusive", "off");
        line(&mut text, "recovery_target_action", "pause");
    }
    text
}

/// The clone's `pg_hba.conf`: its socket is in a private directory, and there is no other way in, but for
/// the mirror where that is elsewhere, and for it over mutual TLS alone.
pub fn pg_hba(stage: &Stage) -> String {
    let mut text = "# The socket is in a private directory.\nlocal all all trust\n".to_owned();
    if let Some(door) = stage.door() {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# The mirror.\n{}", door.hba_line());
    }
    text
}

fn quarantine(identity: &ArmIdentity, stage: &Stage) -> Vec<(&'static str, String)> {
    let fixed = |name, value: &str| (name, value.to_owned());
    let door = stage.door();
    let mut settings = vec![
        ("cluster_name", labels::cluster_name(&identity.experiment, &identity.arm)),
        ("unix_socket_directories", identity.socket_dir.display().to_string()),
        ("port", identity.port.to_string()),
        fixed("unix_socket_permissions", "0700"),
        fixed("listen_addresses", if door.is_some() { "*" } else { "" }),
        fixed("ssl", if door.is_some() { "on" } else { "off" }),
        fixed("archive_mode", "off"),
        fixed("archive_command", ""),
        fixed("primary_conninfo", ""),
        fixed("synchronous_standby_names", ""),
        fixed("max_logical_replication_workers", "0"),
        fixed("hot_standby", "on"),
        // Feedback would hold back vacuum on the worker.
        fixed("hot_standby_feedback", "off"),
        // Statements and their values are a user's data: they stay out of the log.
        fixed("logging_collector", "off"),
        fixed("log_destination", "stderr"),
        fixed("log_line_prefix", "%m [%p] "),
        fixed("log_min_messages", "log"),
        fixed("log_min_error_statement", "panic"),
        fixed("log_statement", "none"),
        fixed("log_min_duration_statement", "-1"),
        fixed("lc_messages", "C"),
    ];
    settings.extend(door.iter().flat_map(|door| door.settings()));
    settings
}

fn keep_what_a_standby_needs(settings: &mut BTreeMap<String, String>, worker: &[WorkerSetting]) {
    for name in AT_LEAST_THE_WORKERS {
        let Some(workers) = worker.iter().find(|setting| setting.name == name) else { continue };
        let number = |text: &str| text.trim().parse::<u64>().unwrap_or(0);
        let enough = settings.get(name).is_some_and(|value| number(value) >= number(&workers.value));
        if !enough {
            settings.insert(name.to_owned(), workers.value.clone());
        }
    }
}

fn without_jobs(libraries: &str) -> String {
    let name = |library: &str| {
        let bare = library.trim().trim_matches('"');
        bare.rsplit('/').next().unwrap_or(bare).trim_end_matches(".so").to_owned()
    };
    let kept: Vec<&str> = libraries
        .split(',')
        .map(str::trim)
        .filter(|l| !l.is_empty() && !JOB_LIBRARIES.contains(&name(l).as_str()))
        .collect();
    kept.join(", ")
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(text, "{name} = {}", quoted(value));
}

/// A value as `postgresql.conf` wants it.
pub fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, source: &str) -> WorkerSetting {
        WorkerSetting { name: name.into(), value: value.into(), source: source.into(), context: "postmaster".into() }
    }

    fn identity() -> ArmIdentity {
        ArmIdentity {
            experiment: "user-id-index".into(),
            arm: "wide".into(),
            socket_dir: "/tmp/understudy-abc".into(),
            port: 5434,
        }
    }

    fn own_with_a_door() -> Stage {
        let mirror = "10.1.2.3".parse().expect("an address");
        Stage::Own { door: Some(Door { mirror, certificates: "/run/understudy/tls".into() }) }
    }

    fn worker() -> Vec<WorkerSetting> {
        let file = "configuration file";
        vec![
            setting("archive_command", "cp %p /archive/%f", file),
            setting("archive_mode", "on", file),
            setting("cluster_name", "15/main", file),
            setting("cron.database_name", "app", file),
            setting("data_directory", "/var/lib/postgresql/15/main", file),
            setting("external_pid_file", "/run/postgresql/15-main.pid", file),
            setting("hot_standby_feedback", "on", file),
            setting("huge_pages", "on", file),
            setting("listen_addresses", "*", "command line"),
            setting("log_statement", "all", file),
            setting("max_connections", "200", file),
            setting("max_prepared_transactions", "0", "default"),
            setting("random_page_cost", "4", "default"),
            setting("search_path", "\"$user\", o'neil", file),
            setting("shared_buffers", "16384", "command line"),
            setting("shared_preload_libraries", "pg_stat_statements, pg_cron,/usr/lib/pglogical.so", file),
            setting("ssl_key_file", "/etc/ssl/private/key", file),
            setting("statement_timeout", "5000", "user"),
            setting("synchronous_standby_names", "a", file),
            setting("wal_level", "logical", file),
        ]
    }

    #[test]
    fn a_standby_keeps_the_workers_limits_and_nothing_of_its_ties() {
        let parameters = BTreeMap::from([
            ("max_connections".to_owned(), "50".to_owned()),
            ("work_mem".to_owned(), "64MB".to_owned()),
        ]);
        let follow = Stage::Follow { primary_conninfo: "host='db' user='o\\'neil'".into() };
        insta::assert_snapshot!("follow", render(&identity(), &worker(), &parameters, &follow));
    }

    #[test]
    fn recovery_stops_just_before_the_cut() {
        let recover = Stage::Recover { primary_conninfo: "host='db'".into(), cut: Lsn(0x300_0148) };
        insta::assert_snapshot!("recover", render(&identity(), &worker(), &BTreeMap::new(), &recover));
    }

    #[test]
    fn an_arm_of_its_own_has_the_candidates_values_and_no_way_to_the_worker() {
        let parameters = BTreeMap::from([
            ("max_connections".to_owned(), "50".to_owned()),
            ("Work_Mem".to_owned(), "64MB".to_owned()),
        ]);
        insta::assert_snapshot!("own", render(&identity(), &worker(), &parameters, &Stage::Own { door: None }));
    }

    #[test]
    fn an_arm_with_a_door_speaks_tls_with_the_experiments_certificates() {
        let text = render(&identity(), &worker(), &BTreeMap::new(), &own_with_a_door());
        let network = ["listen_addresses", "ssl"];
        let lines: Vec<&str> = text.lines().filter(|line| network.iter().any(|name| line.starts_with(name))).collect();
        assert_eq!(
            lines,
            [
                "listen_addresses = '*'",
                "ssl = 'on'",
                "ssl_ca_file = '/run/understudy/tls/ca.crt'",
                "ssl_cert_file = '/run/understudy/tls/tls.crt'",
                "ssl_key_file = '/run/understudy/tls/tls.key'",
            ]
        );
    }

    #[test]
    fn only_the_mirror_gets_in_over_the_network_and_only_with_a_certificate() {
        let alone = "# The socket is in a private directory.\nlocal all all trust\n";
        let conninfo = || "host='db'".to_owned();
        for (stage, expected) in [
            (Stage::Follow { primary_conninfo: conninfo() }, alone.to_owned()),
            (Stage::Recover { primary_conninfo: conninfo(), cut: Lsn(0x300_0148) }, alone.to_owned()),
            (Stage::Own { door: None }, alone.to_owned()),
            (
                own_with_a_door(),
                format!("{alone}# The mirror.\nhostssl all all 10.1.2.3/32 trust clientcert=verify-ca\n"),
            ),
        ] {
            assert_eq!(pg_hba(&stage), expected, "{stage:?}");
        }
    }

    #[test]
    fn values_are_quoted_so_that_nothing_gets_out() {
        for (value, expected) in [
            ("", "''"),
            ("64MB", "'64MB'"),
            ("o'neil", "'o''neil'"),
            ("a\\'b", "'a\\\\''b'"),
            ("x'\narchive_mode = on", "'x''\\narchive_mode = on'"),
        ] {
            assert_eq!(quoted(value), expected);
        }
    }

    #[test]
    fn what_is_the_clones_own_is_reserved() {
        for name in [
            "port",
            "Listen_Addresses",
            "archive_mode",
            "primary_conninfo",
            "ssl_key_file",
            "recovery_target",
            "cron.host",
            "log_statement",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["work_mem", "huge_pages", "wal_level", "synchronous_commit", "pg_stat_statements.max"] {
            assert!(!is_reserved(name), "{name}");
        }
    }
}
