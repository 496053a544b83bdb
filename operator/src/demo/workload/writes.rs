//! What clients write: batches of events in transactions, changes of users by key, upserts, imports
//! by `COPY`, and the errors and rollbacks of an ordinary day.

use std::{
    fmt::Write as _,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{SinkExt, future::try_join_all};
use tokio_postgres::{
    SimpleQueryMessage, Transaction,
    types::{ToSql, Type},
};

use super::{
    action::{NewEvent, Protocol},
    connection::{ActionError, Connection},
    ledger::Keys,
    meter::{Kind::Write, Meter},
    session::Context,
    statements::{self as sql, Literal, with_values},
};
use crate::demo::dataset::LAST_EVENT_S;

type Done = Result<(), ActionError>;
/// A parameter of an unnamed statement.
type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// Events with their keys and times, column by column.
#[derive(Debug)]
pub(super) struct Batch {
    keys: Keys,
    ids: Vec<i64>,
    users: Vec<i32>,
    event_types: Vec<&'static str>,
    times: Vec<SystemTime>,
    properties: Vec<String>,
}

impl Batch {
    /// Gives keys to `events`, and the application's time at which they arrived.
    pub(super) fn new(events: Vec<NewEvent>, at_us: u64, context: &mut Context) -> Self {
        let keys = context.keys(events.len());
        let ids: Vec<i64> = (keys.first..=keys.last).collect();
        let times = (0..events.len() as u64).map(|n| application_time(at_us + n)).collect();
        let (mut users, mut event_types, mut properties) = (Vec::new(), Vec::new(), Vec::new());
        for NewEvent { user, event_type, properties: json } in events {
            users.push(user);
            event_types.push(event_type);
            properties.push(json);
        }
        Self { keys, ids, users, event_types, times, properties }
    }

    fn rows(&self) -> impl Iterator<Item = (i64, i32, &'static str, SystemTime, &str)> {
        let Self { keys: _, ids, users, event_types, times, properties } = self;
        let keys = ids.iter().zip(users).zip(event_types);
        keys.zip(times).zip(properties).map(|((((id, user), kind), ts), json)| (*id, *user, *kind, *ts, json.as_str()))
    }

    fn count(&self) -> i64 {
        i64::try_from(self.ids.len()).unwrap_or(0)
    }

    /// One statement with all the values in its text.
    fn as_insert(&self) -> String {
        let mut text = "INSERT INTO events (id, user_id, event_type, ts, properties) VALUES ".to_owned();
        for (n, (id, user, kind, ts, json)) in self.rows().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            // Writing to a string can't fail.
            let _ = write!(text, "{comma}({id}, {user}, '{kind}', '{}', '{json}')", timestamp(ts));
        }
        text
    }

    /// The rows in `COPY`'s text format. Neither types nor properties hold a tab or a backslash.
    fn as_copy(&self) -> Bytes {
        let mut text = String::new();
        for (id, user, kind, ts, json) in self.rows() {
            let _ = writeln!(text, "{id}\t{user}\t{kind}\t{}\t{json}", timestamp(ts));
        }
        Bytes::from(text)
    }
}

/// The application's clock: it goes on where the data ends, so that the same run sends the same rows
/// whenever it is made.
fn application_time(at_us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(LAST_EVENT_S.unsigned_abs()) + Duration::from_micros(at_us)
}

fn timestamp(ts: SystemTime) -> String {
    jiff::Timestamp::try_from(ts).map_or_else(|_| "epoch".to_owned(), |ts| ts.to_string())
}

