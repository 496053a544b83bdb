//! The demo's worker: a PostgreSQL server of its own, in the demo's directory, that stands for
//! somebody's production. What it leaves when it is killed is found by the next demo.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use tokio_postgres::{Client, Config, NoTls};

use crate::{
    error::{ErrorKind, Side, UserError},
    platform::local::{
        account::Account,
        binaries::Binaries,
        initdb::{SUPERUSER, make_cluster},
        leftovers::{Cleared, Leftovers},
        place::{Place, private_directory},
        server::{START_LIMIT, Server, ServerSpec},
    },
};

const DATABASE: &str = "postgres";
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Settings of a small production server. Checkpoints are spread wide, so that the two minutes of a
/// demo do not consist of them.
const SETTINGS: &str = "\
shared_buffers = 256MB
max_connections = 120
max_wal_size = 2GB
checkpoint_timeout = 15min
listen_addresses = '127.0.0.1'
wal_level = replica
max_wal_senders = 10
work_mem = 16MB
jit = off
";
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n";

/// The demo's worker.
#[derive(Debug)]
pub struct DemoWorker {
    // The server stops before its directories go.
    server: Option<Server>,
    place: Place,
    account: Account,
    binaries: Binaries,
    port: u16,
    leftovers: Leftovers,
}

impl DemoWorker {
    /// Clears what an earlier demo left in `out`, and finds what a new one needs.
    pub async fn open(out: &Path) -> Result<(Self, Vec<Cleared>), UserError> {
        let directory = out.join("worker");
        fs::create_dir_all(&directory).map_err(|e| UserError::file("make the demo's directory", &directory, &e))?;
        let (leftovers, cleared) = Leftovers::find_and_clear(&directory)?;
        let account = Account::detect()?;
        let binaries = Binaries::newest(&account).await?;
        let place = Place::choose(&directory, &account).await?;
        let port = free_port()?;
        Ok((Self { server: None, place, account, binaries, port, leftovers }, cleared))
    }

    /// Starts the server with an empty database; its product and version.
    pub async fn start(&mut self) -> Result<String, UserError> {
        let (data_dir, templates) = (self.place.data.join("worker"), self.place.data.join("template"));
        for directory in [&self.place.data, &self.place.sockets] {
            self.leftovers.directory(directory)?;
        }
        self.leftovers.data_directory(&data_dir)?;
        self.place.make(&self.account)?;
        private_directory(&templates, &self.account)?;
        make_cluster(&self.binaries, &self.account, &templates, &data_dir).await?;
        for (name, text) in [("postgresql.conf", SETTINGS), ("pg_hba.conf", HBA)] {
            let path = data_dir.join(name);
            fs::write(&path, text).map_err(|e| UserError::file("configure the demo's worker", &path, &e))?;
        }
        let spec = ServerSpec {
            name: "the demo's worker".to_owned(),
            side: Side::Worker,
            binaries: self.binaries.clone(),
            account: self.account.clone(),
            data_dir,
            socket_dir: self.place.sockets.clone(),
            port: self.port,
            log_file: self.place.data.join("worker.log"),
            settings: Vec::new(),
        };
        let server = Server::launch(spec).await?;
        self.leftovers.process("postgres", server.pid(), server.start_time())?;
        server.wait_ready(START_LIMIT).await?;
        self.server = Some(server);
        Ok(format!("PostgreSQL {}", self.binaries.version))
    }

    /// How clients reach it directly.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port).user(SUPERUSER).dbname(DATABASE);
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Client, UserError> {
        let (client, connection) = self.config().connect(NoTls).await.map_err(|e| {
            UserError::new(ErrorKind::Unreachable, Side::Worker, "the demo's worker can't be reached").fact("reason", e)
        })?;
        // It ends with the client.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its superuser.
    pub fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// Its database.
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// Stops it and removes its files, unless they are to be kept.
    pub async fn stop(&mut self, keep: bool) -> Result<(), UserError> {
        if let Some(mut server) = self.server.take() {
            server.stop(STOP_LIMIT).await;
        }
        if keep {
            self.leftovers.keep();
            return Ok(());
        }
        self.leftovers.teardown().map(drop)
    }
}

/// The same client, at another address.
pub fn at(config: &Config, address: SocketAddr) -> Config {
    let mut moved = Config::new();
    moved.host(address.ip().to_string()).port(address.port());
    if let Some(user) = config.get_user() {
        moved.user(user);
    }
    if let Some(database) = config.get_dbname() {
        moved.dbname(database);
    }
    moved.connect_timeout(Duration::from_secs(10));
    moved
}

fn free_port() -> Result<u16, UserError> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|e| {
        UserError::new(ErrorKind::Exited, Side::Host, "no free port was found")
            .fact("reason", crate::error::plain_io(&e))
    })
}
