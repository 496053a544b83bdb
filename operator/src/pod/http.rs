//! HTTP over mutual TLS, as much as the pods need of it: a router served, and a request made. Every wait
//! has a limit; every answer has a largest size.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo, http::Request};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1 as client, server::conn::http1 as server};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tower_service::Service as _;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Answers are documents, reports among them: large, but not without limit.
const MOST_BYTES: usize = 64 << 20;

/// Serves a router until it is dropped. Handlers find the peer's address in `ConnectInfo<SocketAddr>`.
pub async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, router: Router) {
    let acceptor = TlsAcceptor::from(tls);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        tokio::spawn(async move {
            let Ok(Ok(stream)) = timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await else {
                tracing::debug!(%peer, "no handshake");
                return;
            };
            let answer = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(ConnectInfo(peer));
                let mut router = router.clone();
                async move { router.call(request).await }
            });
            // A client that goes away in the middle is its own affair.
            let _ = server::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// A request that got no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// Nobody answered in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The connection failed.
    #[error("{0}")]
    Connection(String),
    /// It was answered, with a refusal.
    #[error("answered {status}: {text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What was said.
        text: String,
    },
    /// The answer is not what it should be.
    #[error("an answer that can't be read: {0}")]
    Unreadable(String),
}

/// A peer that answers HTTP over mutual TLS.
#[derive(Clone)]
pub struct Peer {
    /// Where it is connected to: host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The name that its certificate must have.
    pub name: String,
    tls: Arc<ClientConfig>,
}

impl Peer {
    /// A peer by the name under which it is known and certified.
    pub fn new(host: &str, port: u16, name: &str, tls: Arc<ClientConfig>) -> Self {
        Self { host: host.to_owned(), port, name: name.to_owned(), tls }
    }

    /// Reads a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, HttpError> {
        let body = self.request("GET", path, Bytes::new(), limit).await?;
        serde_json::from_slice(&body).map_err(|e| HttpError::Unreadable(e.to_string()))
    }

    /// Reads a text.
    pub async fn get_bytes(&self, path: &str, limit: Duration) -> Result<Bytes, HttpError> {
        self.request("GET", path, Bytes::new(), limit).await
    }

    /// Gives an order.
    pub async fn post(&self, path: &str, order: &impl Serialize, limit: Duration) -> Result<(), HttpError> {
        let body = serde_json::to_vec(order).map_err(|e| HttpError::Unreadable(e.to_string()))?;
        self.request("POST", path, body.into(), limit).await.map(drop)
    }

    async fn request(&self, method: &str, path: &str, body: Bytes, limit: Duration) -> Result<Bytes, HttpError> {
        timeout(limit, self.exchange(method, path, body)).await.unwrap_or(Err(HttpError::TimedOut(limit)))
    }

    async fn exchange(&self, method: &str, path: &str, body: Bytes) -> Result<Bytes, HttpError> {
        let broken = |e: &dyn std::fmt::Display| HttpError::Connection(e.to_string());
        let name = ServerName::try_from(self.name.clone()).map_err(|e| broken(&e))?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| broken(&e))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.map_err(|e| broken(&e))?;
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        // It ends with the answer; what went wrong on it, the request says.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.name)
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|e| broken(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| broken(&e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(|e| broken(&e))?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            let text = String::from_utf8_lossy(&body).trim().to_owned();
            Err(HttpError::Refused { status: status.as_u16(), text })
        }
    }
}

/// Listens on a port of all addresses.
pub async fn listen(port: u16) -> Result<TcpListener, super::PodError> {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port)))
        .await
        .map_err(|reason| super::PodError::Listen { port, reason })
}
