//! The mirror's admin HTTP: health, metrics, status, and the verbs of the control plane. It reads what
//! others keep; it is never on the path of a client.

use std::{fmt::Write as _, future::Future, io, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use understudy_crds::status::ShadowExperimentStatus;

use self::few::Few;
use crate::{metrics, mirror::Mirror};

pub mod few;

/// What the admin HTTP shows and does.
pub trait Admin: Send + Sync + 'static {
    /// The status of the experiment.
    fn status(&self) -> ShadowExperimentStatus;
    /// The kill switch. Returns at once.
    fn halt(&self);
    /// The mirror behind it.
    fn mirror(&self) -> &Mirror;
}

/// Who may use the verbs.
#[derive(Clone)]
pub enum Verbs {
    /// Nobody.
    Refused,
    /// Whoever can connect: the socket is private.
    Open,
    /// Whoever has this token (`Authorization: Bearer …`).
    Token(Arc<str>),
}

/// The admin HTTP's routes.
pub fn router<A: Admin>(admin: Arc<A>, verbs: Verbs) -> Router {
    let guarded =
        Router::new().route("/v1/halt", post(halt::<A>)).layer(middleware::from_fn_with_state(verbs, authorise));
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready::<A>))
        .route("/metrics", get(show_metrics::<A>))
        .route("/v1/status", get(async |State(admin): State<Arc<A>>| Json(admin.status())))
        .merge(guarded)
        .with_state(admin)
}

/// `/metrics` alone, to stand beside other routes.
pub fn metrics_router<A: Admin>(admin: Arc<A>) -> Router {
    Router::new().route("/metrics", get(show_metrics::<A>)).with_state(admin)
}

/// Serves on a TCP address until `until` is over.
pub async fn serve_tcp(
    address: &str,
    router: Router,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<std::net::SocketAddr> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(Few::of(listener), router).with_graceful_shutdown(until).await {
            tracing::warn!(%error, "the admin HTTP ended");
        }
    });
    Ok(bound)
}

/// Serves on a unix socket until it is dropped. Who may connect is the file's business.
pub async fn serve_unix(listener: tokio::net::UnixListener, router: Router) -> io::Result<()> {
    axum::serve(listener, router).await
}

async fn authorise(State(verbs): State<Verbs>, request: Request, next: Next) -> Response {
    let allowed = match &verbs {
        Verbs::Open => true,
        Verbs::Refused => false,
        Verbs::Token(token) => request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .is_some_and(|given| same(given.as_bytes(), token.as_bytes())),
    };
    if allowed {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, "this verb needs the admin token\n").into_response()
    }
}

/// Compares without telling by its duration where the two differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (x, y)| different | (x ^ y)) == 0
}

async fn halt<A: Admin>(State(admin): State<Arc<A>>) -> &'static str {
    admin.halt();
    "halted: nothing is mirrored any more\n"
}

async fn ready<A: Admin>(State(admin): State<Arc<A>>) -> Response {
    if admin.mirror().is_listening() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the mirror is going away\n").into_response()
    }
}

async fn show_metrics<A: Admin>(State(admin): State<Arc<A>>) -> Response {
    let mut text = String::new();
    match metrics::encode(&mut text, &admin.status(), admin.mirror()) {
        Ok(()) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let mut why = String::new();
            // Writing to a string does not fail.
            let _ = writeln!(why, "metrics can't be encoded: {error}");
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn tokens_are_the_same_or_not() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secreT"));
        assert!(!same(b"secret", b"secret "));
    }
}
