//! What a statement touches, as far as its text tells: tables, and where it picks rows by values of columns, those
//! ([`Rows`]). Two statements *conflict* unless it is certain that they do not.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{functions::ADVISORY_LOCKS, rows::Rows};

/// A transaction that touches more is known by its tables alone.
const MOST_USES: usize = 256;

/// What a statement touches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Footprint {
    /// Nobody knows: possibly everything.
    Anything,
    /// These tables only (beside what triggers and functions of the database do).
    Tables(Vec<TableUse>),
}

/// How a statement touches one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableUse {
    /// Name without schema: tables of the same name in two schemas count as one.
    pub table: Arc<str>,
    /// The rows, where they are picked by equality; else any.
    pub rows: Option<Rows>,
    /// What it does with them.
    pub access: Access,
}

/// What a statement does with rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// It reads them.
    Read,
    /// It may change or lock them.
    Write,
    /// It adds rows, and looks at none: two that succeed may come in any order.
    Insert,
}

impl Access {
    /// Whether it changes what others see.
    pub fn changes(self) -> bool {
        self != Self::Read
    }

    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Write }
    }
}

impl Footprint {
    /// Touches nothing.
    pub const NOTHING: Self = Self::Tables(Vec::new());

    /// Whether the effects of the two may depend on which comes first.
    pub fn conflicts(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tables(mine), Self::Tables(theirs)) => mine.iter().any(|a| theirs.iter().any(|b| a.conflicts(b))),
            (Self::Anything, Self::Tables(tables)) | (Self::Tables(tables), Self::Anything) => !tables.is_empty(),
            (Self::Anything, Self::Anything) => true,
        }
    }

    /// The same, as far as the two change or lock something: what a change merely reads, it sees as it was when it began,
    /// whoever changes that beside it.
    pub fn changes_conflict(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tables(mine), Self::Tables(theirs)) => {
                let changed = |tables: &'_ &TableUse| tables.access.changes();
                mine.iter().filter(changed).any(|a| theirs.iter().filter(changed).any(|b| a.conflicts(b)))
            }
            _ => self.conflicts(other),
        }
    }

    /// Whether a sequence may be drawn from. Rows that are picked by a value are there already.
    pub fn may_draw(&self) -> bool {
        match self {
            Self::Anything => true,
            Self::Tables(tables) => {
                let adds = |t: &TableUse| t.access == Access::Insert || t.access.changes() && t.rows.is_none();
                tables.iter().any(|t| adds(t) && *t.table != *ADVISORY_LOCKS)
            }
        }
    }

    /// Whether both lock the same rows, as far as their texts tell: nothing is asked of those but that the same columns of
    /// the same table have the same values. Two tables of one name in two schemas are taken for one here as well.
    pub fn locks_a_row_of(&self, other: &Self) -> bool {
        let (Self::Tables(mine), Self::Tables(theirs)) = (self, other) else { return false };
        let same = |a: &TableUse, b: &TableUse| a.rows.as_ref().zip(b.rows.as_ref()).is_some_and(|(a, b)| a.are(b));
        let both =
            |a: &TableUse, b: &TableUse| a.table == b.table && a.access.changes() && b.access.changes() && same(a, b);
        mine.iter().any(|a| theirs.iter().any(|b| both(a, b)))
    }

    /// Whether both add rows to one table: which of the two draws from its sequence first is chance.
    pub fn adds_beside(&self, other: &Self) -> bool {
        let (Self::Tables(mine), Self::Tables(theirs)) = (self, other) else { return false };
        let adds =
            |tables: &[TableUse], to: &Arc<str>| tables.iter().any(|t| t.access == Access::Insert && t.table == *to);
        mine.iter().any(|t| t.access == Access::Insert && adds(theirs, &t.table))
    }

    /// Takes in what another statement touches.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Tables(mine), Self::Tables(theirs)) => {
                for one in theirs {
                    if !mine.iter().any(|have| have.covers(one)) {
                        mine.push(one.clone());
                    }
                }
                if mine.len() > MOST_USES {
                    *mine = whole_tables(mine);
                }
            }
            _ => *self = Self::Anything,
        }
    }

    /// The same, with no rows that are merely added: where it matters who was first to add some.
    #[must_use]
    pub fn strictly(&self) -> Self {
        let strictly = |t: &TableUse| match t.access {
            // What it got in the way of may have had another value in that column.
            Access::Insert => TableUse { access: Access::Write, rows: None, ..t.clone() },
            Access::Read | Access::Write => t.clone(),
        };
        match self {
            Self::Anything => Self::Anything,
            Self::Tables(tables) => Self::Tables(tables.iter().map(strictly).collect()),
        }
    }

    /// What of it is seen as it was when it began: all that a read touches, and what a write merely reads.
    pub fn seen(&self, writes: bool) -> Cow<'_, Self> {
        if writes { Cow::Owned(self.reads()) } else { Cow::Borrowed(self) }
    }

    /// The part that only reads. Of what may do anything nothing does.
    #[must_use]
    pub fn reads(&self) -> Self {
        match self {
            Self::Anything => Self::NOTHING,
            Self::Tables(tables) => Self::Tables(tables.iter().filter(|t| !t.access.changes()).cloned().collect()),
        }
    }

    /// The part that writes.
    #[must_use]
    pub fn writes(&self) -> Self {
        match self {
            Self::Anything => Self::Anything,
            Self::Tables(tables) => Self::Tables(tables.iter().filter(|t| t.access.changes()).cloned().collect()),
        }
    }
}

