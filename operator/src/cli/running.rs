//! `run`, and what talks to a running experiment: `watch`, `halt`.

use std::{fs, path::PathBuf, time::Duration};

use understudy_crds::{ShadowExperiment, condition::Phase, manifest, support::unsupported_locally};

use super::{Trouble, Which, default_out, default_store, halt_switch};
use crate::{
    error::{ErrorKind, Side, UserError},
    run::{self, Alone, Deciding, Options, control::Client},
    screen::{Format, Screen},
};

/// How often `watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What `run` was asked.
pub(super) struct Asked {
    pub(super) file: PathBuf,
    pub(super) out: Option<PathBuf>,
    pub(super) store: Option<String>,
    pub(super) admin: Option<String>,
    pub(super) promote: bool,
    pub(super) verify: bool,
}

pub(super) async fn run(asked: Asked, screen: &Screen) -> Result<(), Trouble> {
    let Asked { file, out, store, admin, promote, verify } = asked;
    let experiment = read(&file)?;
    let name = experiment.metadata.name.clone().unwrap_or_default();
    let out = out.unwrap_or_else(|| default_out(&name));
    let store = store.unwrap_or_else(|| default_store(&out));
    screen.title(&format!("Understudy · {name}, results in {}", out.display()));
    let promotion = if promote { Deciding::Promote } else { Deciding::Policy };
    let options = Options { experiment, out, store, admin, promotion, verify, keep: false, screen: screen.clone() };
    let ended = run::run(options, &mut Alone, halt_switch()).await?;
    let promoted = ended.status.phase == Phase::Promoted;
    let mut rows = vec![("report", ended.report.display().to_string())];
    if !promoted && ended.status.phase == Phase::Concluded {
        rows.push(("next", format!("understudy report {name} --gate")));
    }
    screen.closing(&rows);
    if ended.differs { Err(Trouble::Found) } else { Ok(()) }
}

/// Reads an experiment and refuses what can't be run here.
fn read(file: &std::path::Path) -> Result<ShadowExperiment, UserError> {
    let text =
        fs::read_to_string(file).map_err(|e| UserError::file("read the experiment", file, &e).nothing_changed())?;
    let wrong = |reason: String| {
        UserError::new(
            ErrorKind::InvalidField,
            Side::Document,
            format!("{}: not an experiment that can be run", file.display()),
        )
        .fact("reason", reason)
        .nothing_changed()
    };
    let experiment = manifest::read(&text).map_err(|e| wrong(e.to_string()))?;
    let refused: Vec<String> = unsupported_locally(&experiment.spec).iter().map(ToString::to_string).collect();
    if !refused.is_empty() {
        return Err(wrong(refused.join("\n")));
    }
    if experiment.spec.halt {
        return Err(wrong("spec.halt: the kill switch is on; set it to false to run".to_owned()));
    }
    Ok(experiment)
}

pub(super) async fn watch(which: &Which, once: bool, screen: &Screen, format: Format) -> Result<(), Trouble> {
    let client = Client::find(&which.directory()?)?;
    let halted = halt_switch();
    let mut stop = halted.subscribe();
    loop {
        let status = client.status().await?;
        match format {
            Format::Json => print_line(&serde_json::to_string(&status).unwrap_or_default()),
            Format::Text => screen.experiment(&client.name, &status, &[]),
        }
        let over = matches!(status.phase, Phase::Promoted | Phase::Halted | Phase::Failed);
        if once || over {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            // The sender is held above.
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

pub(super) async fn halt(which: &Which, screen: &Screen) -> Result<(), Trouble> {
    let client = Client::find(&which.directory()?)?;
    client.halt().await?;
    screen.note(&format!("{} is halted: nothing is mirrored any more", client.name));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for is the output")]
pub(super) fn print_line(line: &str) {
    println!("{line}");
}
