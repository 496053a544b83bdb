//! The worker: where it is, and how it is spoken to. The modes are libpq's `sslmode`, and mean the same.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ClientConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::time::timeout;
use understudy_crds::mirror_config::SslMode;

use super::{
    client_tls::{CertificateError, authorities, certificates},
    renewed::Renewed,
};
use crate::{
    connection::Connection,
    stream::{Address, Stream},
    tls::{TlsClient, TlsError, TlsStream, is_offered, provider::provider, verify::Lenient},
};

/// How TLS to the worker is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerTlsFiles {
    /// How much it has to prove.
    pub mode: SslMode,
    /// Authorities, PEM; needed by the modes that verify. `Require` verifies as well when it is there, as
    /// libpq does.
    pub authorities: Option<PathBuf>,
    /// Our own certificate and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The worker.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Where it is.
    pub address: Address,
    tls: Option<WorkerTls>,
}

/// How it is spoken to over TLS.
#[derive(Debug, Clone)]
struct WorkerTls {
    config: Arc<Renewed<ClientConfig>>,
    /// The name that its certificate must have.
    name: ServerName<'static>,
    mode: SslMode,
    /// The certificate that it has shown last. Locked for a look.
    shown: Arc<RwLock<Option<CertificateDer<'static>>>>,
}

impl From<Address> for Worker {
    /// A worker that is spoken to in plain text.
    fn from(address: Address) -> Self {
        Self { address, tls: None }
    }
}

impl Worker {
    /// A worker with TLS. A unix socket has none, as with libpq.
    pub fn new(address: Address, files: &WorkerTlsFiles) -> Result<Self, CertificateError> {
        let Address::Tcp { host, .. } = &address else { return Ok(address.into()) };
        let mode = match files.mode {
            SslMode::Require if files.authorities.is_some() => SslMode::VerifyCa,
            mode => mode,
        };
        // What is no name is not compared with one: verify-full fails then.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let name = ServerName::try_from(host.clone()).unwrap_or(nobody);
        let identity = files.identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let paths = files.authorities.iter().chain(identity).cloned().collect();
        let files = files.clone();
        let config = Arc::new(Renewed::read(paths, move || config(mode, &files))?);
        Ok(Self { address, tls: Some(WorkerTls { config, name, mode, shown: Arc::default() }) })
    }

    /// The certificate that it has shown last, where there is TLS to it.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.tls.as_ref().and_then(|tls| tls.shown.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads our certificate and the authorities again when they have changed. Whether they have; why they can't be used.
    pub fn renew(&self) -> Result<bool, CertificateError> {
        self.tls.as_ref().map_or(Ok(false), |tls| tls.config.renew())
    }

    /// Connects within `limit`, and agrees on TLS within `patience`: the worker answers to that when it has made a process
    /// for the client, which on a busy machine may take long.
    pub async fn connect(&self, limit: Duration, patience: Duration) -> Result<Connection, TlsError> {
        let stream = Stream::connect(&self.address, limit).await?;
        let Some(tls) = &self.tls else { return Ok(Connection::Plain(stream)) };
        let agreed = timeout(patience, tls.agree(stream)).await;
        match agreed.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
            // As libpq does.
            Err(TlsError::Handshake(_)) if tls.mode == SslMode::Prefer => {
                Ok(Connection::Plain(Stream::connect(&self.address, limit).await?))
            }
            agreed => agreed,
        }
    }
}

impl WorkerTls {
    async fn agree(&self, stream: Stream) -> Result<Connection, TlsError> {
        match (is_offered(&stream).await?, self.mode) {
            (true, _) => {
                let client = TlsClient { config: self.config.current(), name: self.name.clone() };
                let encrypted = TlsStream::agree(stream, &client).await?;
                self.note(encrypted.peer_certificate());
                Ok(Connection::Tls(Box::new(encrypted)))
            }
            (false, SslMode::Prefer) => Ok(Connection::Plain(stream)),
            (false, _) => Err(TlsError::NotOffered),
        }
    }

    fn note(&self, certificate: Option<&CertificateDer<'static>>) {
        if self.shown.read().unwrap_or_else(PoisonError::into_inner).as_ref() != certificate {
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = certificate.cloned();
        }
    }
}

fn config(mode: SslMode, files: &WorkerTlsFiles) -> Result<ClientConfig, CertificateError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier: Arc<dyn ServerCertVerifier> = match (mode, &files.authorities) {
        (SslMode::Prefer | SslMode::Require, _) => Arc::new(Lenient::anybody(provider)),
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => return Err(CertificateError::NoAuthorities),
        (SslMode::VerifyCa | SslMode::VerifyFull, Some(path)) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?;
            let own = certificates(path)?;
            Arc::new(Lenient::vouched_for(verifier, own, mode == SslMode::VerifyFull, provider))
        }
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let no_key = |_| CertificateError::Pem { path: key.clone(), what: "private key" };
            let key = PrivateKeyDer::from_pem_file(key).map_err(no_key)?;
            builder.with_client_auth_cert(certificates(certificate)?, key)?
        }
    })
}
