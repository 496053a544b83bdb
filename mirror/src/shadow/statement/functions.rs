//! What is known of PostgreSQL's functions by their names. A function that is in none of these lists may do anything.

use std::sync::LazyLock;

use rapidhash::{HashSetExt, RapidHashSet};

/// Functions that change nothing.
static READONLY_FUNCTIONS: LazyLock<RapidHashSet<&'static str>> = LazyLock::new(|| {
    let listed = include_str!("readonly_functions.txt").lines();
    let mut set = RapidHashSet::new();
    set.extend(listed);
    set.extend(VOLATILE_BUT_HARMLESS);
    set
});

/// Whether a function changes neither data nor objects. What `set_config` does stays in the session.
pub(in crate::shadow) fn changes_nothing(function: &str) -> bool {
    function == "set_config" || READONLY_FUNCTIONS.contains(function)
}

/// Whether two servers need not share its answers, or a plan chooses them.
pub(in crate::shadow) fn answers_vary(function: &str) -> bool {
    VOLATILE_ANSWERS.contains(&function) || ORDER_DEPENDENT.contains(&function)
}

/// What is touched by whoever takes an advisory lock, beside tables: no table has this name.
pub(in crate::shadow) const ADVISORY_LOCKS: &str = "advisory locks";

/// Whether a function takes an advisory lock, or tries to, and does nothing else.
pub(super) fn takes_advisory_lock(function: &str) -> bool {
    ["pg_advisory_lock", "pg_advisory_xact_lock", "pg_try_advisory_"].iter().any(|begin| function.starts_with(begin))
}

/// What is touched by whoever draws from a sequence by its name, or sets one: no table has this name.
pub(in crate::shadow) const SEQUENCES: &str = "sequences by name";

/// Whether a function draws from a sequence or sets it, and does nothing else.
pub(super) fn draws(function: &str) -> bool {
    matches!(function, "nextval" | "setval")
}

/// Whether it is one of those that are no table.
pub(in crate::shadow) fn is_no_table(name: &str) -> bool {
    matches!(name, ADVISORY_LOCKS | SEQUENCES)
}

/// Whether a function gives advisory locks back, or notifies, and does nothing else. Nothing that runs beside it decides
/// what it does: who had to wait for a lock on production, and was answered a moment before the unlock was, is not waited
/// for by that.
pub(super) fn touches_nothing(function: &str) -> bool {
    function.starts_with("pg_advisory_unlock") || function == "pg_notify"
}

/// Functions that PostgreSQL calls volatile although they change nothing. What a session has drawn from sequences is its
/// own.
const VOLATILE_BUT_HARMLESS: [&str; 21] = [
    "currval",
    "lastval",
    "random",
    "clock_timestamp",
    "timeofday",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "gen_random_uuid",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "gen_random_bytes",
    "gen_salt",
    "pg_stat_get_activity",
    "pg_backend_pid",
    "pg_table_size",
    "pg_total_relation_size",
    "pg_database_size",
    "pg_relation_size",
    "pg_indexes_size",
];

/// Functions whose answers two servers need not share.
pub(super) const VOLATILE_ANSWERS: [&str; 32] = [
    "random",
    "clock_timestamp",
    "timeofday",
    "gen_random_uuid",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "gen_random_bytes",
    "gen_salt",
    "pg_backend_pid",
    "now",
    "statement_timestamp",
    "transaction_timestamp",
    "txid_current",
    "pg_current_xact_id",
    "txid_current_snapshot",
    "pg_current_snapshot",
    "pg_stat_get_activity",
    "pg_table_size",
    "pg_total_relation_size",
    "pg_database_size",
    "pg_relation_size",
    "pg_indexes_size",
    "inet_server_port",
    "inet_server_addr",
    "inet_client_addr",
    "inet_client_port",
    "pg_postmaster_start_time",
    "pg_current_wal_lsn",
    "pg_current_wal_insert_lsn",
    "version",
    "age",
];

/// Functions that act outside the arm's own tables.
pub(super) const SIDE_EFFECTS: [&str; 26] = [
    "dblink",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_open",
    "dblink_send_query",
    "lo_import",
    "lo_export",
    "pg_file_write",
    "pg_file_unlink",
    "pg_file_rename",
    "pg_read_file",
    "pg_read_binary_file",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_promote",
    "pg_create_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_drop_replication_slot",
    "pg_replication_origin_create",
    "pg_wal_replay_pause",
    "http",
    "http_get",
    "http_post",
    "pg_create_restore_point",
];

/// Functions that name a server's own identities.
pub(super) const SERVER_IDENTITY: [&str; 4] =
    ["pg_terminate_backend", "pg_cancel_backend", "pg_export_snapshot", "pg_log_backend_memory_contexts"];

/// Functions whose answers depend on the order in which rows come, which is the plan's to choose.
/// Sums of fractions among them; those of `sum` and `avg` are mostly of whole numbers.
pub(super) const ORDER_DEPENDENT: [&str; 31] = [
    "array_agg",
    "string_agg",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
    "jsonb_object_agg",
    "xmlagg",
    "row_number",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
    "ntile",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "variance",
    "var_pop",
    "var_samp",
    "corr",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];
