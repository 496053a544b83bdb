//! A whole experiment of synthetic data: its report as JSON and as a page, live and from the store.

mod example;

use understudy_crds::labels::BASELINE;

use super::*;
use crate::store::{Batch, Stage, Store};

#[test]
fn the_json_has_everything_programs_ask_for() {
    let report = example::report();
    let value: serde_json::Value = serde_json::from_str(&json(&report).unwrap()).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["curves", "environment", "experiment", "fingerprints", "series", "status", "timeline"]);
    assert_eq!(value["status"]["verdict"]["outcome"], "Better");
    assert_eq!(value["status"]["comparisons"].as_array().unwrap().len(), 4);
    assert_eq!(value["series"].as_array().unwrap().len(), 4);
    assert_eq!(value["experiment"]["metadata"]["name"], "user-id-index");
    let fingerprint = &value["fingerprints"][0];
    assert_eq!(fingerprint["fingerprint"].as_str().map(str::len), Some(16));
    assert!(fingerprint["calls"].as_i64().unwrap() > 0);
    assert!(fingerprint["effect"]["user-id-index"]["high"].as_f64().unwrap() < -0.5);
    for arm in ["production", "baseline", "user-id-index"] {
        assert!(fingerprint["p95Us"][arm].as_i64().unwrap() > 0, "{arm}");
        let points = value["curves"][arm]["Read"].as_array().unwrap();
        assert!(points.len() > 10 && points[0]["quantile"].as_f64().unwrap() < 0.1, "{arm}");
        assert!(points[0]["valueUs"].as_i64().unwrap() > 0, "{arm}");
    }
    let again: Report = serde_json::from_value(value).unwrap();
    assert_eq!(again.status.verdict, report.status.verdict);
}

#[test]
fn the_page_answers_in_the_order_of_the_questions() {
    let page = html(&example::report()).unwrap();
    let mut rest = page.as_str();
    for expected in [
        "Including user ids in the event index",
        "Better",
        "Reads p95 −7",
        "Can this be trusted?",
        "Clones behave like production",
        "Latency by percentile",
        "The difference over time",
        "criterion −15 %",
        "What moved",
        "Why",
        "What was done",
        "CREATE INDEX CONCURRENTLY",
        "Timeline",
        "What happened after the promotion",
        "To do it again",
    ] {
        let at = rest.find(expected).unwrap_or_else(|| panic!("`{expected}` is missing or in the wrong place"));
        rest = &rest[at..];
    }
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");
    std::fs::create_dir_all(target).unwrap();
    std::fs::write(format!("{target}/report-example.html"), &page).unwrap();
}

#[test]
fn the_page_needs_nothing_else() {
    let page = html(&example::report()).unwrap();
    for loader in ["src=", "href=", "@import", "url(http", "<script", "<link", "<iframe", "http://", "https://"] {
        assert!(!page.contains(loader), "`{loader}` would load something");
    }
}

#[test]
fn what_users_wrote_is_never_markup() {
    let attack = "<script>alert('x')</script>";
    let mut report = example::report();
    report.experiment.spec.hypothesis = Some(attack.to_owned());
    report.fingerprints[0].text = format!("SELECT \"{attack}\"");
    report.fingerprints[0].plans.insert(BASELINE.to_owned(), attack.to_owned());
    report.timeline[0].message = attack.to_owned();
    report.experiment.spec.candidates[0].sql.as_mut().unwrap().apply[0] = attack.to_owned();
    if let Some(verdict) = report.status.verdict.as_mut() {
        verdict.message = attack.to_owned();
    }
    let page = html(&report).unwrap();
    assert!(!page.to_lowercase().contains("<script"), "markup of a user reached the page");
}

#[test]
fn values_in_plans_do_not_reach_the_report() {
    let report = example::report();
    assert!(report.fingerprints.iter().any(|fingerprint| !fingerprint.plans.is_empty()));
    assert!(!json(&report).unwrap().contains("471147114711") && !html(&report).unwrap().contains("471147114711"));
}

#[test]
fn an_experiment_that_has_nothing_yet_has_a_page() {
    let mut facts = example::facts(&example::observed());
    facts.status = ShadowExperimentStatus::default();
    facts.fingerprints.clear();
    facts.timeline.clear();
    facts.experiment.spec.hypothesis = None;
    let analysis = Analysis::of_experiment(&facts.experiment.spec);
    let page = html(&build(facts, &analysis)).unwrap();
    assert!(page.contains("No verdict") && page.contains("Would user-id-index make this worker better?"));
    assert!(!page.contains("NaN") && !page.contains("inf "));
}

#[tokio::test]
async fn the_report_from_the_store_is_the_one_made_live() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("results.db").display().to_string()).await.unwrap();
    let analysis = example::observed();
    let facts = example::facts(&analysis);
    let run = store.begin(&facts.experiment, &facts.environment).await.unwrap();
    let batch = Batch {
        intervals: example::intervals().into_iter().map(|interval| (Stage::Observing, interval)).collect(),
        status: Some(facts.status.clone()),
        fingerprints: Some(facts.fingerprints.clone()),
        events: facts.timeline.clone(),
        ..Batch::default()
    };
    store.record(run, &batch).await.unwrap();
    let recorded = store.load("user-id-index").await.unwrap();
    let (live, again) = (build(facts, &analysis), rebuild(recorded));
    assert_eq!(json(&live).unwrap(), json(&again).unwrap());
    assert_eq!(html(&live).unwrap(), html(&again).unwrap());
}
