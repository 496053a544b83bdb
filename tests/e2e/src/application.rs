//! An application with open-loop sessions that keeps a ledger: what it was told is written must be
//! there, whatever happened in between.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_postgres::{Client, Config, Error, NoTls, error::SqlState};

/// Customers in the table of orders.
pub const CUSTOMERS: i64 = 5_000;
/// How long one statement may take before the test has failed.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
/// One statement in so many is a write.
const WRITE_EVERY: i64 = 4;

const TABLES: &str = "
    CREATE TABLE orders (id int PRIMARY KEY, customer bigint, amount int, note text);
    INSERT INTO orders SELECT i, i % 5000, i % 97, repeat('x', 20) FROM generate_series(1, 60000) i;
    CREATE TABLE ledger (session bigint, entry bigint, PRIMARY KEY (session, entry))";

/// Makes the application's tables: orders without an index on the customer, and the ledger.
pub async fn create_tables(client: &Client) {
    client.batch_execute(TABLES).await.expect("tables");
    // Nothing is left for the first reader to do.
    client.batch_execute("VACUUM (FREEZE, ANALYZE) orders").await.expect("settled tables");
}

/// Sessions at work.
#[derive(Debug)]
pub struct Application {
    stop: watch::Sender<bool>,
    sessions: Vec<JoinHandle<Served>>,
}

/// What the sessions were served.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Reads that were answered.
    pub reads: i64,
    /// Writes that were acknowledged.
    pub writes: i64,
    /// Sessions that the server took leave of in good order: `admin_shutdown`.
    pub goodbyes: usize,
    /// What went wrong, one line each.
    pub errors: Vec<String>,
}

impl Served {
    /// A session was ended by the other side.
    fn ended(&mut self, session: i64, why: Option<Error>) {
        match why {
            Some(why) if why.code() == Some(&SqlState::ADMIN_SHUTDOWN) => self.goodbyes += 1,
            why => self.errors.push(format!("session {session}: {why:?}")),
        }
    }
}

impl Application {
    /// Opens the sessions; each sends a statement every `period`, whether the last one was slow or not.
    pub async fn start(through: SocketAddr, sessions: usize, period: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut started = Vec::new();
        for number in (0..).take(sessions) {
            let session = session(through, "postgres").await.expect("a session through the mirror");
            started.push(tokio::spawn(serve(session, number, period, stopped.clone())));
        }
        Self { stop, sessions: started }
    }

    /// Ends the sessions and adds up what they were served.
    pub async fn stop(self) -> Served {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Waits for the server to end every session, and adds up what they were served.
    pub async fn ended(self) -> Served {
        let mut all = Served::default();
        for session in self.sessions {
            let served = timeout(STATEMENT_LIMIT * 2, session).await.expect("the session's end").expect("a session");
            all.reads += served.reads;
            all.writes += served.writes;
            all.goodbyes += served.goodbyes;
            all.errors.extend(served.errors);
        }
        all
    }
}

/// A connection to PostgreSQL, or to the mirror in front of it.
pub async fn connect(address: SocketAddr) -> Result<Client, Error> {
    // What goes wrong in the connection the client's next call says.
    connect_as(address, "postgres").await
}

/// The same, as somebody else.
pub async fn connect_as(address: SocketAddr, user: &str) -> Result<Client, Error> {
    session(address, user).await.map(|session| session.client)
}

struct Session {
    client: Client,
    connection: JoinHandle<Result<(), Error>>,
}

async fn session(address: SocketAddr, user: &str) -> Result<Session, Error> {
    let mut config = Config::new();
    config.host(address.ip().to_string()).port(address.port()).user(user).dbname("postgres");
    config.connect_timeout(Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await?;
    Ok(Session { client, connection: tokio::spawn(connection) })
}

async fn serve(session: Session, number: i64, period: Duration, mut stopped: watch::Receiver<bool>) -> Served {
    let Session { client, mut connection } = session;
    // Prepared once: a statement that is prepared anew is also closed anew, with nobody there to hear
    // what the server has to say to that.
    let write = client.prepare("INSERT INTO ledger VALUES ($1, $2)").await.expect("a prepared write");
    let read = client.prepare("SELECT count(*), sum(amount) FROM orders WHERE customer = $1").await;
    let read = read.expect("a prepared read");
    let mut served = Served::default();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0.. {
        tokio::select! {
            biased;
            // The server takes leave of a session that is idle.
            end = &mut connection => {
                served.ended(number, end.expect("its end").err());
                break;
            }
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = ticks.tick() => {}
        }
        let answered = async {
            if n % WRITE_EVERY == 0 {
                client.execute(&write, &[&number, &served.writes]).await?;
                served.writes += 1;
            } else {
                client.query_one(&read, &[&((n * 37 + number * 11) % CUSTOMERS)]).await?;
                served.reads += 1;
            }
            Ok::<_, Error>(())
        };
        let Ok(result) = timeout(STATEMENT_LIMIT, answered).await else {
            served.errors.push(format!("session {number}: no answer within {STATEMENT_LIMIT:?}"));
            break;
        };
        if let Err(error) = result {
            // A statement that came after the server took leave learns why from the connection.
            let why = if error.is_closed() { connection.await.expect("its end").err() } else { Some(error) };
            served.ended(number, why);
            break;
        }
    }
    served
}

/// The number of entries in the ledger of a server.
pub async fn ledger(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM ledger", &[]).await.expect("the ledger").get(0)
}