/// The tables of them, with any rows.
fn whole_tables(uses: &[TableUse]) -> Vec<TableUse> {
    let mut whole: Vec<TableUse> = Vec::new();
    for one in uses {
        match whole.iter_mut().find(|have| have.table == one.table) {
            Some(have) => have.access = have.access.and(one.access),
            None => whole.push(TableUse { rows: None, ..one.clone() }),
        }
    }
    whole
}

impl TableUse {
    fn covers(&self, other: &Self) -> bool {
        // Who adds a row draws from sequences, whatever else it does with it.
        let whole = self.rows.is_none() || other.access == Access::Read;
        let access = self.access == other.access || self.access == Access::Write && whole;
        self.table == other.table && access && (self.rows.is_none() || self.rows == other.rows)
    }

    fn conflicts(&self, other: &Self) -> bool {
        if self.table != other.table || self.access == other.access && self.access != Access::Write {
            return false;
        }
        !self.rows.as_ref().zip(other.rows.as_ref()).is_some_and(|(a, b)| a.are_apart_from(b))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rows::{KeyValue, RowKey},
        *,
    };

    fn table(name: &str, key: Option<(&str, i64)>, writes: bool) -> Footprint {
        valued(name, key.map(|(column, value)| (column, KeyValue::Whole(value))), writes)
    }

    fn valued(name: &str, key: Option<(&str, KeyValue)>, writes: bool) -> Footprint {
        let rows = key.map(|(column, value)| RowKey { column: column.into(), value }.into());
        let access = if writes { Access::Write } else { Access::Read };
        Footprint::Tables(vec![TableUse { table: name.into(), rows, access }])
    }

    #[test]
    fn rows_that_are_added_are_apart_from_others_that_are_and_from_nothing_else() {
        let inserts = Footprint::Tables(vec![TableUse { table: "t".into(), rows: None, access: Access::Insert }]);
        assert!(!inserts.conflicts(&inserts) && inserts.may_draw() && inserts.adds_beside(&inserts));
        assert!(!inserts.adds_beside(&table("t", None, true)) && !Footprint::Anything.adds_beside(&inserts));
        // One that may find its row there instead.
        let upsert = |value| {
            let rows = Some(RowKey { column: "id".into(), value: KeyValue::Whole(value) }.into());
            let one = |access| TableUse { table: "t".into(), rows: rows.clone(), access };
            Footprint::Tables(vec![one(Access::Insert), one(Access::Write)])
        };
        assert!(upsert(5).conflicts(&upsert(5)) && !upsert(5).conflicts(&upsert(6)));
        let mut found = table("t", Some(("id", 5)), true);
        found.merge(&upsert(5));
        assert!(found.may_draw() && found.adds_beside(&upsert(6)), "it was looked for before");
        assert!(upsert(5).adds_beside(&upsert(6)) && upsert(5).may_draw() && upsert(5).locks_a_row_of(&upsert(5)));
        assert!(
            upsert(5).conflicts(&inserts) && upsert(5).strictly().conflicts(&upsert(6)),
            "of another column, perhaps"
        );
        assert!(inserts.strictly().conflicts(&inserts) && inserts.conflicts(&inserts.strictly()));
        for writes in [true, false] {
            for key in [None, Some(("id", 5))] {
                assert!(inserts.conflicts(&table("t", key, writes)) && table("t", key, writes).conflicts(&inserts));
            }
        }
        assert!(inserts.conflicts(&Footprint::Anything) && !inserts.conflicts(&table("u", None, true)));
        assert_eq!(inserts.writes(), inserts);
        // A transaction that reads as well does both.
        let mut both = inserts.clone();
        both.merge(&table("t", None, false));
        assert!(both.conflicts(&inserts));
    }

