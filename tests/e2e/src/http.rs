//! Just enough of an HTTP client to ask a running experiment for its status.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use understudy_crds::status::ShadowExperimentStatus;

const LIMIT: Duration = Duration::from_secs(10);

/// `GET path` from `HOST:PORT`: the body of a 200.
pub async fn get(address: &str, path: &str) -> io::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let answer = timeout(LIMIT, exchange).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
        _ => Err(io::Error::other(answer)),
    }
}

/// The status that the admin HTTP shows.
pub async fn status(address: &str) -> io::Result<ShadowExperimentStatus> {
    let body = get(address, "/v1/status").await?;
    serde_json::from_str(&body).map_err(io::Error::other)
}
