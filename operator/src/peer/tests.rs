//! Requests between two who have certificates of one experiment, and from those who have not.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use axum::{
    Json, Router,
    http::StatusCode,
    routing::{get, post},
};
use kube::core::ObjectMeta;
use tokio::net::TcpListener;
use understudy_crds::ShadowExperiment;

use super::{
    http::{HttpError, Peer},
    identity::{Identity, expecting},
};
use crate::{
    controller::{
        names::Names,
        objects::tls::{CA, Holder, MIRROR, OPERATOR, certificates},
    },
    pod::http::serve,
};

const LIMIT: Duration = Duration::from_secs(5);
const HOST: &str = "127.0.0.1";

fn texts() -> BTreeMap<String, String> {
    let metadata = ObjectMeta { name: Some("events".into()), namespace: Some("n".into()), ..ObjectMeta::default() };
    let spec = serde_json::from_str(r#"{ "target": {} }"#).unwrap();
    certificates(&Names::of(&ShadowExperiment { metadata, spec, status: None }, None)).unwrap()
}

fn identity(texts: &BTreeMap<String, String>, holder: Holder) -> Identity {
    let text = |key: &str| texts[key].as_bytes();
    Identity::of_texts("a test", text(CA), text(&holder.certificate()), text(&holder.key()))
}

async fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn router() -> Router {
    Router::new()
        .route("/number", get(|| async { Json(7) }))
        .route("/order", post(|Json(order): Json<u8>| async move { Json(order) }))
        .route("/refused", post(|| async { (StatusCode::CONFLICT, "not now\n") }))
        .route("/slow", get(std::future::pending::<()>))
}

#[tokio::test]
async fn two_with_certificates_of_one_experiment_understand_each_other() {
    let texts = texts();
    let (listener, port) = listening().await;
    tokio::spawn(serve(listener, identity(&texts, MIRROR).server().unwrap(), router()));
    let operator = identity(&texts, OPERATOR).client().unwrap();
    let mirror = Peer::new(HOST, port, expecting("mirror", operator.clone()).unwrap());
    assert_eq!(mirror.get::<u8>("/number", LIMIT).await, Ok(7));
    assert_eq!(mirror.post("/order", &9, LIMIT).await, Ok(()));
    let refused = HttpError::Refused { status: 409, text: "not now".into() };
    assert_eq!(mirror.post_nothing("/refused", LIMIT).await, Err(refused));
    assert!(matches!(mirror.get::<bool>("/number", LIMIT).await, Err(HttpError::Unreadable(_))));
    let short = Duration::from_millis(100);
    assert_eq!(mirror.get_bytes("/slow", short).await, Err(HttpError::TimedOut(short)));

    let another = Peer::new(HOST, port, expecting("arm", operator).unwrap());
    let stranger =
        Peer::new(HOST, port, expecting("mirror", identity(&self::texts(), OPERATOR).client().unwrap()).unwrap());
    for (who, peer) in [("another name", another), ("a stranger", stranger), ("nobody", Peer::plain(HOST, port))] {
        let answer = peer.get::<u8>("/number", LIMIT).await;
        assert!(matches!(answer, Err(HttpError::Connection(_))), "{who}: {answer:?}");
    }
}

#[tokio::test]
async fn what_is_nobodys_secret_is_asked_in_plain_text() {
    let (listener, port) = listening().await;
    tokio::spawn(async move { axum::serve(listener, router()).await });
    assert_eq!(Peer::plain(HOST, port).get::<u8>("/number", LIMIT).await, Ok(7));
}

#[test]
fn certificates_that_are_missing_are_told_with_their_place() {
    let texts = texts();
    for missing in [CA.to_owned(), OPERATOR.certificate(), OPERATOR.key()] {
        let mut broken = texts.clone();
        broken.insert(missing.clone(), String::new());
        let error = identity(&broken, OPERATOR).client().expect_err("something is missing").to_string();
        assert!(error.starts_with("the certificates in a test can't be used: "), "{missing}: {error}");
    }
    assert!(expecting("no name", identity(&texts, OPERATOR).client().unwrap()).is_err());
}
