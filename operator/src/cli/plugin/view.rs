//! What a person sees of an experiment of a cluster: the same block as on one machine, and its report.

use std::{path::Path, time::Duration};

use understudy_crds::{
    ShadowExperimentStatus,
    condition::{Outcome, Phase},
    report::Report,
    status::Verdict,
};

use super::resource::{Cluster, Experiments};
use crate::{
    cli::{Trouble, halt_switch, running::print_line},
    error::{ErrorKind, Side, UserError},
    run::write_report,
    screen::{Format, Screen},
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(1);

/// Shows an experiment once.
pub(super) async fn once(
    experiments: &Experiments,
    name: &str,
    screen: &Screen,
    format: Format,
) -> Result<(), Trouble> {
    let status = experiments.get(name).await?.status.unwrap_or_default();
    show(name, &status, screen, format);
    Ok(())
}

/// Shows an experiment until it is over, or has its verdict; Ctrl-C ends the looking, not the experiment.
pub(super) async fn follow(
    experiments: &Experiments,
    name: &str,
    until_verdict: bool,
    screen: &Screen,
    format: Format,
) -> Result<(), Trouble> {
    let switch = halt_switch();
    let mut stop = switch.subscribe();
    loop {
        let status = experiments.get(name).await?.status.unwrap_or_default();
        show(name, &status, screen, format);
        let over = matches!(status.phase, Phase::Promoted | Phase::Halted | Phase::Failed);
        if over || (until_verdict && status.phase == Phase::Concluded) {
            return if status.phase == Phase::Failed { Err(Trouble::Found) } else { Ok(()) };
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // The sender is held above.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

fn show(name: &str, status: &ShadowExperimentStatus, screen: &Screen, format: Format) {
    match format {
        Format::Json => print_line(&serde_json::to_string(status).unwrap_or_default()),
        Format::Text => screen.experiment(name, status, &[]),
    }
}

/// Fetches a report, writes both its forms, and closes a gate unless the verdict is good.
pub(super) async fn report(
    cluster: &Cluster,
    namespace: Option<&str>,
    name: &str,
    out: &Path,
    gate: bool,
    screen: &Screen,
) -> Result<(), Trouble> {
    let text = cluster.report(namespace, name).await?;
    let report: Report = serde_json::from_str(&text)
        .map_err(|e| UserError::new(ErrorKind::File, Side::Cluster, "the report can't be read").fact("reason", e))?;
    crate::run::prepare_directory(out)?;
    let page = write_report(out, &report)?;
    if let Some(verdict) = &report.status.verdict {
        screen.verdict(verdict);
    }
    screen.closing(&[("report", page.display().to_string())]);
    if gate && !passes(report.status.verdict.as_ref()) {
        return Err(Trouble::Gate("the gate stays closed: the verdict is neither Better nor Equivalent".to_owned()));
    }
    Ok(())
}

fn passes(verdict: Option<&Verdict>) -> bool {
    verdict.is_some_and(|verdict| matches!(verdict.outcome, Outcome::Better | Outcome::Equivalent))
}
