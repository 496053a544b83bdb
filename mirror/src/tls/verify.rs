//! Verifies a server's certificate as libpq's `sslmode` asks, which is less than a browser would: any certificate, any
//! name in a certificate of our authorities, or one of those themselves, as a server that signs its own has it. Whoever
//! shows a certificate must still prove to hold its key.

use std::sync::Arc;

use webpki::Error::CaUsedAsEndEntity;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Whether a certificate is refused for being an authority's, which a server's own should not be.
fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(other)) = error else { return false };
    matches!(other.0.downcast_ref(), Some(CaUsedAsEndEntity))
}

/// A verifier that does not look at everything.
#[derive(Debug)]
pub struct Lenient {
    /// Who must vouch for it; nothing where anybody will do.
    vouched: Option<Vouched>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Vouched {
    chain: Arc<WebPkiServerVerifier>,
    /// Our authorities.
    own: Vec<CertificateDer<'static>>,
    /// The name must be in it.
    named: bool,
}

impl Lenient {
    /// Takes any certificate (`prefer`, `require`).
    pub const fn anybody(provider: Arc<CryptoProvider>) -> Self {
        Self { vouched: None, provider }
    }

    /// Takes a certificate that the verifier of our own authorities takes, whatever name is in it (`verify-ca`) or `named`
    /// as the server is (`verify-full`), and a certificate that is one of the authorities.
    pub const fn vouched_for(
        chain: Arc<WebPkiServerVerifier>,
        own: Vec<CertificateDer<'static>>,
        named: bool,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self { vouched: Some(Vouched { chain, own, named }), provider }
    }
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        let Some(Vouched { chain, own, named }) = &self.vouched else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, others, name, ocsp, now) {
            // The chain is verified before the name is looked at.
            Err(Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) if !named => {}
            // And the dates before what it may be used for.
            Err(error) if is_authority(&error) && own.contains(certificate) => {
                if *named {
                    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                }
            }
            other => return other,
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
