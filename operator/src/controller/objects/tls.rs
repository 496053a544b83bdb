//! The experiment's certificates: an authority of its own, and one certificate each for the operator,
//! the mirror and the arms. The authority's key is forgotten as soon as the three are signed.

use std::collections::BTreeMap;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::{Kind, Object, object};
use crate::controller::{fit::Fit, names::Names};

/// The authority's certificate in the Secret.
pub const CA: &str = "ca.crt";

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(&'static str);

/// The operator's: it only asks.
pub const OPERATOR: Holder = Holder("operator");
/// The mirror's.
pub const MIRROR: Holder = Holder("mirror");
/// The arms'.
pub const ARM: Holder = Holder("arm");

impl Holder {
    /// The certificate's key in the Secret.
    pub fn certificate(self) -> String {
        format!("{}.crt", self.0)
    }

    /// The private key's key in the Secret.
    pub fn key(self) -> String {
        format!("{}.key", self.0)
    }

    /// The names that the certificate is good for. Arms may be added later, so theirs is for all.
    fn names(self, names: &Names) -> Vec<String> {
        match self {
            OPERATOR => vec!["operator".to_owned()],
            MIRROR => vec![names.dns(&names.mirror()), "mirror".to_owned()],
            _ => vec![format!("*.{}", names.dns(&names.arms())), "arm".to_owned()],
        }
    }
}

/// The Secret, with new keys.
pub fn secret(fit: &Fit<'_>) -> Result<Object, rcgen::Error> {
    let content = json!({ "type": "Opaque", "stringData": certificates(&fit.names)? });
    // What is in it is random; that it is there is all that is asked.
    Ok(object(fit, Kind::Secret, fit.names.tls(), None, &fit.names.labels(), Some("1".to_owned()), content))
}

/// New certificates and keys, PEM, by their key in the Secret.
pub fn certificates(names: &Names) -> Result<BTreeMap<String, String>, rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, format!("understudy/{}", names.experiment));
    let ca = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let mut data = BTreeMap::from([(CA.to_owned(), ca)]);
    for holder in [OPERATOR, MIRROR, ARM] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(holder.names(names))?;
        params.distinguished_name.push(DnType::CommonName, holder.0);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        data.insert(holder.certificate(), params.signed_by(&key, &issuer)?.pem());
        data.insert(holder.key(), key.serialize_pem());
    }
    Ok(data)
}
