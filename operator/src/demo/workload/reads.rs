//! What clients look at: panels of dashboards, lists, single rows; with the simple and the extended
//! protocol, named and unnamed statements, pipelined and row by row.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::{
    Row, SimpleQueryMessage,
    types::{ToSql, Type},
};

use super::{
    action::{Panel, Protocol, Question, Window},
    connection::{ActionError, Connection},
    meter::{Kind::Read, Meter},
    statements::{self as sql, Literal, with_values},
};

type Done = Result<(), ActionError>;
/// A parameter of an unnamed statement.
type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// One panel, and the user whose it is.
pub(super) async fn panel(
    connection: &mut Connection,
    meter: &Meter,
    panel: Panel,
    question: &Question,
    protocol: Protocol,
) -> Done {
    user(connection, meter, question.user, protocol).await?;
    ask(connection, meter, sql::panel(panel), question, protocol).await?;
    if panel == Panel::Totals {
        let reports = connection.prepared(sql::REPORTS).await?;
        meter.time(Read, connection.client.query(&reports, &[&question.user])).await?;
        meter.transaction();
    }
    Ok(())
}

/// Two panels at once on one connection: the second statement is sent before the first is answered.
pub(super) async fn two_panels(connection: &mut Connection, meter: &Meter, question: &Question) -> Done {
    let Question { user, event_type, window } = question;
    let (daily, totals) = (connection.prepared(sql::DAILY).await?, connection.prepared(sql::TOTALS).await?);
    let (from, to) = (time(window.from_s), time(window.to_s));
    let values: [&(dyn ToSql + Sync); 4] = [user, event_type, &from, &to];
    let client = &connection.client;
    let (first, second) =
        tokio::join!(meter.time(Read, client.query(&daily, &values)), meter.time(Read, client.query(&totals, &values)));
    first?;
    second?;
    meter.transaction();
    meter.transaction();
    Ok(())
}

