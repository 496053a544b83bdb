//! `demo`: the whole story on this machine, with a worker and an application of its own.

use std::{io::IsTerminal as _, net::SocketAddr, path::Path};

use tokio::sync::watch;
use understudy_crds::{
    condition::{Outcome, Phase},
    experiment::LocalTarget,
};

use super::{Trouble, default_store, halt_switch};
use crate::{
    demo::{
        dataset, experiment,
        place::DemoWorker,
        workload::{Workload, WorkloadHandle},
    },
    error::{ErrorKind, Side, UserError},
    run::{self, Companion, Deciding, Ended, Options},
    screen::{Progress, Screen, bytes, count},
};

/// The same traffic every time.
const SEED: u64 = 7;

pub(super) async fn run(yes: bool, out: &Path, keep: bool, screen: &Screen) -> Result<(), Trouble> {
    screen.title(&format!("Understudy demo · everything below happens on this machine, in {}", out.display()));
    if !yes && !agreed()? {
        screen.note("nothing was done");
        return Ok(());
    }
    std::fs::create_dir_all(out).map_err(|e| UserError::file("make the demo's directory", out, &e))?;
    let halt = halt_switch();
    let (mut worker, cleared) = DemoWorker::open(out).await?;
    for found in cleared {
        screen.note(&format!("an earlier demo had left something: {found}"));
    }
    let result = with_worker(&mut worker, out, keep, screen, halt).await;
    let stopped = worker.stop(keep).await;
    let Some(ended) = result? else {
        screen.note("halted: the demo's servers are gone");
        return Ok(());
    };
    stopped?;
    let better = ended.status.verdict.as_ref().is_some_and(|v| v.outcome == Outcome::Better);
    screen.closing(&[
        ("report", ended.report.display().to_string()),
        ("next", "understudy run -f examples/index.yaml        # with your own server".to_owned()),
    ]);
    if ended.status.phase == Phase::Halted || (better && ended.status.phase == Phase::Promoted) {
        Ok(())
    } else {
        Err(Trouble::Found)
    }
}

#[expect(clippy::print_stdout, reason = "a question to the person at the terminal")]
fn agreed() -> Result<bool, Trouble> {
    if !std::io::stdin().is_terminal() {
        return Err(Trouble::Usage(
            "the demo starts servers and loads two cores for some minutes; say --yes".to_owned(),
        ));
    }
    println!("It starts three PostgreSQL servers, loads this machine for about two minutes, and removes");
    println!("everything afterwards. Enter goes on, Ctrl-C ends it.");
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    Ok(read.is_ok_and(|bytes| bytes > 0) && !line.trim().eq_ignore_ascii_case("n"))
}

/// `None`: halted before the experiment began.
async fn with_worker(
    worker: &mut DemoWorker,
    out: &Path,
    keep: bool,
    screen: &Screen,
    halt: watch::Sender<bool>,
) -> Result<Option<Ended>, UserError> {
    let mut halted = halt.subscribe();
    let prepared = tokio::select! {
        prepared = prepare(worker, screen) => prepared?,
        // The sender is held by the caller.
        _ = halted.wait_for(|halted| *halted) => return Ok(None),
    };
    let target = LocalTarget {
        host: "127.0.0.1".to_owned(),
        port: i32::from(worker.port()),
        user: worker.user().to_owned(),
        database: worker.database().to_owned(),
        password_file: None,
        listen: "127.0.0.1:0".to_owned(),
    };
    let mut application = Application { workload: prepared, direct: worker.config() };
    let options = Options {
        experiment: experiment::experiment(target),
        out: out.to_owned(),
        store: default_store(out),
        admin: None,
        promotion: Deciding::Promote,
        verify: true,
        keep,
        screen: screen.clone(),
    };
    let result = run::run(options, &mut application, halt).await;
    let Application { workload, direct } = application;
    // Everything that the application was told is done must be there, whatever happened in between.
    let checked = ledger(&workload, &direct, screen).await;
    let (stats, _) = workload.stop().await;
    let ended = result?;
    checked?;
    if stats.unexpected_errors > 0 {
        return Err(UserError::new(
            ErrorKind::Exited,
            Side::Host,
            "the application saw errors that it should not have seen",
        )
        .fact("errors", stats.unexpected_errors));
    }
    Ok(Some(ended))
}

async fn prepare(worker: &mut DemoWorker, screen: &Screen) -> Result<WorkloadHandle, UserError> {
    let step = screen.step("worker");
    step.progress(Progress::Doing("starting PostgreSQL".to_owned()));
    let product = worker.start().await?;
    let client = worker.connect().await?;
    let loaded = dataset::load(&client, |done, total| step.progress(Progress::Count { done, total, of: "rows" }))
        .await
        .map_err(|e| {
            UserError::new(ErrorKind::StatementFailed, Side::Worker, "the demo's data can't be loaded")
                .fact("reason", e)
        })?;
    let workload = Workload::start(worker.config(), SEED, 1.0).await.map_err(|e| {
        UserError::new(ErrorKind::Unreachable, Side::Worker, "the demo's application can't start").fact("reason", e)
    })?;
    step.done(&format!(
        "{product} on 127.0.0.1:{}, {} of data, {} sessions of an analytics app",
        worker.port(),
        bytes(loaded.bytes),
        crate::demo::workload::SESSIONS
    ));
    Ok(workload)
}

async fn ledger(workload: &WorkloadHandle, direct: &tokio_postgres::Config, screen: &Screen) -> Result<(), UserError> {
    let failed = |reason: &dyn std::fmt::Display| {
        UserError::new(ErrorKind::Unreachable, Side::Worker, "the application's ledger can't be checked")
            .fact("reason", reason)
    };
    let (client, connection) = direct.connect(tokio_postgres::NoTls).await.map_err(|e| failed(&e))?;
    let connection = tokio::spawn(connection);
    let check = workload.check_ledger(&client).await.map_err(|e| failed(&e));
    connection.abort();
    let check = check?;
    let step = screen.step("ledger");
    let stats = workload.stats();
    if check.holds() {
        step.done(&format!(
            "{} transactions of the application, 0 lost, {} errors",
            count(stats.transactions),
            stats.unexpected_errors
        ));
        Ok(())
    } else {
        step.fail("writes are missing on the worker");
        Err(UserError::new(ErrorKind::Exited, Side::Worker, "acknowledged writes are missing on the worker"))
    }
}

/// The demo's application: it moves to the mirror when that is there, and back.
struct Application {
    workload: WorkloadHandle,
    direct: tokio_postgres::Config,
}

impl Application {
    async fn move_to(&self, config: tokio_postgres::Config) -> Result<(), UserError> {
        self.workload.reconnect_to(config).await.map_err(|e| {
            UserError::new(ErrorKind::Unreachable, Side::Host, "the application could not move").fact("reason", e)
        })
    }
}

impl Companion for Application {
    async fn mirror_ready(&mut self, address: SocketAddr) -> Result<(), UserError> {
        let mut config = self.direct.clone();
        config = crate::demo::place::at(&config, address);
        self.move_to(config).await
    }

    async fn mirror_leaving(&mut self) -> Result<(), UserError> {
        self.move_to(self.direct.clone()).await
    }

    fn transactions(&self) -> Option<u64> {
        Some(self.workload.stats().transactions)
    }
}
