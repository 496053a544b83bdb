//! Whether a candidate's parameters are ones that its server will take, before anything is cloned.

use std::{collections::BTreeMap, future::Future, path::Path, time::Duration};

use super::{
    account::Account, arm_config::is_reserved, binaries::Binaries, facts::WorkerFacts, place::private_directory,
    process::Launch, server_log::last_complaint,
};
use crate::error::{ErrorKind, Side, UserError};

/// Checks the parameters of `spec.candidates[index]`: names that exist, values that the server
/// takes. `scratch` is a directory that is made for this and removed again.
pub async fn check_parameters(
    index: usize,
    parameters: &BTreeMap<String, String>,
    facts: &WorkerFacts,
    binaries: &Binaries,
    account: &Account,
    scratch: &Path,
) -> Result<(), UserError> {
    if parameters.is_empty() {
        return Ok(());
    }
    ask_in(scratch, account, ask_each(index, parameters, facts, binaries, account, scratch)).await
}

/// Asks a server's program something with an empty configuration in a directory that goes again.
pub(super) async fn ask_in<T>(
    scratch: &Path,
    account: &Account,
    asking: impl Future<Output = Result<T, UserError>>,
) -> Result<T, UserError> {
    private_directory(scratch, account)?;
    let conf = scratch.join("postgresql.conf");
    let result = match std::fs::write(&conf, "") {
        Ok(()) => asking.await,
        Err(e) => Err(UserError::file("write a configuration", &conf, &e)),
    };
    super::place::remove_tree(scratch)?;
    result
}

/// Why a server does not take a setting; `None` when it does.
pub(super) async fn refusal(
    name: &str,
    value: &str,
    binaries: &Binaries,
    account: &Account,
    directory: &Path,
) -> Result<Option<String>, UserError> {
    let done = Launch::new(binaries.program("postgres"), account, "KILL")
        .argument("-D")
        .argument(directory)
        .argument("-c")
        .argument(format!("{name}={value}"))
        .argument("-C")
        .argument(name)
        .run(Duration::from_secs(20))
        .await?;
    let said = || last_complaint(&done.stderr).unwrap_or_else(|| done.stderr.trim().to_owned());
    Ok((!done.status.success()).then(said))
}

async fn ask_each(
    index: usize,
    parameters: &BTreeMap<String, String>,
    facts: &WorkerFacts,
    binaries: &Binaries,
    account: &Account,
    scratch: &Path,
) -> Result<(), UserError> {
    for (name, value) in parameters {
        let wrong = |reason: String, remedy: String| {
            let field = format!("spec.candidates[{index}].parameters.{name}");
            UserError::new(ErrorKind::InvalidField, Side::Document, format!("{field}: the server does not take it"))
                .fact("value", value)
                .fact("reason", reason)
                .remedy(remedy)
                .nothing_changed()
        };
        if let Some((reason, remedy)) = known(name, parameters, facts).err() {
            return Err(wrong(reason, remedy));
        }
        if let Some(reason) = refusal(name, value, binaries, account, scratch).await? {
            return Err(wrong(reason, format!("see SELECT * FROM pg_settings WHERE name = '{name}' on the worker")));
        }
    }
    Ok(())
}

/// Whether a parameter may be part of a candidate at all; else the reason and what to do.
fn known(name: &str, parameters: &BTreeMap<String, String>, facts: &WorkerFacts) -> Result<(), (String, String)> {
    if is_reserved(name) {
        return Err((
            "it is the server's own: where it is, who it talks to, what it archives".into(),
            "leave it out; a clone must not act on the world".into(),
        ));
    }
    let lower = name.to_ascii_lowercase();
    let Some(found) = facts.settings.iter().find(|setting| setting.name.to_ascii_lowercase() == lower) else {
        // A name with a dot is anything the server is told; only its extension knows better.
        if let Some((extension, _)) = lower.split_once('.') {
            let loads = |library: &String| library.split(',').any(|l| l.trim().trim_matches('"') == extension);
            let brought = ["shared_preload_libraries", "session_preload_libraries"]
                .iter()
                .any(|p| parameters.get(*p).is_some_and(loads));
            let here = facts.settings.iter().any(|s| s.name.starts_with(&format!("{extension}.")));
            if brought && !here {
                return Ok(());
            }
            return Err((
                "the worker has no such parameter".into(),
                format!("check the name, or load {extension} with shared_preload_libraries in the same candidate"),
            ));
        }
        // A newer build in `binaries` may know more than the worker does: the server itself decides.
        return Ok(());
    };
    if found.context == "internal" {
        return Err(("it can't be changed after a server was initialised".into(), "leave it out".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::local::arm_config::WorkerSetting;

    #[test]
    fn names_are_checked_against_the_worker() {
        let setting = |name: &str, context: &str| WorkerSetting {
            name: name.into(),
            value: String::new(),
            source: "default".into(),
            context: context.into(),
        };
        let facts = WorkerFacts {
            settings: vec![
                setting("work_mem", "user"),
                setting("TimeZone", "user"),
                setting("block_size", "internal"),
                setting("pg_stat_statements.max", "postmaster"),
            ],
            ..WorkerFacts::default()
        };
        let none = BTreeMap::new();
        let loads = BTreeMap::from([("shared_preload_libraries".to_owned(), "auto_tune, other".to_owned())]);
        for (name, parameters, fine) in [
            ("work_mem", &none, true),
            ("timezone", &none, true),
            ("port", &none, false),
            ("block_size", &none, false),
            ("pg_stat_statements.max", &none, true),
            ("pg_stat_statements.typo", &none, false),
            ("auto_tune.level", &none, false),
            ("auto_tune.level", &loads, true),
        ] {
            assert_eq!(known(name, parameters, &facts).is_ok(), fine, "{name}");
        }
    }
}
