//! Speaks with a mirror pod: is it well, what does it say, and the verbs. Every call has a short limit;
//! a mirror that does not answer must not hold the controller up.

use std::{io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Secret;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use understudy_crds::{
    ShadowExperimentStatus,
    pods::{CONTROL_PORT, CandidatesNotice, CandidatesTaken, HEALTH_PORT, PromotionNotice},
};

use super::objects::tls::{CA, OPERATOR};

/// How long a mirror that is well takes to say so, at most: three of these and the pauses between them
/// must fit into five seconds.
const HEALTH_LIMIT: Duration = Duration::from_millis(800);
/// How long a verb and the status may take.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Status documents are small, but not without limit.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a mirror did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The network, or TLS.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Not HTTP as it should be.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The body is too long, or broke off.
    #[error("its answer could not be read: {0}")]
    Body(String),
    /// It said no.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// It takes too long.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The experiment's certificates are not what they should be.
    #[error("the experiment's certificates can't be used: {0}")]
    Certificates(String),
    /// It sent another document than a status.
    #[error("its status can't be read: {0}")]
    Document(#[from] serde_json::Error),
}

/// A mirror pod.
#[derive(Clone)]
pub struct MirrorClient {
    address: String,
    name: String,
    tls: Option<Arc<ClientConfig>>,
}

impl MirrorClient {
    /// The mirror at a pod's address, known by the name in its certificate.
    pub fn new(address: &str, name: &str, certificates: Option<&Secret>) -> Result<Self, MirrorError> {
        let tls = certificates.map(client_config).transpose()?;
        Ok(Self { address: address.to_owned(), name: name.to_owned(), tls })
    }

    /// Whether it is well.
    pub async fn is_healthy(&self) -> bool {
        let ask = async {
            let stream = TcpStream::connect(self.at(HEALTH_PORT)).await?;
            call(stream, "GET", "/healthz", Bytes::new()).await
        };
        matches!(timeout(HEALTH_LIMIT, ask).await, Ok(Ok(_)))
    }

    /// What it says.
    pub async fn status(&self) -> Result<ShadowExperimentStatus, MirrorError> {
        let body = self.control("GET", "/v1/status", Bytes::new()).await?;
        Ok(serde_json::from_slice(&body)?)
    }

    /// The version of the candidates that its arms are of.
    pub async fn candidates_taken(&self) -> Result<String, MirrorError> {
        let body = self.control("GET", "/v1/candidates", Bytes::new()).await?;
        Ok(serde_json::from_slice::<CandidatesTaken>(&body)?.version)
    }

    /// Its report, a JSON document.
    pub async fn report(&self) -> Result<Bytes, MirrorError> {
        self.control("GET", "/v1/report.json", Bytes::new()).await
    }

    /// Says that no Service leads to it any more: it may end once its clients have left.
    pub async fn release(&self) -> Result<(), MirrorError> {
        self.control("POST", "/v1/release", Bytes::new()).await.map(drop)
    }

    /// Stops mirroring; what clients do goes on.
    pub async fn halt(&self) -> Result<(), MirrorError> {
        self.control("POST", "/v1/halt", Bytes::new()).await.map(drop)
    }

    /// Tells it which candidates there shall be.
    pub async fn candidates(&self, notice: &CandidatesNotice) -> Result<(), MirrorError> {
        let body = Bytes::from(serde_json::to_vec(notice)?);
        self.control("POST", "/v1/candidates", body).await.map(drop)
    }

    /// Tells it about the promotion.
    pub async fn announce(&self, notice: &PromotionNotice) -> Result<(), MirrorError> {
        let body = Bytes::from(serde_json::to_vec(notice)?);
        self.control("POST", "/v1/promotion", body).await.map(drop)
    }

    fn at(&self, port: u16) -> (&str, u16) {
        (&self.address, port)
    }

    async fn control(&self, method: &str, path: &str, body: Bytes) -> Result<Bytes, MirrorError> {
        let tls = self.tls.clone().ok_or_else(|| MirrorError::Certificates("there are none yet".to_owned()))?;
        let name = ServerName::try_from(self.name.clone()).map_err(|e| MirrorError::Certificates(e.to_string()))?;
        let exchange = async {
            let stream = TcpStream::connect(self.at(CONTROL_PORT)).await?;
            let stream = TlsConnector::from(tls).connect(name, stream).await?;
            call(stream, method, path, body).await
        };
        timeout(CALL_LIMIT, exchange).await.map_err(|_| MirrorError::TimedOut(CALL_LIMIT))?
    }
}

async fn call<S>(stream: S, method: &str, path: &str, body: Bytes) -> Result<Bytes, MirrorError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = async {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "mirror")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| MirrorError::Body(e.to_string()))?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| MirrorError::Body(e.to_string()))?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(MirrorError::Refused(status)) }
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn client_config(secret: &Secret) -> Result<Arc<ClientConfig>, MirrorError> {
    let failed = |e: &dyn std::fmt::Display| MirrorError::Certificates(e.to_string());
    let data = secret.data.as_ref().ok_or_else(|| failed(&"the Secret is empty"))?;
    let get = |key: &str| data.get(key).map(|bytes| bytes.0.as_slice()).ok_or_else(|| failed(&format!("no {key}")));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(get(CA)?).map_err(|e| failed(&e))?).map_err(|e| failed(&e))?;
    let certificate = CertificateDer::from_pem_slice(get(&OPERATOR.certificate())?).map_err(|e| failed(&e))?;
    let key = PrivateKeyDer::from_pem_slice(get(&OPERATOR.key())?).map_err(|e| failed(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(|e| failed(&e))?;
    Ok(Arc::new(config))
}
