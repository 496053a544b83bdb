//! `docs/metrics.md` tells of every metric that a mirror exports, and of no other: the table in it is what `/metrics`
//! says of itself. Must not judge values.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of it is test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::Path,
};

use serde_json::json;
use understudy_mirror::{
    metrics::encode,
    mirror::{Mirror, Settings},
    stream::Address,
};

const BEGINS: &str = "| metric | type | labels | what |\n|---|---|---|---|\n";
/// Labels whose values are no closed list.
const OPEN: [&str; 1] = ["arm"];

/// What `/metrics` says of a mirror with one arm.
fn exported() -> String {
    let mirror = Mirror::start(&Settings::new("127.0.0.1:0", Address::new("127.0.0.1", 1))).unwrap();
    let mut status = serde_json::to_value(mirror.status()).unwrap();
    let times = json!({ "count": 1, "p50Us": 1, "p95Us": 1, "p99Us": 1 });
    let latency = json!({ "read": times, "write": times, "commit": times, "utility": times });
    status["arms"] = json!([{ "name": "candidate", "role": "Candidate", "state": "Live", "latency": latency,
        "divergence": { "error": 0, "rowCount": 0, "rows": 0, "transactionState": 0, "order": 0 } }]);
    let mut text = String::new();
    encode(&mut text, &serde_json::from_value(status).unwrap(), &mirror).unwrap();
    mirror.stop();
    text
}

/// A row for each metric.
fn table(text: &str) -> String {
    let mut helps: Vec<(&str, &str)> = Vec::new();
    let mut kinds = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            helps.push((name, help.trim_end_matches('.')));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name, kind);
        } else if let Some((name, rest)) = line.split_once('{') {
            let of = labels.entry(name.trim_end_matches("_total")).or_default();
            for (label, value) in rest.split_once('}').unwrap().0.split(',').map(|pair| pair.split_once('=').unwrap()) {
                of.entry(label).or_default().insert(value.trim_matches('"'));
            }
        }
    }
    let mut rows = String::new();
    for (name, help) in helps {
        let of = labels.get(name).into_iter().flatten().map(|(label, values)| {
            let values: Vec<_> = values.iter().copied().collect();
            if OPEN.contains(label) { format!("`{label}`") } else { format!("`{label}`: {}", values.join(", ")) }
        });
        let (kind, of) = (kinds[name], of.collect::<Vec<_>>().join("; "));
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(rows, "| `{name}{suffix}` | {kind} | {of} | {help} |").unwrap();
    }
    rows
}

#[test]
fn the_table_in_the_docs_is_what_a_mirror_exports() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGINS).unwrap();
    let at = rest.find("\n\n").map_or(rest.len(), |at| at + 1);
    let (told, after) = rest.split_at(at);
    let wanted = table(&exported());
    if env::var_os("UPDATE").is_some() {
        fs::write(&file, format!("{before}{BEGINS}{wanted}{after}")).unwrap();
    } else {
        assert_eq!(told, wanted, "make it anew with\n    UPDATE=1 cargo test -p understudy-mirror --test metrics");
    }
}