/// Several event types in one statement.
pub(super) async fn breakdown(
    connection: &mut Connection,
    meter: &Meter,
    user: i32,
    event_types: [&'static str; 2],
    window: Window,
) -> Done {
    let [first, second] = event_types;
    let statement = connection.prepared(sql::BREAKDOWN).await?;
    let (from, to) = (time(window.from_s), time(window.to_s));
    meter.time(Read, connection.client.query(&statement, &[&user, &first, &second, &from, &to])).await?;
    meter.transaction();
    Ok(())
}

/// Events of all users by day.
pub(super) async fn trend(
    connection: &mut Connection,
    meter: &Meter,
    event_type: &'static str,
    window: Window,
) -> Done {
    let statement = connection.prepared(sql::TREND).await?;
    let (from, to) = (time(window.from_s), time(window.to_s));
    meter.time(Read, connection.client.query(&statement, &[&event_type, &from, &to])).await?;
    meter.transaction();
    Ok(())
}

/// A list of events, then some of them by key, then the user.
pub(super) async fn drill_down(
    connection: &mut Connection,
    meter: &Meter,
    question: &Question,
    details: usize,
    protocol: Protocol,
) -> Done {
    let listed = ask(connection, meter, sql::LATEST, question, protocol).await?;
    for id in listed.iter().take(details) {
        let client = &connection.client;
        match protocol {
            Protocol::Simple => {
                let text = with_values(sql::EVENT, &[Literal::Number(*id)]);
                meter.time(Read, client.simple_query(&text)).await?;
            }
            Protocol::Unnamed => {
                meter.time(Read, client.query_typed(sql::EVENT, &[(id, Type::INT8)])).await?;
            }
            Protocol::Named => {
                let statement = connection.prepared(sql::EVENT).await?;
                meter.time(Read, connection.client.query(&statement, &[id])).await?;
            }
        }
        meter.transaction();
    }
    user(connection, meter, question.user, protocol).await
}

/// Pages through a list with a row limit: the portal is suspended between the pages.
pub(super) async fn page(
    connection: &mut Connection,
    meter: &Meter,
    question: &Question,
    rows: i32,
    pages: usize,
) -> Done {
    let Question { user, event_type, window } = question;
    let statement = connection.prepared(sql::HISTORY).await?;
    let (from, to) = (time(window.from_s), time(window.to_s));
    let transaction = connection.client.build_transaction().read_only(true).start().await?;
    let portal = transaction.bind(&statement, &[user, event_type, &from, &to]).await?;
    for _ in 0..pages {
        let page = meter.time(Read, transaction.query_portal(&portal, rows)).await?;
        if page.len() < usize::try_from(rows).unwrap_or(0) {
            break;
        }
    }
    transaction.commit().await?;
    meter.transaction();
    Ok(())
}

/// The same with a cursor of SQL, in simple queries.
pub(super) async fn cursor(
    connection: &mut Connection,
    meter: &Meter,
    question: &Question,
    rows: i32,
    pages: usize,
) -> Done {
    let declare = format!("DECLARE history NO SCROLL CURSOR FOR {}", with_values(sql::HISTORY, &literals(question)));
    let fetch = format!("FETCH {rows} FROM history");
    let transaction = connection.client.transaction().await?;
    transaction.simple_query(&declare).await?;
    for _ in 0..pages {
        meter.time(Read, transaction.simple_query(&fetch)).await?;
    }
    transaction.simple_query("CLOSE history").await?;
    transaction.commit().await?;
    meter.transaction();
    Ok(())
}

async fn user(connection: &mut Connection, meter: &Meter, user: i32, protocol: Protocol) -> Done {
    match protocol {
        Protocol::Simple => {
            let text = with_values(sql::USER, &[Literal::Number(user.into())]);
            meter.time(Read, connection.client.simple_query(&text)).await?;
        }
        Protocol::Unnamed => {
            meter.time(Read, connection.client.query_typed(sql::USER, &[(&user, Type::INT4)])).await?;
        }
        Protocol::Named => {
            let statement = connection.prepared(sql::USER).await?;
            meter.time(Read, connection.client.query(&statement, &[&user])).await?;
        }
    }
    meter.transaction();
    Ok(())
}

/// Asks a question about a user's events; returns the first column where it is a key.
async fn ask(
    connection: &mut Connection,
    meter: &Meter,
    statement: &'static str,
    question: &Question,
    protocol: Protocol,
) -> Result<Vec<i64>, ActionError> {
    let Question { user, event_type, window } = question;
    let (from, to) = (time(window.from_s), time(window.to_s));
    let keys = match protocol {
        Protocol::Simple => {
            let text = with_values(statement, &literals(question));
            let answer = meter.time(Read, connection.client.simple_query(&text)).await?;
            answer.iter().filter_map(key_of_message).collect()
        }
        Protocol::Unnamed => {
            let values: [Value<'_>; 4] =
                [(user, Type::INT4), (event_type, Type::TEXT), (&from, Type::TIMESTAMPTZ), (&to, Type::TIMESTAMPTZ)];
            let rows = meter.time(Read, connection.client.query_typed(statement, &values)).await?;
            rows.iter().filter_map(key_of_row).collect()
        }
        Protocol::Named => {
            let prepared = connection.prepared(statement).await?;
            let rows = meter.time(Read, connection.client.query(&prepared, &[user, event_type, &from, &to])).await?;
            rows.iter().filter_map(key_of_row).collect()
        }
    };
    meter.transaction();
    Ok(keys)
}

fn literals(question: &Question) -> [Literal<'_>; 4] {
    let Question { user, event_type, window } = question;
    [
        Literal::Number((*user).into()),
        Literal::Text(event_type),
        Literal::Time(window.from_s),
        Literal::Time(window.to_s),
    ]
}

fn key_of_row(row: &Row) -> Option<i64> {
    row.try_get(0).ok()
}

fn key_of_message(message: &SimpleQueryMessage) -> Option<i64> {
    match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok()??.parse().ok(),
        _ => None,
    }
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs())
}
