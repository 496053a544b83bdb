//! tokio-postgres at its own kind of work: statements prepared and pipelined, types that it asks the catalogue
//! for, portals, COPY both ways, notices and notifications, cancels. Where the server is, libpq's variables say.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program that tells what it was told, or fails")]

use std::{
    env,
    error::Error,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_postgres::{
    AsyncMessage, Client, Column, Config, NoTls, SimpleQueryMessage, Statement,
    types::{Kind, ToSql, Type},
};

const SCHEMA: &str = "DROP SCHEMA IF EXISTS d_tokio CASCADE; CREATE SCHEMA d_tokio;
    CREATE TYPE d_tokio.mood AS ENUM ('sad', 'happy');
    CREATE DOMAIN d_tokio.small AS int CHECK (VALUE < 1000);
    CREATE TYPE d_tokio.pair AS (a int, b d_tokio.mood);
    CREATE TABLE d_tokio.item (id serial PRIMARY KEY, name text UNIQUE, size d_tokio.small, mood d_tokio.mood,
        pairs d_tokio.pair[], raw bytea, real float8);";
/// The first row comes when the second one has filled the server's buffer; then it sleeps.
const SLOW: &str = "SELECT repeat('x', 100000) FROM generate_series(1, 2) UNION ALL SELECT pg_sleep(30)::text";

type Done = Result<(), Box<dyn Error>>;
type Heard = Arc<Mutex<Vec<String>>>;

fn failed(error: &tokio_postgres::Error) {
    match error.as_db_error() {
        Some(said) => println!("error {} {} {:?}", said.code().code(), said.message(), said.detail()),
        None => println!("error {error}"),
    }
}

fn told(heard: &Heard) {
    for line in heard.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        println!("{line}");
    }
}

