//! The certificate that clients are shown, and whose they must show. Both are renewed while clients are connected.
//!
//! Private keys are neither logged nor shown.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

use super::renewed::Renewed;
use crate::{tls::provider::provider, wire::startup::PROTOCOL_NAME};

/// Where a side's certificate is, and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTlsFiles {
    /// The certificate and those that vouch for it, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities that a client's certificate must come from, PEM. Without it clients show none.
    pub authorities: Option<PathBuf>,
    /// Clients must show a certificate.
    pub certificate_required: bool,
    /// Clients must use TLS.
    pub is_required: bool,
    /// TLS 1.2 is refused.
    pub only_tls13: bool,
}

/// Why there is no TLS for clients.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: no {what} in PEM is in it", path = path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// Certificate and key do not fit, or are of a kind that can't be used.
    #[error("the certificate and its key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// A mode that verifies has nobody to trust.
    #[error("verify-ca and verify-full need `authorities`")]
    NoAuthorities,
    /// The authorities can't be used.
    #[error("the authorities can't be used: {0}")]
    Authorities(#[from] VerifierBuilderError),
}

/// What clients are shown, and how.
#[derive(Debug)]
pub struct Shown {
    /// For handshakes.
    pub config: Arc<ServerConfig>,
    /// The certificate itself.
    pub certificate: CertificateDer<'static>,
}

/// TLS for clients.
#[derive(Debug)]
pub struct ClientTls {
    /// Clients must use it.
    pub is_required: bool,
    /// What they are shown.
    pub shown: Renewed<Shown>,
}

impl ClientTls {
    /// Reads the certificate.
    pub fn read(files: ClientTlsFiles) -> Result<Self, CertificateError> {
        let paths = [Some(&files.certificate), Some(&files.key), files.authorities.as_ref()];
        let paths = paths.into_iter().flatten().cloned().collect();
        Ok(Self { is_required: files.is_required, shown: Renewed::read(paths, move || load(&files))? })
    }

    /// What a client is shown in front of a worker that shows this certificate: the same, where it is the one before the
    /// last. Both are renewed together, but never at once, and a client that binds its channel would be locked out between.
    pub fn beside(&self, worker: Option<&CertificateDer<'_>>) -> Arc<Shown> {
        let last = self.shown.current();
        if worker.is_none_or(|worker| *worker == last.certificate) {
            return last;
        }
        self.shown.before().filter(|before| worker == Some(&before.certificate)).unwrap_or(last)
    }
}

fn load(files: &ClientTlsFiles) -> Result<Shown, CertificateError> {
    let chain = certificates(&files.certificate)?;
    let no_certificate = || CertificateError::Pem { path: files.certificate.clone(), what: "certificate" };
    let certificate = chain.first().cloned().ok_or_else(no_certificate)?;
    let no_key = |_| CertificateError::Pem { path: files.key.clone(), what: "private key" };
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(no_key)?;
    let versions: &[_] = if files.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions)?;
    let builder = match &files.authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if files.certificate_required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    // A client that speaks TLS without asking must say that it means PostgreSQL; others may.
    config.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
    Ok(Shown { config: Arc::new(config), certificate })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|error| CertificateError::File { path: path.to_owned(), error })
}

/// The certificates of a file, in order.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |_| CertificateError::Pem { path: path.to_owned(), what: "certificate" };
    CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<_, _>>().map_err(wrong)
}

/// A file of authorities.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    if roots.is_empty() {
        return Err(CertificateError::Pem { path: path.to_owned(), what: "certificate" });
    }
    Ok(roots)
}
