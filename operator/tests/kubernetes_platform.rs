//! What the platform of the mirror pod asks of the worker before any pod is told to clone it.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{fs::Permissions, net::Ipv4Addr, os::unix::fs::PermissionsExt, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::sync::watch;
use understudy_crds::{
    condition::ArmRole,
    pods::{ArmPeer, CandidatesNotice},
};
use understudy_harness::{Cluster, worker};
use understudy_operator::{
    error::{ErrorKind, Side, UserError},
    peer::identity::Identity,
    platform::{
        kubernetes::{KubernetesPlatform, PromotionWord, Word},
        local::{account::Account, door::Door, wal_hold::RunTag},
    },
};

/// Opens the platform for two arms, whose pods are not asked yet.
async fn open(cluster: &Cluster) -> Result<KubernetesPlatform, UserError> {
    let arm = |name: &str, role| ArmPeer {
        name: name.into(),
        role,
        host: format!("{name}.arms.test"),
        revision: String::new(),
    };
    let arms = [arm("baseline", ArmRole::Baseline), arm("wide", ArmRole::Candidate)];
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let none = CandidatesNotice { version: String::new(), candidates: Vec::new(), arms: arms.to_vec() };
    let ((_, promotion), (_, candidates)) = (watch::channel(PromotionWord::default()), watch::channel(none));
    let word = Word { promotion, candidates };
    let run = RunTag::of_experiment("n", "events");
    KubernetesPlatform::open(worker(cluster), run, &arms, Vec::new(), Arc::new(config), word).await
}

#[tokio::test]
async fn a_worker_that_lets_clones_in_over_tls_alone_is_fit() {
    let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().expect("dir");
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(["worker".to_owned()]).expect("a name").self_signed(&key);
    let certificate = certificate.expect("a certificate").pem();
    let identity =
        Identity::of_texts("a test", certificate.as_bytes(), certificate.as_bytes(), key.serialize_pem().as_bytes());
    let account = Account::detect().expect("an account");
    let door = Door::make(Ipv4Addr::LOCALHOST.into(), &identity, &directory.path().join("tls"), &account);
    let with_tls = |hba: &str| {
        let files = door.as_ref().expect("certificates").settings();
        let builder = Cluster::builder().setting("ssl", "on").hba(hba);
        files.iter().fold(builder, |builder, (name, value)| builder.setting(name, value))
    };
    let sessions = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
    let clones = "hostssl replication all 127.0.0.1/32 trust\n";
    open(&with_tls(&format!("{sessions}{clones}")).start().await).await.expect("a fit worker");
    let Err(error) = open(&with_tls(sessions).start().await).await else { panic!("nobody may clone it") };
    assert_eq!((error.kind, error.side), (ErrorKind::Refused, Side::Worker), "{error}");
}

#[tokio::test]
async fn an_unfit_worker_is_told_before_anything_is_cloned() {
    open(&Cluster::start().await).await.expect("a fit worker");
    let everybody = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
    for (name, value, hba, kind, expected) in [
        ("max_wal_senders", "1", None, ErrorKind::Unfit, "max_wal_senders = 1, 1 of them free; 2 are needed"),
        ("max_replication_slots", "0", None, ErrorKind::Unfit, "max_replication_slots = 0"),
        ("synchronous_standby_names", "*", None, ErrorKind::Unfit, "takes any standby"),
        ("work_mem", "4MB", Some(everybody), ErrorKind::Refused, "host replication postgres NETWORK-OF-THE-PODS"),
    ] {
        let builder = Cluster::builder().setting(name, value);
        let builder = if let Some(lines) = hba { builder.hba(lines) } else { builder };
        let cluster = builder.start().await;
        let Err(error) = open(&cluster).await else { panic!("{name} = {value} is taken") };
        assert_eq!((error.kind, error.side), (kind, Side::Worker), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.ends_with("nothing was changed"), "{text}");
    }
}