/// A batch in a transaction, with the account's counter.
pub(super) async fn ingest(
    connection: &mut Connection,
    context: &mut Context,
    batch: Batch,
    account: i32,
    protocol: Protocol,
) -> Done {
    let meter = Arc::clone(&context.meter);
    match protocol {
        Protocol::Simple => {
            let count = with_values(sql::COUNT, &[Literal::Number(batch.count()), Literal::Number(account.into())]);
            let transaction = connection.client.transaction().await?;
            meter.time(Write, transaction.simple_query(&batch.as_insert())).await?;
            meter.time(Write, transaction.simple_query(&count)).await?;
            transaction.commit().await?;
        }
        Protocol::Unnamed => {
            let transaction = connection.client.transaction().await?;
            insert_batch(&transaction, &meter, &batch).await?;
            let values: [Value<'_>; 2] = [(&batch.count(), Type::INT8), (&account, Type::INT4)];
            meter.time(Write, transaction.execute_typed(sql::COUNT, &values)).await?;
            transaction.commit().await?;
        }
        Protocol::Named => {
            let (insert, count) = (connection.prepared(sql::INSERT_ONE).await?, connection.prepared(sql::COUNT).await?);
            let transaction = connection.client.transaction().await?;
            // All rows are sent before the first is answered.
            let (tx, insert) = (&transaction, &insert);
            let inserts = batch.rows().map(|(id, user, kind, ts, json)| {
                let meter = &meter;
                async move { meter.time(Write, tx.execute(insert, &[&id, &user, &kind, &ts, &json])).await }
            });
            try_join_all(inserts).await?;
            meter.time(Write, transaction.execute(&count, &[&batch.count(), &account])).await?;
            transaction.commit().await?;
        }
    }
    meter.transaction();
    context.ledger.events(batch.keys);
    context.ledger.counted(account, batch.count());
    context.acknowledged = Some(batch.keys.last);
    Ok(())
}

async fn insert_batch(transaction: &Transaction<'_>, meter: &Meter, batch: &Batch) -> Done {
    let Batch { keys: _, ids, users, event_types, times, properties } = batch;
    let values: [Value<'_>; 5] = [
        (ids, Type::INT8_ARRAY),
        (users, Type::INT4_ARRAY),
        (event_types, Type::TEXT_ARRAY),
        (times, Type::TIMESTAMPTZ_ARRAY),
        (properties, Type::TEXT_ARRAY),
    ];
    meter.time(Write, transaction.execute_typed(sql::INSERT_BATCH, &values)).await?;
    Ok(())
}

/// A batch that is given up at the end.
pub(super) async fn ingest_and_roll_back(
    connection: &mut Connection,
    context: &mut Context,
    batch: Batch,
    account: i32,
) -> Done {
    let meter = Arc::clone(&context.meter);
    context.ledger.refused(batch.keys);
    let count = connection.prepared(sql::COUNT).await?;
    let transaction = connection.client.transaction().await?;
    insert_batch(&transaction, &meter, &batch).await?;
    meter.time(Write, transaction.execute(&count, &[&batch.count(), &account])).await?;
    transaction.rollback().await?;
    meter.transaction();
    Ok(())
}

/// A batch by `COPY`.
pub(super) async fn import(connection: &mut Connection, context: &mut Context, batch: Batch) -> Done {
    let meter = Arc::clone(&context.meter);
    let copied = meter
        .time(Write, async {
            let mut sink = pin!(connection.client.copy_in(sql::COPY).await?);
            sink.send(batch.as_copy()).await?;
            sink.finish().await
        })
        .await?;
    if copied != batch.ids.len() as u64 {
        return Err(ActionError::Answer("COPY took another number of rows than were sent"));
    }
    meter.transaction();
    context.ledger.events(batch.keys);
    context.acknowledged = Some(batch.keys.last);
    Ok(())
}

/// Sends an event again that the server has already, after a new one: a client that did not get its
/// answer. The whole transaction is refused.
pub(super) async fn retry(connection: &mut Connection, context: &mut Context, event: NewEvent, at_us: u64) -> Done {
    let Some(known) = context.acknowledged else {
        let batch = Batch::new(vec![event], at_us, context);
        return import(connection, context, batch).await;
    };
    let meter = Arc::clone(&context.meter);
    let batch = Batch::new(vec![event.clone()], at_us, context);
    context.ledger.refused(batch.keys);
    let insert = connection.prepared(sql::INSERT_ONE).await?;
    let transaction = connection.client.transaction().await?;
    insert_batch(&transaction, &meter, &batch).await?;
    let NewEvent { user, event_type, properties } = event;
    let again =
        transaction.execute(&insert, &[&known, &user, &event_type, &application_time(at_us), &properties]).await;
    transaction.rollback().await?;
    match again.map_err(ActionError::from) {
        Err(error) if error.is_unique_violation() => {
            meter.expected_error();
            meter.transaction();
            Ok(())
        }
        Err(error) => Err(error),
        Ok(_) => Err(ActionError::Answer("a key that is taken was accepted again")),
    }
}

/// Reads and locks a user, then changes the plan.
pub(super) async fn change_plan(
    connection: &mut Connection,
    context: &mut Context,
    user: i32,
    plan: &'static str,
    protocol: Protocol,
) -> Done {
    let meter = Arc::clone(&context.meter);
    let version = match protocol {
        Protocol::Simple => {
            let key = Literal::Number(user.into());
            let transaction = connection.client.transaction().await?;
            let answer = meter.time(Write, transaction.simple_query(&with_values(sql::LOCK_USER, &[key]))).await?;
            let change = with_values(sql::SET_PLAN, &[Literal::Text(plan), key]);
            meter.time(Write, transaction.simple_query(&change)).await?;
            transaction.commit().await?;
            answer.iter().find_map(version_of_message)
        }
        Protocol::Unnamed | Protocol::Named => {
            let lock = connection.prepared(sql::LOCK_USER).await?;
            let change = connection.prepared(sql::SET_PLAN).await?;
            let transaction = connection.client.transaction().await?;
            let row = meter.time(Write, transaction.query_opt(&lock, &[&user])).await?;
            meter.time(Write, transaction.execute(&change, &[&plan, &user])).await?;
            transaction.commit().await?;
            row.and_then(|row| row.try_get::<_, i32>("version").ok())
        }
    };
    let version = version.ok_or(ActionError::Answer("a user of the data set is missing"))?;
    meter.transaction();
    context.ledger.user(user, version + 1);
    Ok(())
}

fn version_of_message(message: &SimpleQueryMessage) -> Option<i32> {
    match message {
        SimpleQueryMessage::Row(row) => row.try_get("version").ok()??.parse().ok(),
        _ => None,
    }
}

/// Changes a setting of a user by key.
pub(super) async fn change_theme(
    connection: &mut Connection,
    context: &mut Context,
    user: i32,
    theme: &'static str,
) -> Done {
    let meter = Arc::clone(&context.meter);
    let statement = connection.prepared(sql::SET_THEME).await?;
    let row = meter.time(Write, connection.client.query_one(&statement, &[&theme, &user])).await?;
    meter.transaction();
    context.ledger.user(user, row.try_get(0)?);
    Ok(())
}

/// Saves a report: an upsert.
pub(super) async fn save_report(
    connection: &mut Connection,
    context: &mut Context,
    user: i32,
    slug: &'static str,
    at_us: u64,
) -> Done {
    let meter = Arc::clone(&context.meter);
    let title = format!("{slug} report of user {user}");
    let values: [Value<'_>; 4] =
        [(&user, Type::INT4), (&slug, Type::TEXT), (&title, Type::TEXT), (&application_time(at_us), Type::TIMESTAMPTZ)];
    let rows = meter.time(Write, connection.client.query_typed(sql::SAVE_REPORT, &values)).await?;
    let row = rows.first().ok_or(ActionError::Answer("an upsert returned nothing"))?;
    meter.transaction();
    context.ledger.report(user, slug, row.try_get(0)?);
    Ok(())
}
