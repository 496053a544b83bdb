//! Certificates, and a TLS client of our own that trusts them: it sees what it is shown, and need not ask before it
//! begins.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs, io, os::unix::fs::PermissionsExt, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use understudy_e2e::tls_worker::TlsWorker;

/// What an encrypted connection is spoken over.
pub type Encrypted = TlsStream<TcpStream>;

/// One authority, and certificates of it for `localhost`. That of `late` has expired.
pub struct Papers {
    directory: TempDir,
}

impl Papers {
    /// New ones: who trusts others trusts none of these.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory for certificates");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("an authority");
        fs::write(directory.path().join("ca.crt"), ca.pem()).expect("its certificate");
        let issuer = Issuer::new(params, key);
        let papers = Self { directory };
        for name in ["worker", "mirror", "renewed", "ann", "late"] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
            params.distinguished_name.push(DnType::CommonName, name);
            if name == "late" {
                params.not_after = date_time_ymd(2001, 1, 1);
            }
            let certificate = params.signed_by(&key, &issuer).expect("a certificate");
            fs::write(papers.path(&format!("{name}.crt")), certificate.pem()).expect("a certificate");
            fs::write(papers.path(&format!("{name}.key")), key.serialize_pem()).expect("a key");
            fs::set_permissions(papers.path(&format!("{name}.key")), fs::Permissions::from_mode(0o600)).expect("mode");
        }
        papers
    }

    /// A certificate of `localhost` that has signed itself, as an authority may, as PostgreSQL's manual has one made; and
    /// its key.
    pub fn signs_itself(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let (at, key_at) = (self.path("itself.crt"), self.path("itself.key"));
        fs::write(&at, certificate.pem()).expect("a certificate");
        fs::write(&key_at, key.serialize_pem()).expect("a key");
        fs::set_permissions(&key_at, fs::Permissions::from_mode(0o600)).expect("mode");
        (at, key_at)
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// A worker that shows its certificate of them, once it is its turn.
    pub async fn worker(&self, hba: &str, prepared: &str) -> TlsWorker {
        TlsWorker::start(&self.path("worker.crt"), &self.path("worker.key"), hba, prepared).await
    }

    /// TLS for clients, as the configuration document has it.
    pub fn clients(&self, certificate: &str, more: &str) -> String {
        let (certificate, key) = (self.path(&format!("{certificate}.crt")), self.path(&format!("{certificate}.key")));
        format!("clientTls: {{ certificate: {certificate}, key: {key}{more} }}\n")
    }

    /// Agrees on TLS, and on a protocol inside where one is named.
    pub async fn handshake(&self, stream: TcpStream, protocol: Option<&[u8]>) -> io::Result<Encrypted> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.crt")).expect("an authority");
        roots.add(ca).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocol.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").expect("a name"), stream).await
    }
}
