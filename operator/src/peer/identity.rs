//! Who one of operator, mirror pod and arm pods is for the others: a certificate with its key, and the
//! authority from which the other side's must come, made for this experiment.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use understudy_mirror::tls::{TlsClient, provider::provider};

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the certificates in {place} can't be used: {reason}")]
pub struct IdentityError {
    place: String,
    reason: String,
}

/// A name that no certificate can have.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a name that a certificate can have")]
pub struct NameError(String);

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
    pub fn read(directory: &Path) -> Result<Self, IdentityError> {
        let place = directory.display().to_string();
        let file = |name: &str| {
            fs::read(directory.join(name))
                .map_err(|e| IdentityError { place: place.clone(), reason: format!("{name}: {e}") })
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

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> &[u8] {
        &self.authority
    }

    /// Its own certificate, PEM.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The certificate's private key, PEM.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    fn failed(&self, reason: &impl ToString) -> IdentityError {
        IdentityError { place: self.place.clone(), reason: reason.to_string() }
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.authority) {
            roots.add(certificate.map_err(|e| self.failed(&e))?).map_err(|e| self.failed(&e))?;
        }
        if roots.is_empty() {
            return Err(self.failed(&"there is no authority"));
        }
        Ok(Arc::new(roots))
    }

    fn own(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), IdentityError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificate).collect::<Result<_, _>>();
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| self.failed(&e))?;
        Ok((chain.map_err(|e| self.failed(&e))?, key))
    }

    /// A server that lets in only who shows a certificate of the same authority.
    pub fn server(&self) -> Result<Arc<ServerConfig>, IdentityError> {
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
    pub fn client(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let (chain, key) = self.own()?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| self.failed(&e))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key);
        config.map(Arc::new).map_err(|e| self.failed(&e))
    }
}

/// Whom to expect: who has a certificate with this name, of the authority in `config`.
pub fn expecting(name: &str, config: Arc<ClientConfig>) -> Result<TlsClient, NameError> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| NameError(name.to_owned()))?;
    Ok(TlsClient { config, name })
}
