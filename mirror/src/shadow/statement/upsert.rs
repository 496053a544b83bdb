//! The row of an `INSERT … ON CONFLICT (column)` with one row of values: the one that it adds, and the one that it finds
//! there already, have the same value in that column. Pure; it looks at the statement's tree alone.

use serde_json::Value;

use super::tree::{ValueSource, value_source};

/// `OVERRIDING_USER_VALUE` of the grammar's `OverridingKind`, as the parser's protocol buffers number it: the value that is
/// given is not the one that is stored.
const USER_VALUE: i64 = 2;

/// A column of the conflict's target, and where its value comes from. Of several columns one is enough: whoever picks rows
/// by another value of it picks none of these. None where the row that is found there gets another value of it.
pub(super) fn key(stmt: &Value) -> Option<(String, ValueSource)> {
    let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let conflict = stmt.get("on_conflict_clause").filter(|clause| !clause.is_null())?;
    if stmt.get("override").and_then(Value::as_i64) == Some(USER_VALUE) {
        return None;
    }
    let rows = list(stmt.pointer("/select_stmt/node/SelectStmt")?, "values_lists");
    let [row] = rows.as_slice() else { return None };
    let values = list(row.pointer("/node/List")?, "items");
    let columns = list(stmt, "cols");
    let names = |targets: &[Value]| -> Vec<String> {
        let name = |target: &Value| target.pointer("/node/ResTarget/name").and_then(Value::as_str).map(str::to_owned);
        targets.iter().filter_map(name).collect()
    };
    let (columns, sets) = (names(&columns), names(&list(conflict, "target_list")));
    list(conflict.get("infer")?, "index_elems").iter().find_map(|element| {
        let element = element.pointer("/node/IndexElem")?;
        let name = element.get("name")?.as_str().filter(|name| !name.is_empty())?;
        let at = columns.iter().position(|column| column == name)?;
        let source = value_source(values.get(at)?)?;
        (!sets.iter().any(|set| set == name)).then(|| (name.to_owned(), source))
    })
}

#[cfg(test)]
mod tests {
    use crate::shadow::statement::{
        catalog::Catalog,
        footprint::Access,
        template::{KeySource, TableTemplates},
    };

    #[test]
    fn what_is_added_or_found_there_is_one_row() {
        use KeySource::{Literal, Parameter};
        let id = |source| Some(("id", source));
        for (sql, key) in [
            ("insert into t (id, n) values ($1, $2) on conflict (id) do update set n = excluded.n", id(Parameter(0))),
            ("insert into t (n, id) values (1, 5) on conflict (id) do nothing", id(Literal(1))),
            (
                "insert into t as a (id) values ('x') on conflict (id) do update set n = a.n + 1 returning n",
                id(Literal(0)),
            ),
            ("insert into t (a, id) values (now(), $1) on conflict (a, id) do nothing", id(Parameter(0))),
            ("insert into t (id) values ($1) on conflict (id) where n > 3 do nothing", id(Parameter(0))),
            ("insert into t (id) values ($1) on conflict (id) do update set id = t.id + 1", None),
            ("insert into t (id) values ($1) on conflict (lower(id)) do nothing", None),
            ("insert into t (id) values ($1) on conflict on constraint t_pkey do nothing", None),
            ("insert into t (id) values ($1) on conflict do nothing", None),
            ("insert into t (id) values ($1), ($2) on conflict (id) do nothing", None),
            ("insert into t (id) values ($1 + 1) on conflict (id) do nothing", None),
            ("insert into t (id) values ((select max(a) from u)) on conflict (id) do nothing", None),
            ("insert into t values ($1) on conflict (id) do nothing", None),
            ("insert into t (id) select $1 on conflict (id) do nothing", None),
            ("insert into t (id) overriding user value values ($1) on conflict (id) do nothing", None),
            ("insert into t (id) overriding system value values ($1) on conflict (id) do nothing", id(Parameter(0))),
        ] {
            let analysed = Catalog::default().analyse(sql.as_bytes());
            let TableTemplates::Tables(tables) = &analysed.template.statements[0].tables else { panic!("{sql}") };
            let of_t: Vec<_> = tables.iter().filter(|table| &*table.table == "t").collect();
            let found: Vec<_> =
                of_t.iter().map(|t| (t.access, t.key.as_ref().map(|(column, source)| (&**column, *source)))).collect();
            let expected = match key {
                Some(key) => vec![(Access::Insert, Some(key)), (Access::Write, Some(key))],
                None => vec![(Access::Write, None)],
            };
            assert_eq!(found, expected, "{sql}");
        }
    }
}