async fn connect(database: Option<&str>) -> Result<(Client, Heard), tokio_postgres::Error> {
    let variable = |name: &str| env::var(name).expect("where the server is");
    let (host, port, user) = (variable("PGHOST"), variable("PGPORT"), variable("PGUSER"));
    let mut config = Config::new();
    config.host(host).port(port.parse().expect("a port")).user(user).options("-c search_path=d_tokio,public");
    config.dbname(database.unwrap_or(&variable("PGDATABASE")));
    if let Ok(password) = env::var("PGPASSWORD") {
        config.password(password);
    }
    let (client, mut connection) = config.connect(NoTls).await?;
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Some(Ok(message)) = future::poll_fn(|context| connection.poll_message(context)).await {
            let line = match message {
                AsyncMessage::Notice(note) => format!("notice {} {}", note.severity(), note.message()),
                AsyncMessage::Notification(note) => format!("notified {} {}", note.channel(), note.payload()),
                _ => continue,
            };
            hears.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    Ok((client, heard))
}

/// Asks for a cancel, and waits as libpq does until the server has closed that connection: it signals twice, and the
/// second time could meet the next statement.
async fn cancel(client: &Client) -> Done {
    let variable = |name: &str| env::var(name).expect("where the server is");
    let mut stream = TcpStream::connect(format!("{}:{}", variable("PGHOST"), variable("PGPORT"))).await?;
    client.cancel_token().cancel_query_raw(&mut stream, NoTls).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn simple(client: &Client, sql: &str) {
    match client.simple_query(sql).await {
        Err(error) => failed(&error),
        Ok(messages) => {
            for message in messages {
                match message {
                    SimpleQueryMessage::Row(row) => {
                        let columns: Vec<_> = (0..row.len()).map(|index| row.get(index)).collect();
                        println!("row {columns:?}");
                    }
                    SimpleQueryMessage::CommandComplete(rows) => println!("complete {rows}"),
                    _ => {}
                }
            }
        }
    }
}

async fn count(client: &Client) -> Result<i64, tokio_postgres::Error> {
    Ok(client.query_one("SELECT count(*) FROM item", &[]).await?.get(0))
}

async fn statements(client: &Client) -> Done {
    println!("--- statements and the types that they speak of");
    let looked = client.prepare("SELECT * FROM item WHERE mood = $1 OR pairs = $2").await?;
    let shape = |kind: &Kind| format!("{kind:?}").split('(').next().unwrap_or_default().to_owned();
    for kind in looked.params().iter().chain(looked.columns().iter().map(Column::type_)) {
        println!("{} {}", kind.name(), shape(kind.kind()));
    }
    let insert = "INSERT INTO item (name, size, mood, raw, real) VALUES ($1, $2::int, 'sad', $3, $4) RETURNING id";
    let insert = client.prepare(insert).await?;
    for (name, raw) in [("ä'\\", vec![0, 1, 255]), ("second", Vec::new()), ("second", Vec::new())] {
        let parameters: [&(dyn ToSql + Sync); 4] = [&name, &None::<i32>, &raw, &0.3_f64];
        match client.query(&insert, &parameters).await {
            Ok(rows) => println!("id {:?}", rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>()),
            Err(error) => failed(&error),
        }
    }
    let typed = client.prepare_typed("SELECT $1 + 1, $2::text", &[Type::INT8]).await?;
    let row = client.query_one(&typed, &[&41_i64, &"text"]).await?;
    println!("{} {:?}", row.get::<_, i64>(0), row.get::<_, Option<&str>>(1));
    for wrong in ["SELECT nothing FROM item", "SELECT 1; SELECT 2", "SELEC"] {
        if let Err(error) = client.prepare(wrong).await {
            failed(&error);
        }
    }
    println!("nothing: {}", client.execute("", &[]).await?);
    println!("updated {}", client.execute("UPDATE item SET size = 7 WHERE id = $1", &[&1_i32]).await?);
    simple(client, "SELECT 1; UPDATE item SET size = 8 WHERE id = 1; SELECT 1 / 0; SELECT 3").await;
    Ok(())
}

async fn pipelines(client: &Client) -> Done {
    println!("--- pipelines, with an error in the middle");
    let insert: Statement = client.prepare("INSERT INTO item (name) VALUES ($1)").await?;
    let names: Vec<String> = (0..100).map(|n| format!("piped {}", if n == 50 { 49 } else { n })).collect();
    let done = future::join_all(names.iter().map(|name| async { client.execute(&insert, &[name]).await })).await;
    println!("{} of {} were made", done.iter().filter(|one| one.is_ok()).count(), done.len());
    done.iter().filter_map(|one| one.as_ref().err()).for_each(failed);
    let (one, two) = (client.prepare("SELECT 1").await?, client.prepare("SELECT 1 / 0").await?);
    let three = client.prepare("SELECT count(*)::int FROM item").await?;
    let asked = [&one, &two, &three].map(|statement| client.query_one(statement, &[]));
    for answer in future::join_all(asked).await {
        match answer {
            Ok(row) => println!("{}", row.get::<_, i32>(0)),
            Err(error) => failed(&error),
        }
    }
    Ok(())
}

async fn portals(client: &mut Client) -> Done {
    println!("--- portals, savepoints, a transaction that is dropped");
    let mut transaction = client.transaction().await?;
    let portal = transaction.bind("SELECT id FROM item WHERE id > $1 ORDER BY id", &[&3_i32]).await?;
    for rows in [10, 30, 0, 5] {
        let rows = transaction.query_portal(&portal, rows).await?;
        println!("{} rows from {:?}", rows.len(), rows.first().map(|row| row.get::<_, i32>(0)));
    }
    let nested = transaction.savepoint("here").await?;
    if let Err(error) = nested.execute("INSERT INTO item (size) VALUES (4711)", &[]).await {
        failed(&error);
    }
    nested.rollback().await?;
    transaction.execute("DELETE FROM item WHERE id = 2", &[]).await?;
    transaction.commit().await?;
    let dropped = client.transaction().await?;
    dropped.execute("DELETE FROM item", &[]).await?;
    drop(dropped);
    let strict =
        client.build_transaction().read_only(true).isolation_level(tokio_postgres::IsolationLevel::Serializable);
    let strict = strict.start().await?;
    if let Err(error) = strict.execute("DELETE FROM item", &[]).await {
        failed(&error);
    }
    strict.rollback().await?;
    println!("{}", count(client).await?);
    Ok(())
}

async fn copies(client: &Client) -> Done {
    println!("--- COPY in and out");
    let mut into = pin!(client.copy_in("COPY item (name, size) FROM STDIN").await?);
    let lines = (0..200).map(|n| Ok(bytes::Bytes::from(format!("copied {n}\t{n}\n"))));
    into.send_all(&mut stream::iter(lines)).await?;
    println!("rows {}", into.finish().await?);
    for broken in ["copied\tno number\n", "copied 1\t1\n", "copied\t4711\n"] {
        let mut into = pin!(client.copy_in("COPY item (name, size) FROM STDIN").await?);
        into.send(bytes::Bytes::from(broken)).await?;
        if let Err(error) = into.finish().await {
            failed(&error);
        }
    }
    let mut given_up = Box::pin(client.copy_in("COPY item (name, size) FROM STDIN").await?);
    given_up.send(bytes::Bytes::from("given up\t1\n")).await?;
    drop(given_up);
    for how in ["csv", "binary"] {
        let sql = format!("COPY (SELECT id, name, size FROM item ORDER BY id) TO STDOUT (FORMAT {how})");
        let blocks: Vec<_> = client.copy_out(&sql).await?.try_collect().await?;
        println!("{} blocks, {} bytes", blocks.len(), blocks.iter().map(bytes::Bytes::len).sum::<usize>());
    }
    println!("{}", count(client).await?);
    Ok(())
}

async fn aside(client: &Client, heard: &Heard) -> Done {
    println!("--- notices, notifications to oneself, cancels");
    client.batch_execute("LISTEN here; NOTIFY here, 'hello'").await?;
    client.execute("SELECT pg_notify('here', $1)", &[&"ä"]).await?;
    client.batch_execute("DO $$ BEGIN RAISE NOTICE 'look'; RAISE WARNING 'mind'; END $$").await?;
    client.batch_execute("DROP TABLE IF EXISTS never_was").await?;
    told(heard);
    let mut rows = pin!(client.query_raw(SLOW, Vec::<i32>::new()).await?);
    let mut first = true;
    while let Some(row) = rows.next().await {
        match row {
            Ok(row) => println!("{} bytes", row.get::<_, &str>(0).len()),
            Err(error) => failed(&error),
        }
        if std::mem::take(&mut first) {
            cancel(client).await?;
        }
    }
    simple(client, "SELECT 'awake'").await;
    client.batch_execute("SET statement_timeout = '50ms'").await?;
    simple(client, "SELECT pg_sleep(30)").await;
    client.batch_execute("RESET statement_timeout").await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let (mut client, heard) = connect(None).await?;
    client.batch_execute(SCHEMA).await?;
    told(&heard);
    statements(&client).await?;
    pipelines(&client).await?;
    portals(&mut client).await?;
    copies(&client).await?;
    aside(&client, &heard).await?;
    if let Err(error) = connect(Some("nowhere")).await {
        failed(&error);
    }
    println!("--- done");
    Ok(())
}
