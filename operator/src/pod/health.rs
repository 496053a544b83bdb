//! A pod's health, for the kubelet and the operator: plain HTTP on a port of its own, that shows nothing
//! about anybody's data and takes no orders.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use understudy_crds::pods::HEALTH_PORT;
use understudy_mirror::admin::few::Few;

use super::{PodError, http::listen};

/// Asks something whether it is well; why not, if it is not.
pub type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// A check that is done at once.
pub fn at_once(check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Check {
    Arc::new(move || {
        let result = check();
        Box::pin(async move { result })
    })
}

/// Serves `/healthz` (is it alive?), `/readyz` (may it be used?) and what else there is. Its address.
pub async fn serve(alive: Check, ready: Check, more: Router) -> Result<SocketAddr, PodError> {
    let listener = listen(HEALTH_PORT).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/healthz", get(move || answer(Arc::clone(&alive))))
        .route("/readyz", get(move || answer(Arc::clone(&ready))))
        .merge(more);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(Few::of(listener), router).await {
            tracing::warn!(%error, "the health port ended");
        }
    });
    Ok(address)
}

async fn answer(check: Check) -> Response {
    match check().await {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
