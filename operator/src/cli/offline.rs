//! Commands that need no running experiment: `report`, `promote`, `crd`, and the refusal of `replay`.

use understudy_crds::{condition::Outcome, crd as definition};

use super::{Trouble, Which, default_store, running::print_line};
use crate::{
    error::{ErrorKind, Side, UserError},
    platform::local::{promotion, worker::Worker},
    report,
    run::write_report,
    screen::{Format, Screen},
    store::{Recorded, Store},
};

async fn load(which: &Which, store: Option<String>) -> Result<Recorded, Trouble> {
    let out = which.directory()?;
    let url = store.unwrap_or_else(|| default_store(&out));
    let missing = |reason: &dyn std::fmt::Display| {
        UserError::new(ErrorKind::Missing, Side::Host, "there are no results of this experiment")
            .fact("store", &url)
            .fact("reason", reason)
            .remedy("name the directory of the run with --out, or the store with --store")
    };
    if let Some(path) = url.strip_prefix("sqlite:")
        && !std::path::Path::new(path).exists()
    {
        return Err(missing(&"there is no such file").into());
    }
    let name = match &which.name {
        Some(name) => name.clone(),
        None => out.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
    };
    let store = Store::open(&url).await.map_err(|e| missing(&e))?;
    store.load(&name).await.map_err(|e| missing(&e).into())
}

pub(super) async fn report(
    which: &Which,
    store: Option<String>,
    gate: bool,
    screen: &Screen,
    format: Format,
) -> Result<(), Trouble> {
    let recorded = load(which, store).await?;
    let report = report::rebuild(recorded);
    let page = write_report(&which.directory()?, &report)?;
    let verdict = report.status.verdict.clone();
    if format == Format::Json {
        let text = report::json(&report).map_err(|e| {
            UserError::new(ErrorKind::File, Side::Host, "the report can't be printed").fact("reason", e)
        })?;
        print_line(&text);
    } else {
        if let Some(verdict) = &verdict {
            screen.verdict(verdict);
        }
        screen.closing(&[("report", page.display().to_string())]);
    }
    let passes = verdict.as_ref().is_some_and(|v| matches!(v.outcome, Outcome::Better | Outcome::Equivalent));
    if gate && !passes {
        let said = verdict.map_or_else(
            || "there is no verdict".to_owned(),
            |v| format!("the verdict is {}", crate::screen::outcome_name(v.outcome)),
        );
        return Err(Trouble::Gate(format!("the gate stays closed: {said}")));
    }
    Ok(())
}

pub(super) async fn promote(
    which: &Which,
    store: Option<String>,
    candidate: Option<String>,
    force: bool,
    screen: &Screen,
) -> Result<(), Trouble> {
    let Recorded { experiment, status, .. } = load(which, store).await?;
    let verdict = status.verdict;
    let wins = verdict.as_ref().is_some_and(|v| v.outcome == Outcome::Better);
    let judged = verdict.and_then(|v| v.candidate);
    let refused = |what: &str| UserError::new(ErrorKind::InvalidField, Side::Document, what).nothing_changed();
    let name = candidate.clone().or_else(|| judged.clone());
    let Some(name) = name else {
        return Err(refused("there is no verdict about a candidate")
            .remedy("name one with --candidate, and --force")
            .into());
    };
    let is_winner = wins && judged.as_deref() == Some(name.as_str());
    if !force && !is_winner {
        return Err(refused("only a candidate that is Better is promoted")
            .fact("candidate", &name)
            .remedy("run the experiment again, or promote it all the same with --force")
            .into());
    }
    let found = experiment.spec.candidates.iter().enumerate().find(|(_, c)| c.name == name);
    let Some((index, change)) = found else {
        return Err(refused("the experiment has no such candidate").fact("candidate", &name).into());
    };
    let Some(target) = &experiment.spec.target.local else {
        return Err(refused("the experiment's worker is not a server of this machine").into());
    };
    let worker = Worker::new(target)?;
    let step = screen.step("promoted");
    let promoted = promotion::promote(&worker, index, change, None).await?;
    let waiting: Vec<_> = promoted
        .settings
        .iter()
        .filter(|(_, effect)| **effect == promotion::Effect::AtRestart)
        .map(|(name, _)| name.as_str())
        .collect();
    let message = if waiting.is_empty() {
        format!("{name}: now on {} and in effect", worker.label())
    } else {
        format!("{name}: on {}; {} take effect when it is restarted", worker.label(), waiting.join(", "))
    };
    step.done(&message);
    Ok(())
}

pub(super) fn crd() {
    print_line(definition::yaml().trim_end());
}

pub(super) fn no_replay() -> UserError {
    UserError::new(ErrorKind::InvalidField, Side::Document, "replay: not supported on the local platform yet")
        .fact("reason", "a traffic log is kept until every arm has played it and not longer so far")
        .nothing_changed()
}
