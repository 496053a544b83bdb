//! Plans without the values that stood in a statement: what `EXPLAIN` prints of conditions may hold
//! user data.

/// What stands for a value that was taken out.
const VALUE: &str = "…";

/// The labels of lines that hold expressions.
const EXPRESSIONS: [&str; 12] = [
    "Index Cond",
    "Recheck Cond",
    "Hash Cond",
    "Merge Cond",
    "TID Cond",
    "Join Filter",
    "One-Time Filter",
    "Filter",
    "Order By",
    "Sort Key",
    "Group Key",
    "Output",
];

/// A plan whose expressions have no values: literals are replaced by `…`, parameters stay.
pub(super) fn without_values(plan: &str) -> String {
    let lines: Vec<String> = plan
        .lines()
        .map(|line| match line.trim_start().split_once(':') {
            Some((label, _)) if EXPRESSIONS.contains(&label) => {
                let start = line.len() - line.trim_start().len() + label.len() + 1;
                let (head, expression) = line.split_at(start);
                format!("{head}{}", masked(expression))
            }
            _ => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

/// An expression with its literals replaced.
fn masked(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len());
    let mut chars = expression.chars().peekable();
    // A digit after one of these belongs to a name or a parameter.
    let mut in_word = false;
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                // Two quotes in a row are one within the literal.
                while let Some(inner) = chars.next() {
                    if inner == '\'' && chars.next_if_eq(&'\'').is_none() {
                        break;
                    }
                }
                out.push_str(VALUE);
                in_word = false;
            }
            '"' => {
                out.push(c);
                for inner in chars.by_ref() {
                    out.push(inner);
                    if inner == '"' {
                        break;
                    }
                }
                in_word = false;
            }
            c if c.is_ascii_digit() && !in_word => {
                while chars.next_if(|next| next.is_ascii_alphanumeric() || *next == '.').is_some() {}
                out.push_str(VALUE);
            }
            c => {
                in_word = c.is_alphanumeric() || matches!(c, '_' | '$');
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_out_and_names_and_costs_stay() {
        let plan = "Index Scan using events_u1 on events  (cost=0.43..8.45 rows=1 width=4)\n  \
                    Index Cond: ((user_id = 4711) AND (name = 'O''Hara'::text) AND (\"T1\".c2 = $3))\n  \
                    Filter: (score > '-1.5e3'::numeric)";
        assert_eq!(
            without_values(plan),
            "Index Scan using events_u1 on events  (cost=0.43..8.45 rows=1 width=4)\n  \
             Index Cond: ((user_id = …) AND (name = …::text) AND (\"T1\".c2 = $3))\n  \
             Filter: (score > …::numeric)"
        );
    }

    #[test]
    fn a_literal_without_an_end_hides_the_rest() {
        assert_eq!(without_values("Filter: (a = 'secret"), "Filter: (a = …");
    }
}
