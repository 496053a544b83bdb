//! What the operator sees of a mirror pod and tells it, over mutual TLS; and whether the relay is alive.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State as Shared,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use understudy_crds::{
    ShadowExperimentStatus,
    pods::{CandidatesNotice, CandidatesTaken, PromotionNotice, PromotionState},
};
use understudy_mirror::{admin::Admin, wire::encode::SSL_REQUEST};

use crate::{
    platform::kubernetes::{PromotionWord, Word},
    run::state::State,
};

/// How long the relay may take to show that it is alive.
const ALIVE_LIMIT: Duration = Duration::from_millis(800);

/// What can be asked and told. Copies are the same.
#[derive(Clone)]
pub(super) struct Control {
    state: State,
    results: PathBuf,
    decided: watch::Sender<Option<String>>,
    promotion: watch::Sender<PromotionWord>,
    candidates: watch::Sender<CandidatesNotice>,
    released: watch::Sender<bool>,
}

impl Control {
    /// Of an experiment with these candidates, whose results are in a directory.
    pub(super) fn new(state: State, candidates: CandidatesNotice, results: PathBuf) -> Self {
        Self {
            state,
            results,
            decided: watch::Sender::new(None),
            promotion: watch::Sender::new(PromotionWord::default()),
            candidates: watch::Sender::new(candidates),
            released: watch::Sender::new(false),
        }
    }

    /// The experiment.
    pub(super) fn state(&self) -> State {
        self.state.clone()
    }

    /// The candidate that is to be promoted, once that is decided.
    pub(super) fn decided(&self) -> watch::Receiver<Option<String>> {
        self.decided.subscribe()
    }

    /// What the operator says while the experiment runs.
    pub(super) fn word(&self) -> Word {
        Word { promotion: self.promotion.subscribe(), candidates: self.candidates.subscribe() }
    }

    /// Whether no Service leads here any more.
    pub(super) fn released(&self) -> watch::Receiver<bool> {
        self.released.subscribe()
    }

    /// The routes.
    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/v1/status", get(status))
            .route("/v1/report.json", get(report))
            .route("/v1/halt", post(halt))
            .route("/v1/promotion", post(promotion))
            .route("/v1/candidates", get(candidates_taken).post(candidates))
            .route("/v1/release", post(release))
            .with_state(self.clone())
    }
}

async fn report(Shared(control): Shared<Control>) -> Response {
    match tokio::fs::read(control.results.join("report.json")).await {
        Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "there is no report yet\n").into_response(),
    }
}

async fn status(Shared(control): Shared<Control>) -> Json<ShadowExperimentStatus> {
    Json(control.state.status())
}

async fn candidates_taken(Shared(control): Shared<Control>) -> Json<CandidatesTaken> {
    Json(CandidatesTaken { version: control.state.candidates() })
}

async fn halt(Shared(control): Shared<Control>) -> &'static str {
    Admin::halt(&control.state);
    "halted: nothing is mirrored any more\n"
}

async fn promotion(Shared(control): Shared<Control>, Json(notice): Json<PromotionNotice>) -> StatusCode {
    let PromotionNotice { state, candidate } = notice;
    let word = match state {
        PromotionState::Began => {
            control.decided.send_replace(Some(candidate));
            PromotionWord::Began
        }
        PromotionState::Ended => PromotionWord::Done,
    };
    control.promotion.send_replace(word);
    StatusCode::NO_CONTENT
}

async fn candidates(Shared(control): Shared<Control>, Json(notice): Json<CandidatesNotice>) -> StatusCode {
    control.candidates.send_if_modified(|known| {
        let news = *known != notice;
        *known = notice;
        news
    });
    StatusCode::ACCEPTED
}

async fn release(Shared(control): Shared<Control>) -> StatusCode {
    control.released.send_replace(true);
    StatusCode::NO_CONTENT
}

/// Whether a client would get through: the production path answers what every client asks first, and so
/// does the worker, from here. A mirror that can't reach its worker must never get the Service.
pub(super) async fn relays(mirror: SocketAddr, worker: (String, u16)) -> Result<(), String> {
    let own = answers("the relay", (Ipv4Addr::LOCALHOST.to_string(), mirror.port()));
    let (own, worker) = tokio::join!(own, answers("the worker", worker));
    own.and(worker)
}

async fn answers(who: &str, address: (String, u16)) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&SSL_REQUEST).await?;
        let mut answer = [0_u8; 1];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(())
    };
    match timeout(ALIVE_LIMIT, ask).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{who} does not answer: {error}")),
        Err(_) => Err(format!("{who} does not answer within {} ms", ALIVE_LIMIT.as_millis())),
    }
}
