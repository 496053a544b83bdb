//! A request for encryption inside TLS: it is one too many, and refused as the worker refuses it, whether the mirror
//! speaks TLS to the worker or not.

use understudy_e2e::{
    scenario::{GSSENC_REQUEST, SSL_REQUEST, request},
    talk::Talk,
    tls_worker::agreed,
};
use understudy_harness::wait_until;

use crate::papers::Papers;

const REFUSED: &str = "connections_refused_total{cause=\"protocol\"}";
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_encryption_inside_tls_is_refused_as_the_worker_does() {
    let papers = Papers::new();
    let worker = papers.worker(HBA, "SELECT 1").await;
    for worker_tls in ["", "workerTls: { mode: require }\n"] {
        let mirror = worker.mirror(&format!("{}{worker_tls}", papers.clients("mirror", ""))).await;
        let stream = papers.handshake(agreed(mirror.through).await, None).await.expect("TLS");
        let (mut neighbour, _) = Talk::login(stream, "postgres").await;
        for (before, code) in [SSL_REQUEST, GSSENC_REQUEST].into_iter().enumerate() {
            let mut answers = Vec::new();
            for address in [worker.address(), mirror.through] {
                let stream = papers.handshake(agreed(address).await, None).await.expect("TLS");
                let mut talk = Talk { stream };
                talk.send(&request(code)).await;
                let (said, end) = talk.end().await;
                answers.push((said.escape_ascii().to_string(), end.err().map(|error| error.kind())));
            }
            let [direct, through] = answers.try_into().expect("two");
            let why = format!("SFATAL\\x00VFATAL\\x00C0A000\\x00Munsupported frontend protocol 1234.{}", code & 0xffff);
            for (said, end) in [&direct, &through] {
                assert!(said.contains(&why), "{code} with {worker_tls:?}: {said}");
                assert_eq!(*end, direct.1);
            }
            wait_until("it is counted", || async {
                usize::try_from(mirror.metric(REFUSED).await).ok() == Some(before + 1)
            })
            .await;
            neighbour.expect_alive().await;
        }
        worker.expect_level(&mirror).await;
    }
}
