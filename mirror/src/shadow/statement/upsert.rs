//! The row of an `INSERT … ON CONFLICT (columns)` with one row of values: the one that it adds, and the one that it finds
//! there already, have the same values in those columns. Pure; it looks at the statement's tree alone.

use serde_json::Value;

use super::equality::{Equalities, value_source};

/// `OVERRIDING_USER_VALUE` of the grammar's `OverridingKind`, as the parser's protocol buffers number it: the value that is
/// given is not the one that is stored.
const USER_VALUE: i64 = 2;

/// The columns of the conflict's target, and where their values come from. None of those of which the row that is found
/// there gets another value.
pub(super) fn equalities(stmt: &Value) -> Equalities {
    found(stmt).unwrap_or_default()
}

fn found(stmt: &Value) -> Option<Equalities> {
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
    let target = conflict.get("infer")?;
    let elements = list(target, "index_elems");
    let key = |element: &Value| {
        let element = element.pointer("/node/IndexElem")?;
        let name = element.get("name")?.as_str().filter(|name| !name.is_empty())?;
        let at = columns.iter().position(|column| column == name)?;
        let source = value_source(values.get(at)?)?;
        (!sets.iter().any(|set| set == name)).then(|| (name.to_owned(), source))
    };
    let keys: Vec<_> = elements.iter().filter_map(key).collect();
    // An index of a part of the rows finds no others.
    let all = keys.len() == elements.len() && target.get("where_clause").is_none_or(Value::is_null);
    Some(Equalities { keys, all })
}

#[cfg(test)]
mod tests {
    use crate::shadow::statement::{
        catalog::Catalog,
        footprint::Access,
        template::{KeySource, RowsTemplate, TableTemplates},
    };

    #[test]
    fn what_is_added_or_found_there_is_one_row() {
        use KeySource::{Literal, Parameter};
        let id = |source| Some((vec![("id", source)], true));
        for (sql, key) in [
            ("insert into t (id, n) values ($1, $2) on conflict (id) do update set n = excluded.n", id(Parameter(0))),
            ("insert into t (n, id) values (1, 5) on conflict (id) do nothing", id(Literal(1))),
            (
                "insert into t as a (id) values ('x') on conflict (id) do update set n = a.n + 1 returning n",
                id(Literal(0)),
            ),
            (
                "insert into t (site, day) values ($2, $1) on conflict (site, day) do nothing",
                Some((vec![("site", Parameter(1)), ("day", Parameter(0))], true)),
            ),
            (
                "insert into t (a, id) values (now(), $1) on conflict (a, id) do nothing",
                Some((vec![("id", Parameter(0))], false)),
            ),
            (
                "insert into t (a, id) values (1, $1) on conflict (a, id) do update set a = 2",
                Some((vec![("id", Parameter(0))], false)),
            ),
            (
                "insert into t (id) values ($1) on conflict (id) where n > 3 do nothing",
                Some((vec![("id", Parameter(0))], false)),
            ),
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
            let keys = |rows: &RowsTemplate| {
                (rows.keys.iter().map(|(column, source)| (column.to_string(), *source)).collect(), rows.all)
            };
            let found: Vec<_> = of_t.iter().map(|t| (t.access, t.rows.as_deref().map(keys))).collect();
            let named = |(keys, all): (Vec<(&str, KeySource)>, bool)| {
                (keys.into_iter().map(|(column, source)| (column.to_owned(), source)).collect::<Vec<_>>(), all)
            };
            let expected = match key.map(named) {
                Some(key) => vec![(Access::Insert, Some(key.clone())), (Access::Write, Some(key))],
                None => vec![(Access::Write, None)],
            };
            assert_eq!(found, expected, "{sql}");
        }
    }
}
