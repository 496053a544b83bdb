//! `ALTER SYSTEM` on the worker: what was set before, how to set, how to put back exactly.

use std::collections::BTreeMap;

use super::session::{STATEMENT_LIMIT, Session};
use crate::error::UserError;

/// Settings whose value is a list of names; each is quoted by itself.
const NAME_LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// What `postgresql.auto.conf` held before: `None` for a setting that was not in it.
pub type Before = BTreeMap<String, Option<String>>;

/// Reads what `ALTER SYSTEM` has set so far for these settings.
pub async fn read_before(session: &Session, names: impl Iterator<Item = &String>) -> Result<Before, UserError> {
    let rows = session
        .rows("SELECT lower(name), setting FROM pg_file_settings WHERE sourcefile ~ '/postgresql.auto.conf$' ORDER BY seqno", &[])
        .await?;
    let mut set: BTreeMap<String, Option<String>> = BTreeMap::new();
    for row in &rows {
        let name: String = row.try_get(0).map_err(|e| session.failed(&e))?;
        set.insert(name, row.try_get(1).map_err(|e| session.failed(&e))?);
    }
    Ok(names.map(|name| (name.clone(), set.get(&name.to_ascii_lowercase()).cloned().flatten())).collect())
}

/// Sets one setting, or takes it out.
pub async fn write(session: &Session, name: &str, value: Option<&str>) -> Result<(), UserError> {
    session.run(&statement(name, value), STATEMENT_LIMIT).await
}

/// The statement that sets a setting, or takes it out.
pub fn statement(name: &str, value: Option<&str>) -> String {
    let name_part: Vec<String> = name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    let name_part = name_part.join(".");
    match value {
        None => format!("ALTER SYSTEM RESET {name_part}"),
        Some(value) if NAME_LISTS.contains(&name.to_ascii_lowercase().as_str()) => {
            let names: Vec<String> = names_in(value).iter().map(|name| literal(name)).collect();
            let list = if names.is_empty() { "''".to_owned() } else { names.join(", ") };
            format!("ALTER SYSTEM SET {name_part} = {list}")
        }
        Some(value) => format!("ALTER SYSTEM SET {name_part} = {}", literal(value)),
    }
}

fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The names in a list, split at commas that are not inside double quotes.
fn names_in(list: &str) -> Vec<String> {
    let (mut names, mut name, mut quoted) = (Vec::new(), String::new(), false);
    for c in list.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => names.push(std::mem::take(&mut name)),
            other => name.push(other),
        }
    }
    names.push(name);
    names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_their_setting_wants_it() {
        for (name, value, expected) in [
            ("work_mem", Some("64MB"), "ALTER SYSTEM SET \"work_mem\" = '64MB'"),
            ("cluster_name", Some("o'neil\\x"), "ALTER SYSTEM SET \"cluster_name\" = E'o''neil\\\\x'"),
            ("pg_stat_statements.max", Some("100"), "ALTER SYSTEM SET \"pg_stat_statements\".\"max\" = '100'"),
            ("search_path", Some("\"$user\", public"), "ALTER SYSTEM SET \"search_path\" = '$user', 'public'"),
            ("shared_preload_libraries", Some("a, b"), "ALTER SYSTEM SET \"shared_preload_libraries\" = 'a', 'b'"),
            ("shared_preload_libraries", Some(""), "ALTER SYSTEM SET \"shared_preload_libraries\" = ''"),
            ("work_mem", None, "ALTER SYSTEM RESET \"work_mem\""),
        ] {
            assert_eq!(statement(name, value), expected);
        }
    }
}
