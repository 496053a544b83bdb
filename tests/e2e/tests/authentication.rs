//! How clients prove who they are, passed through: each way that `pg_hba.conf` has of asking (trust, password, md5,
//! SCRAM-SHA-256), each with the right password, a wrong one and none, with libpq and with tokio-postgres. What a
//! client is told, and what goes over the wire, is the same direct and through the mirror; the arms, which ask for
//! nothing, play what those users did; and no password is ever said by the mirror. Channel binding is in `tls.rs`.

#![expect(clippy::expect_used, reason = "a test that can't have what it needs has failed")]

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};
use understudy_e2e::{
    http,
    recorder::{Conversation, Recorder, differences},
    transcript::without_port,
    twins::{Twins, address},
};

const LIMIT: Duration = Duration::from_secs(30);
const RIGHT: &str = "open sesame ä";
const WRONG: &str = "closed sesame ü";

/// Who is asked for what.
const HBA: &str = "local all postgres trust
host all postgres 127.0.0.1/32 trust
host all trusted 127.0.0.1/32 trust
host all plain 127.0.0.1/32 password
host all hashed 127.0.0.1/32 md5
host all salted 127.0.0.1/32 scram-sha-256
# Asked by md5, whose password is kept for SCRAM: the server asks for that.
host all changed 127.0.0.1/32 md5
# Asked for SCRAM, whose password is kept as md5: nobody gets in.
host all behind 127.0.0.1/32 scram-sha-256
host all forgotten 127.0.0.1/32 scram-sha-256
host all expired 127.0.0.1/32 scram-sha-256
host all barred 127.0.0.1/32 reject
";

/// The arms have the same users, who are never asked there.
const USERS: &str = "SET password_encryption = 'md5';
CREATE ROLE hashed LOGIN PASSWORD 'open sesame ä';
CREATE ROLE behind LOGIN PASSWORD 'open sesame ä';
SET password_encryption = 'scram-sha-256';
CREATE ROLE trusted LOGIN;
CREATE ROLE plain LOGIN PASSWORD 'open sesame ä';
CREATE ROLE salted LOGIN PASSWORD 'open sesame ä';
CREATE ROLE changed LOGIN PASSWORD 'open sesame ä';
CREATE ROLE expired LOGIN PASSWORD 'open sesame ä' VALID UNTIL '2001-01-01';
CREATE ROLE forgotten LOGIN;
CREATE ROLE barred LOGIN;
CREATE TABLE visit (who text DEFAULT current_user, client text);
GRANT INSERT, SELECT ON visit TO PUBLIC;";

/// Each user, and whether they get in with the right password, a wrong one, and none.
const USERS_AND_FATES: [(&str, [bool; 3]); 11] = [
    ("trusted", [true, true, true]),
    ("plain", [true, false, false]),
    ("hashed", [true, false, false]),
    ("salted", [true, false, false]),
    ("changed", [true, false, false]),
    ("behind", [false, false, false]),
    ("forgotten", [false, false, false]),
    ("expired", [false, false, false]),
    ("barred", [false, false, false]),
    ("nobody", [false, false, false]),
    ("postgres", [true, true, true]),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum With {
    Psql,
    TokioPostgres,
}

/// A session of a user: who the server takes them for, or why not.
async fn session(
    with: With,
    psql: &Path,
    at: SocketAddr,
    user: &str,
    password: Option<&str>,
) -> Result<String, String> {
    let visit = format!("INSERT INTO visit (client) VALUES ('{with:?}') RETURNING who");
    match with {
        With::Psql => {
            let mut command = Command::new(psql);
            let dsn = format!("host=127.0.0.1 port={} dbname=postgres user={user}", at.port());
            command.args(["-X", "-w", "-qAt", "-c", &visit, &dsn]).env_remove("PGPASSWORD").stdin(Stdio::null());
            // Nor from a file of whoever runs this.
            command.envs(password.map(|password| ("PGPASSWORD", password))).env("PGPASSFILE", "/dev/null");
            let done = command.kill_on_drop(true).output().await.expect("psql");
            let text = |bytes: &[u8]| without_port(bytes, at.port());
            if done.status.success() { Ok(text(&done.stdout).trim().to_owned()) } else { Err(text(&done.stderr)) }
        }
        With::TokioPostgres => {
            let mut config = Config::new();
            config.host("127.0.0.1").port(at.port()).user(user).dbname("postgres");
            if let Some(password) = password {
                config.password(password);
            }
            let (client, connection) =
                config.connect(NoTls).await.map_err(|e| format!("{e}: {:?}", e.as_db_error()))?;
            let connection = tokio::spawn(connection);
            // Prepared statements are numbered by the process.
            let who = client.simple_query(&visit).await.map_err(|e| e.to_string()).map(|messages| {
                let row = messages.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                    _ => None,
                });
                row.unwrap_or_default()
            });
            drop(client);
            // Its last words are on the wire then.
            connection.await.expect("its task").expect("an orderly end");
            who
        }
    }
}

async fn recorded(
    with: With,
    psql: &Path,
    server: SocketAddr,
    user: &str,
    password: Option<&str>,
) -> (Result<String, String>, Vec<Conversation>) {
    let recorder = Recorder::start(server).await;
    let asked = session(with, psql, recorder.address(), user, password);
    let told = timeout(LIMIT, asked).await.expect("an answer in time");
    (told, recorder.finish(LIMIT).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_log_in_is_the_same_direct_and_through_the_mirror() {
    let twins = Twins::start(|builder| builder.hba(HBA), USERS).await;
    let psql = twins.direct.server().spec().binaries.program("psql");
    let (mut wrong, mut visits) = (Vec::new(), 0);
    for with in [With::Psql, With::TokioPostgres] {
        for (user, fates) in USERS_AND_FATES {
            for (password, fate) in [Some(RIGHT), Some(WRONG), None].into_iter().zip(fates) {
                let (direct, on_wire) = recorded(with, &psql, address(&twins.direct), user, password).await;
                let (through, relayed) = recorded(with, &psql, twins.through, user, password).await;
                let who = format!("{user} by {with:?} with {password:?}");
                let found = differences(&on_wire, &relayed);
                if direct != through || direct.is_ok() != fate || !found.is_empty() {
                    wrong.push(format!("{who}: {direct:?}, {through:?}\n{}", found.join("\n")));
                }
                if fate {
                    assert_eq!(direct.as_deref(), Ok(user), "{who}");
                    visits += 1;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The arms let the mirror in as the same users: whose visit it was is written down by each server.
    for arm in twins.expect_level(&[]).await {
        assert!(arm.divergence.values().all(|count| *count == 0), "{arm:#?}");
    }
    for arm in &twins.arms {
        let counted = "SELECT count(*) FROM visit WHERE who <> 'postgres'";
        let found: i64 = arm.connect().await.query_one(counted, &[]).await.expect("a count").get(0);
        // Those of postgres, three with each client, are left out.
        assert_eq!(found, visits - 6);
    }
    let mut said = String::new();
    for path in ["/metrics", "/v1/status", "/readyz"] {
        said.push_str(&http::get(&twins.admin, path).await.expect("the admin HTTP"));
    }
    let ended = twins.end().await;
    said.push_str(&ended.transcript());
    for secret in [RIGHT, WRONG, "sesame"] {
        assert!(!said.contains(secret), "{said}");
    }
}
