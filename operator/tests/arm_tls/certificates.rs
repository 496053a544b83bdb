//! Certificates as the operator makes them, and who has which.

use std::{collections::BTreeMap, sync::Arc};

use kube::core::ObjectMeta;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use understudy_crds::ShadowExperiment;
use understudy_mirror::tls::TlsClient;
use understudy_operator::{
    controller::{names::Names, objects::tls},
    peer::identity::{Identity, expecting},
};

/// The certificates of an experiment, as the operator makes them.
pub struct Certificates {
    /// The names that the certificates are good for.
    pub names: Names,
    texts: BTreeMap<String, String>,
}

impl Certificates {
    /// New ones.
    pub fn new() -> Self {
        // As long as a name may be.
        let metadata = ObjectMeta { name: Some("x".repeat(63)), namespace: Some("n".into()), ..ObjectMeta::default() };
        let spec = serde_json::from_str(r#"{ "target": {} }"#).expect("a document");
        let names = Names::of(&ShadowExperiment { metadata, spec, status: None }, Some("cluster.local"));
        let texts = tls::certificates(&names).expect("certificates");
        Self { names, texts }
    }

    fn text(&self, key: &str) -> &[u8] {
        self.texts.get(key).expect("a certificate").as_bytes()
    }

    /// Somebody with a certificate of ours who trusts others.
    pub fn trusting(&self, other: &Self, holder: tls::Holder) -> Identity {
        let (certificate, key) = (self.text(&holder.certificate()), self.text(&holder.key()));
        Identity::of_texts("a test", other.text(tls::CA), certificate, key)
    }

    /// Somebody of this experiment.
    pub fn identity(&self, holder: tls::Holder) -> Identity {
        self.trusting(self, holder)
    }

    /// The mirror, on its way to the baseline.
    pub fn mirror(&self) -> TlsClient {
        client(&self.identity(tls::MIRROR), &self.names.arm_host("baseline"))
    }

    /// Somebody without a certificate.
    pub fn nobody(&self) -> TlsClient {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.text(tls::CA)).expect("PEM")).expect("an authority");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        expecting(&self.names.arm_host("baseline"), Arc::new(config)).expect("a name")
    }
}

/// Somebody who expects a name.
pub fn client(identity: &Identity, name: &str) -> TlsClient {
    expecting(name, identity.client().expect("certificates")).expect("a name")
}
