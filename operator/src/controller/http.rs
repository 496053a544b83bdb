//! The controller's own HTTP: `/healthz`, `/readyz`, `/metrics`. Nothing about anybody's data.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::context::Context;

/// The type of OpenMetrics text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves until it is dropped. `ready` says whether the API server has been reached.
pub async fn serve(address: &str, context: Arc<Context>, ready: Arc<AtomicBool>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    let is_ready = move || async move {
        if ready.load(Ordering::Relaxed) {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the API server has not been reached yet\n")
        }
    };
    let metrics =
        move || async move { ([(header::CONTENT_TYPE, OPEN_METRICS)], context.metrics.text()).into_response() };
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(is_ready))
        .route("/metrics", get(metrics));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::warn!(%error, "the controller's HTTP ended");
        }
    });
    Ok(())
}
