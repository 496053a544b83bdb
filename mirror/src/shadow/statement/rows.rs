//! Which rows of a table a statement picks, as far as its text tells: by the values of columns. Plain data; must not take
//! rows for apart, nor for the same, that are not certainly so.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// So many columns are enough to tell rows apart.
const MOST_KEYS: usize = 4;

/// Rows picked by equalities, all of which hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// At least one.
    keys: Vec<RowKey>,
    /// Nothing else is asked of them, and they are all that are so.
    all: bool,
}

impl Rows {
    /// Those of which these hold, if there are any. `all`: all of those.
    pub fn picked(keys: impl IntoIterator<Item = RowKey>, all: bool) -> Option<Self> {
        let mut keys = keys.into_iter();
        let kept: Vec<RowKey> = keys.by_ref().take(MOST_KEYS).collect();
        let all = all && keys.next().is_none();
        (!kept.is_empty()).then_some(Self { keys: kept, all })
    }

    /// Whether no row is among both.
    pub fn are_apart_from(&self, other: &Self) -> bool {
        let apart = |a: &RowKey, b: &RowKey| a.column == b.column && a.value.is_certainly_not(b.value);
        self.keys.iter().any(|a| other.keys.iter().any(|b| apart(a, b)))
    }

    /// Whether they are the same ones.
    pub fn are(&self, other: &Self) -> bool {
        self.all && self == other
    }

    /// The equalities.
    pub fn keys(&self) -> &[RowKey] {
        &self.keys
    }

    /// The same, where their values become better known.
    pub fn keys_mut(&mut self) -> &mut [RowKey] {
        &mut self.keys
    }
}

impl From<RowKey> for Rows {
    fn from(key: RowKey) -> Self {
        Self { keys: vec![key], all: true }
    }
}

/// Rows picked by `column = value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowKey {
    /// The column.
    pub column: Arc<str>,
    /// The value.
    pub value: KeyValue,
}

/// What is known of a value without knowing its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyValue {
    /// A whole number: equal exactly when it looks equal.
    Whole(i64),
    /// A UUID, or the digest of a text in a column that is known to compare each of its bytes: likewise.
    Certain(u128),
    /// A digest of how it looks: what looks equal is equal, and what does not may be as well (`A` and `a`, `1.0` and `1`).
    /// Its last bit is set where all who write this text write it alike ([`KeyValue::text`]).
    Looks(u64),
}

impl KeyValue {
    /// What looks so, of which a digest is given. `plain`: it has no character that encodings, or the quotes of a constant,
    /// write in several ways.
    pub fn text(digest: u64, plain: bool) -> Self {
        Self::Looks(digest & !1 | u64::from(plain))
    }

    /// The same in a column that compares each byte of a text.
    #[must_use]
    pub fn byte_by_byte(self) -> Self {
        match self {
            Self::Looks(digest) if digest & 1 == 1 => Self::Certain(u128::from(digest)),
            other => other,
        }
    }

    fn is_certainly_not(self, other: Self) -> bool {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a != b,
            (Self::Certain(a), Self::Certain(b)) => a != b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: &[(&str, i64)], all: bool) -> Rows {
        let key = |(column, value): &(&str, i64)| RowKey { column: (*column).into(), value: KeyValue::Whole(*value) };
        Rows::picked(keys.iter().map(key), all).expect("keys")
    }

    #[test]
    fn rows_are_apart_by_any_column_and_the_same_by_all_of_them() {
        let one = rows(&[("tenant", 1), ("id", 5)], true);
        for (other, apart, same) in [
            (one.clone(), false, true),
            (rows(&[("tenant", 1), ("id", 6)], true), true, false),
            (rows(&[("id", 5), ("tenant", 2)], true), true, false),
            (rows(&[("tenant", 1)], true), false, false),
            (rows(&[("name", 7)], true), false, false),
            (rows(&[("tenant", 1), ("id", 5)], false), false, false),
        ] {
            assert_eq!((one.are_apart_from(&other), one.are(&other)), (apart, same), "{other:?}");
            assert_eq!((other.are_apart_from(&one), other.are(&one)), (apart, same), "{other:?}");
        }
        let picked = rows(&[("status", 1)], false);
        assert!(!picked.are(&picked), "one takes some of them, the other others");
    }

    #[test]
    fn of_many_columns_some_are_looked_at() {
        let many: Vec<_> = (0..9).map(|n| (["a", "b", "c", "d", "e", "f", "g", "h", "i"][n], 1)).collect();
        let rows = rows(&many, true);
        assert_eq!(rows.keys().len(), MOST_KEYS);
        assert!(!rows.are(&rows) && Rows::picked([], true).is_none());
    }

    #[test]
    fn texts_are_as_different_as_they_look_where_each_byte_counts() {
        let text = |digest, plain| KeyValue::text(digest, plain);
        for (a, b, expected) in [
            (text(2, true), text(4, true), true),
            (text(2, true), text(2, true), false),
            (text(2, true), text(4, false), false),
            (text(2, true), KeyValue::Whole(4), false),
        ] {
            let (a, b) = (a.byte_by_byte(), b.byte_by_byte());
            assert_eq!((a.is_certainly_not(b), b.is_certainly_not(a)), (expected, expected), "{a:?} {b:?}");
        }
        assert!(
            !text(2, true).is_certainly_not(text(4, true)) && KeyValue::Whole(5).byte_by_byte() == KeyValue::Whole(5)
        );
    }
}
