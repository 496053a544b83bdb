//! The certificates of a pod: both sides of every connection between operator, mirror pod and arm pods
//! show one, made for this experiment by its own authority.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificates in {place} can't be used: {reason}")]
pub struct TlsError {
    place: String,
    reason: String,
}

/// A certificate with its key, and the authority that the other side's must come from. PEM.
#[derive(Clone)]
pub struct Identity {
    place: String,
    authority: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    /// From a directory with `ca.crt`, `tls.crt` and `tls.key`.
    pub fn read(directory: &Path) -> Result<Self, TlsError> {
        let place = directory.display().to_string();
        let file = |name: &str| {
            fs::read(directory.join(name))
                .map_err(|e| TlsError { place: place.clone(), reason: format!("{name}: {e}") })
        };
        Ok(Self { authority: file("ca.crt")?, certificate: file("tls.crt")?, key: file("tls.key")?, place })
    }

    /// From texts; `place` says for people where they stand.
    pub fn of_texts(place: &str, authority: &[u8], certificate: &[u8], key: &[u8]) -> Self {
        Self {
            place: place.to_owned(),
            authority: authority.to_owned(),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }
    }

    fn failed(&self, reason: &impl ToString) -> TlsError {
        TlsError { place: self.place.clone(), reason: reason.to_string() }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authority) {
            roots.add(certificate.map_err(|e| self.failed(&e))?).map_err(|e| self.failed(&e))?;
        }
        Ok(Arc::new(roots))
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| self.failed(&e))?;
        Ok((chain.map_err(|e| self.failed(&e))?, key))
    }

    /// A server that lets in only who shows a certificate of the same authority.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider()).build();
        let (chain, key) = self.own()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| self.failed(&e))?
            .with_client_cert_verifier(verifier.map_err(|e| self.failed(&e))?)
            .with_single_cert(chain, key);
        config.map(Arc::new).map_err(|e| self.failed(&e))
    }

    /// A client that shows its certificate, and wants one of the same authority with the right name.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let (chain, key) = self.own()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| self.failed(&e))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key);
        config.map(Arc::new).map_err(|e| self.failed(&e))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
