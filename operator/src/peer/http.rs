//! HTTP requests to a peer, as much as is needed of it. Every wait has a limit; every answer has a largest
//! size. Who serves them: [`crate::pod::http`].

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use understudy_mirror::tls::TlsClient;

/// Answers are documents, reports among them: large, but not without limit.
const MOST_BYTES: usize = 16 << 20;

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

/// Somebody who answers HTTP: over mutual TLS, or in plain text where there is nothing to hide.
#[derive(Clone)]
pub struct Peer {
    host: String,
    port: u16,
    tls: Option<TlsClient>,
}

impl Peer {
    /// A peer at a host name or address; its certificate must have the name in `tls`.
    pub fn new(host: &str, port: u16, tls: TlsClient) -> Self {
        Self { host: host.to_owned(), port, tls: Some(tls) }
    }

    /// A peer that says nothing secret and takes no orders.
    pub fn plain(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, tls: None }
    }

    /// Reads a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, HttpError> {
        let body = self.get_bytes(path, limit).await?;
        serde_json::from_slice(&body).map_err(|e| HttpError::Unreadable(e.to_string()))
    }

    /// Reads a text.
    pub async fn get_bytes(&self, path: &str, limit: Duration) -> Result<Bytes, HttpError> {
        self.request("GET", path, Bytes::new(), limit).await
    }

    /// Gives an order that needs no words.
    pub async fn post_nothing(&self, path: &str, limit: Duration) -> Result<(), HttpError> {
        self.request("POST", path, Bytes::new(), limit).await.map(drop)
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
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(broken)?;
        match &self.tls {
            None => one_request(stream, method, path, body).await,
            Some(TlsClient { config, name }) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(broken)?;
                one_request(stream, method, path, body).await
            }
        }
    }
}

async fn one_request<S>(stream: S, method: &str, path: &str, body: Bytes) -> Result<Bytes, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with the answer; what went wrong on it, the request says.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "understudy")
        .header("content-type", "application/json")
        .header("connection", "close")
        .body(Full::new(body))
        .map_err(broken)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map_err(broken)?.to_bytes();
    if status.is_success() {
        Ok(body)
    } else {
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        Err(HttpError::Refused { status: status.as_u16(), text })
    }
}

fn broken(error: impl std::fmt::Display) -> HttpError {
    HttpError::Connection(error.to_string())
}
