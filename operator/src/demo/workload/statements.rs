//! The application's SQL. Pure text; no clock and no chance in it: whatever varies is a parameter.

use super::action::Panel;

/// `$1` user, `$2` type, `$3` from, `$4` to.
pub(super) const DAILY: &str = "SELECT date_trunc('day', ts, 'UTC') AS day, count(*) AS events, \
    count(DISTINCT properties->>'page') AS pages FROM events \
    WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4 GROUP BY day ORDER BY day";
pub(super) const TOTALS: &str = "SELECT count(*) AS events, sum((properties->>'ms')::bigint) AS total_ms, \
    max(ts) AS last_seen FROM events WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4";
const TOP_PAGES: &str = "SELECT properties->>'page' AS page, count(*) AS events FROM events \
    WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4 GROUP BY page ORDER BY events DESC, page LIMIT 10";
const COUNTRIES: &str = "SELECT properties->>'country' AS country, count(*) AS events, \
    max((properties->>'ms')::integer) AS slowest_ms FROM events \
    WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4 GROUP BY country ORDER BY country";
/// `$1` user, `$2` and `$3` types, `$4` from, `$5` to.
pub(super) const BREAKDOWN: &str = "SELECT event_type, count(*) AS events, count(DISTINCT date_trunc('day', ts, 'UTC')) AS days FROM events \
    WHERE user_id = $1 AND event_type IN ($2, $3) AND ts >= $4 AND ts < $5 GROUP BY event_type ORDER BY event_type";
/// `$1` type, `$2` from, `$3` to.
pub(super) const TREND: &str = "SELECT date_trunc('day', ts, 'UTC') AS day, count(*) AS events FROM events \
    WHERE event_type = $1 AND ts >= $2 AND ts < $3 GROUP BY day ORDER BY day";
/// `$1` user, `$2` type, `$3` from, `$4` to.
pub(super) const LATEST: &str = "SELECT id, ts, properties->>'page' AS page FROM events \
    WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4 ORDER BY ts DESC, id DESC LIMIT 20";
/// The same without a limit, for those who page.
pub(super) const HISTORY: &str = "SELECT id, ts, properties->>'page' AS page FROM events \
    WHERE user_id = $1 AND event_type = $2 AND ts >= $3 AND ts < $4 ORDER BY ts, id";
/// `$1` event.
pub(super) const EVENT: &str = "SELECT id, user_id, event_type, ts, properties::text FROM events WHERE id = $1";
/// `$1` user.
pub(super) const USER: &str = "SELECT id, email, plan, created_at, profile->>'theme' AS theme FROM users WHERE id = $1";
/// `$1` user.
pub(super) const REPORTS: &str =
    "SELECT slug, title, revision, updated_at FROM reports WHERE user_id = $1 ORDER BY slug";

/// `$1` keys, `$2` users, `$3` types, `$4` times, `$5` properties.
pub(super) const INSERT_BATCH: &str = "INSERT INTO events (id, user_id, event_type, ts, properties) \
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::timestamptz[], $5::text[]::jsonb[])";
/// `$1` key, `$2` user, `$3` type, `$4` time, `$5` properties.
pub(super) const INSERT_ONE: &str = "INSERT INTO events (id, user_id, event_type, ts, properties) \
    VALUES ($1, $2, $3, $4, $5::text::jsonb)";
pub(super) const COPY: &str = "COPY events (id, user_id, event_type, ts, properties) FROM STDIN";
/// `$1` events more, `$2` account.
pub(super) const COUNT: &str = "UPDATE accounts SET event_count = event_count + $1::bigint WHERE id = $2";
/// `$1` user.
pub(super) const LOCK_USER: &str = "SELECT id, plan, version FROM users WHERE id = $1 FOR UPDATE";
/// `$1` plan, `$2` user.
pub(super) const SET_PLAN: &str = "UPDATE users SET plan = $1, version = version + 1 WHERE id = $2";
/// `$1` theme, `$2` user.
pub(super) const SET_THEME: &str = "UPDATE users SET profile = jsonb_set(profile, '{theme}', to_jsonb($1::text)), \
    version = version + 1 WHERE id = $2 RETURNING version";
/// `$1` user, `$2` slug, `$3` title, `$4` time.
pub(super) const SAVE_REPORT: &str = "INSERT INTO reports (user_id, slug, title, revision, updated_at) \
    VALUES ($1, $2, $3, 1, $4) ON CONFLICT (user_id, slug) DO UPDATE \
    SET title = excluded.title, revision = reports.revision + 1, updated_at = excluded.updated_at RETURNING revision";

/// The statement behind a panel.
pub(super) const fn panel(panel: Panel) -> &'static str {
    match panel {
        Panel::Daily => DAILY,
        Panel::Totals => TOTALS,
        Panel::TopPages => TOP_PAGES,
        Panel::Countries => COUNTRIES,
    }
}

/// A value in the text of a simple query.
#[derive(Debug, Clone, Copy)]
pub(super) enum Literal<'a> {
    Number(i64),
    Text(&'a str),
    /// Seconds since 1970.
    Time(i64),
}

/// The statement as a simple query: its `$n` replaced by values.
pub(super) fn with_values(statement: &str, values: &[Literal<'_>]) -> String {
    let mut text = String::with_capacity(statement.len() + 64);
    let mut parts = statement.split('$');
    text.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        let value = number.parse::<usize>().ok().and_then(|n| values.get(n.checked_sub(1)?));
        match value {
            Some(value) => text.push_str(&literal(*value)),
            None => text.extend(["$", number]),
        }
        text.push_str(rest);
    }
    text
}

fn literal(value: Literal<'_>) -> String {
    match value {
        Literal::Number(number) => number.to_string(),
        Literal::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Literal::Time(seconds) => match jiff::Timestamp::from_second(seconds) {
            Ok(time) => format!("'{time}'"),
            Err(_) => format!("to_timestamp({seconds})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_query_has_its_values_in_the_text() {
        let text = with_values(
            "SELECT a->>'$x' WHERE u = $1 AND t = $2 AND ts >= $3 AND n = $10",
            &[Literal::Number(-3), Literal::Text("it's"), Literal::Time(1_767_225_600)],
        );
        assert_eq!(text, "SELECT a->>'$x' WHERE u = -3 AND t = 'it''s' AND ts >= '2026-01-01T00:00:00Z' AND n = $10");
    }

    #[test]
    fn no_statement_asks_the_clock_or_chance() {
        let all = [
            DAILY,
            TOTALS,
            TOP_PAGES,
            COUNTRIES,
            BREAKDOWN,
            LATEST,
            HISTORY,
            EVENT,
            USER,
            REPORTS,
            INSERT_BATCH,
            INSERT_ONE,
            COPY,
            COUNT,
            LOCK_USER,
            SET_PLAN,
            SET_THEME,
            SAVE_REPORT,
        ];
        for statement in all {
            for word in ["now(", "random(", "CURRENT_", "clock_", "nextval", "gen_random"] {
                assert!(!statement.contains(word), "{statement}");
            }
        }
    }

    #[test]
    fn every_list_has_one_order() {
        for statement in [DAILY, TOP_PAGES, COUNTRIES, BREAKDOWN, TREND, LATEST, HISTORY, REPORTS] {
            assert!(statement.contains("ORDER BY"), "{statement}");
        }
        assert!(LATEST.contains("ts DESC, id DESC") && HISTORY.contains("ORDER BY ts, id"));
    }
}
