//! Keys and certificates: one authority for the cluster, one for requests that the API server passes on.
//! They are made anew at every start.

use std::{fs, net::IpAddr, os::unix::fs::PermissionsExt as _, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, string::Ia5String,
};

use crate::{
    failure::{Outcome, Trying},
    layout::{API_SERVICE, CONTROL_ADDRESS, Layout, NODES},
};

/// Who someone is: a certificate's names.
struct Holder<'a> {
    file: &'a str,
    name: &'a str,
    group: Option<&'a str>,
    serves: &'a [&'a str],
}

/// Makes all of them.
pub fn make(layout: &Layout) -> Outcome<()> {
    let directory = layout.pki();
    fs::create_dir_all(&directory).trying(|| format!("make {}", directory.display()))?;
    let authority = authority(&directory, "ca", "understudy-test-cluster")?;
    let front = self::authority(&directory, "front-proxy-ca", "understudy-test-cluster-front-proxy")?;
    let accounts = KeyPair::generate().trying(|| "make a key".to_owned())?;
    write(&directory.join("service-accounts.key"), &accounts.serialize_pem())?;
    write(&directory.join("service-accounts.pub"), &accounts.public_key_pem())?;

    for holder in [
        Holder { file: "admin", name: "admin", group: Some("system:masters"), serves: &[] },
        Holder { file: "apiserver-to-kubelet", name: "apiserver", group: Some("system:masters"), serves: &[] },
        client("kube-controller-manager", "system:kube-controller-manager"),
        client("kube-scheduler", "system:kube-scheduler"),
        client("kube-proxy", "system:kube-proxy"),
        client("network-policy", "understudy:network-policy"),
        Holder {
            file: "apiserver",
            name: "kube-apiserver",
            group: None,
            serves: &[
                CONTROL_ADDRESS,
                API_SERVICE,
                "127.0.0.1",
                "localhost",
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
            ],
        },
    ] {
        issue(&directory, &authority, &holder)?;
    }
    for node in NODES {
        let user = format!("system:node:{}", node.name);
        issue(
            &directory,
            &authority,
            &Holder { file: node.name, name: &user, group: Some("system:nodes"), serves: &[] },
        )?;
        let file = format!("{}-serving", node.name);
        let serves = [node.name, &node.address(), "127.0.0.1"];
        issue(&directory, &authority, &Holder { file: &file, name: node.name, group: None, serves: &serves })?;
    }
    issue(&directory, &front, &client("front-proxy-client", "front-proxy-client"))
}

const fn client<'a>(file: &'a str, name: &'a str) -> Holder<'a> {
    Holder { file, name, group: None, serves: &[] }
}

fn authority(directory: &Path, file: &str, name: &str) -> Outcome<Issuer<'static, KeyPair>> {
    let key = KeyPair::generate().trying(|| "make a key".to_owned())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = names(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let certificate = params.self_signed(&key).trying(|| format!("sign {file}"))?;
    write(&directory.join(format!("{file}.crt")), &certificate.pem())?;
    write(&directory.join(format!("{file}.key")), &key.serialize_pem())?;
    Ok(Issuer::new(params, key))
}

fn issue(directory: &Path, authority: &Issuer<'_, KeyPair>, holder: &Holder<'_>) -> Outcome<()> {
    let Holder { file, name, group, serves } = holder;
    let key = KeyPair::generate().trying(|| "make a key".to_owned())?;
    let mut params = CertificateParams::default();
    params.distinguished_name = names(name, *group);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !serves.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    for served in *serves {
        params.subject_alt_names.push(match served.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(Ia5String::try_from(*served).trying(|| format!("name {served}"))?),
        });
    }
    let certificate = params.signed_by(&key, authority).trying(|| format!("sign {file}"))?;
    write(&directory.join(format!("{file}.crt")), &certificate.pem())?;
    write(&directory.join(format!("{file}.key")), &key.serialize_pem())
}

fn names(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    if let Some(group) = group {
        names.push(DnType::OrganizationName, group);
    }
    names.push(DnType::CommonName, name);
    names
}

fn write(path: &Path, text: &str) -> Outcome<()> {
    fs::write(path, text).trying(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).trying(|| format!("protect {}", path.display()))
}