    #[test]
    fn what_a_change_merely_reads_is_changed_beside_it() {
        let mut reads = table("t", Some(("id", 5)), true);
        reads.merge(&table("u", None, false));
        assert_eq!(reads.reads(), table("u", None, false));
        for (other, expected) in [
            (table("u", None, true), false),
            (table("t", Some(("id", 5)), true), true),
            (table("t", Some(("id", 5)), false), false),
            (Footprint::Anything, true),
        ] {
            assert_eq!(reads.changes_conflict(&other), expected, "{other:?}");
            assert_eq!(other.changes_conflict(&reads), expected, "{other:?}");
            assert!(reads.conflicts(&other) && other.conflicts(&reads), "{other:?}");
        }
        assert_eq!(Footprint::Anything.reads(), Footprint::NOTHING);
    }

    #[test]
    fn uuids_that_look_different_are() {
        let uuid = |value| valued("t", Some(("id", KeyValue::Certain(value))), true);
        assert!(uuid(1).conflicts(&uuid(1)) && uuid(1).locks_a_row_of(&uuid(1)));
        assert!(!uuid(1).conflicts(&uuid(2)) && uuid(1).conflicts(&table("t", Some(("id", 1)), true)));
    }

    #[test]
    fn what_adds_rows_may_draw_from_a_sequence() {
        let of_one_row = table("t", Some(("id", 5)), true);
        for (footprint, expected) in [
            (table("t", None, true), true),
            (Footprint::Anything, true),
            (table("t", None, false), false),
            (of_one_row, false),
            (table(ADVISORY_LOCKS, None, true), false),
            (Footprint::NOTHING, false),
        ] {
            assert_eq!(footprint.may_draw(), expected, "{footprint:?}");
        }
    }

    #[test]
    fn what_looks_equal_is_one_row_and_what_does_not_may_be() {
        let looks = |looks| valued("t", Some(("id", KeyValue::Looks(looks))), true);
        let five = table("t", Some(("id", 5)), true);
        assert!(looks(1).locks_a_row_of(&looks(1)));
        assert!(!looks(1).locks_a_row_of(&looks(2)) && !looks(1).locks_a_row_of(&five));
        assert!(looks(1).conflicts(&looks(2)) && looks(1).conflicts(&five));
    }

    #[test]
    fn a_transaction_that_touches_much_is_known_by_its_tables() {
        let mut all = table("u", Some(("id", 1)), false);
        for id in 0..100_000 {
            all.merge(&table("t", Some(("id", id)), true));
        }
        let Footprint::Tables(uses) = &all else { panic!() };
        assert!(uses.len() <= MOST_USES, "{}", uses.len());
        assert!(all.conflicts(&table("t", Some(("id", 99_999)), true)) && all.conflicts(&table("u", None, true)));
        assert!(!all.conflicts(&table("u", None, false)), "it only reads that");
    }

    #[test]
    fn only_what_is_certainly_apart_does_not_conflict() {
        let five = table("t", Some(("id", 5)), true);
        for (other, expected) in [
            (table("t", Some(("id", 6)), true), false),
            (table("t", Some(("id", 5)), true), true),
            (table("t", Some(("ref", 6)), true), true),
            (table("t", None, false), true),
            (table("u", None, true), false),
            (Footprint::Anything, true),
            (Footprint::NOTHING, false),
        ] {
            assert_eq!(five.conflicts(&other), expected, "{other:?}");
            assert_eq!(five.locks_a_row_of(&other), other == five, "{other:?}");
            assert_eq!(other.conflicts(&five), expected, "{other:?}");
        }
        assert!(!table("t", None, false).conflicts(&table("t", None, false)), "two reads never conflict");
    }
}
