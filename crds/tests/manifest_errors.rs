//! What a person reads whose manifest is wrong, word for word.

use understudy_crds::manifest;

const HEAD: &str = "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\nmetadata: { name: index }\n";
const TARGET: &str = "spec:\n  target: { local: { host: 127.0.0.1, user: postgres, database: app } }\n";

/// The text of a manifest, below head and target, and what is said about it.
const BODIES: &[(&str, &str)] = &[
    (
        "  schedule: { minimun: 1h, warm_up: 1m }\n  sucess: []\n",
        "3 mistakes in the experiment
  line 6:15  spec.schedule.minimun
             there is no such field; did you mean `minimum`?
  line 6:28  spec.schedule.warm_up
             there is no such field; did you mean `warmUp`?
  line 7:3   spec.sucess
             there is no such field; did you mean `success`?",
    ),
    (
        "  minimum: 1h\n  replicas: 3\n  cut: { budget: 1 }\n",
        "3 mistakes in the experiment
  line 6:3   spec.minimum
             there is no such field; `minimum` belongs into spec.schedule
  line 7:3   spec.replicas
             there is no such field; known are align, baseline, candidates, capture, clone, cut, guardrails, halt, hypothesis, promotion, schedule, success, target, traffic
  line 8:10  spec.cut.budget
             there is no such field; known are maxPause",
    ),
    (
        "  success:\n  - { class: Reads, quantile: 95 }\n  candidates: [{ nam: a }]\n",
        "2 mistakes in the experiment
  line 7:14  spec.success[0].class
             `Reads` is not one of Read, Write, Commit, Utility; did you mean Read?
  line 8:18  spec.candidates[0].nam
             there is no such field; did you mean `name`?",
    ),
    (
        "  success:\n  - class: Read\n    quantile: 95\n  traffic: { reads: 101 }\n  schedule: { minimum: 2d, maximum: 1d }\n",
        "5 mistakes in the experiment
  line 6:3   spec.success
             success criteria judge candidates; there are none
  line 7:5   spec.success[0]
             a criterion needs exactly one of improveBy and regressBy
  line 8:15  spec.success[0].quantile
             95 is not between 0.01 and 0.999
  line 9:21  spec.traffic.reads
             101 is not between 0 and 100
  line 10:3  spec.schedule
             minimum (2d) is longer than maximum (1d)",
    ),
    (
        "  cut: { maxPause: 50 }\n  clones: {}\n",
        "2 mistakes in the experiment
  line 6:20  spec.cut.maxPause
             `50` is not a duration like 50ms, 60s, 10m, 1h30m or 14d
  line 7:3   spec.clones
             there is no such field; did you mean `clone`?",
    ),
    (
        "  candidates:\n  - name: a\n    parameters: { work_mem: 64 }\n",
        "a mistake in the experiment
  line 8:29  spec.candidates[0].parameters.work_mem
             a text belongs here; quote it: \"64\"",
    ),
    (
        "  candidates: { name: a }\n  schedule: 1h\n  halt:\n  hypothesis: [a]\n",
        "4 mistakes in the experiment
  line 6:3  spec.candidates
            a list belongs here: `[ … ]`, or lines with `- …`
  line 7:3  spec.schedule
            fields belong here, like `maximum: …`
  line 8:3  spec.halt
            there is nothing in it; leave it out, or give it a value
  line 9:3  spec.hypothesis
            one value belongs here, not a list and not fields",
    ),
    (
        "  candidates: [{ name: a, sql: { apply: [] } }, { name: b, parameters: { jit: ~ } }, ~]\n",
        "2 mistakes in the experiment
  line 6:74  spec.candidates[1].parameters.jit
             there is nothing in it; leave it out, or give it a value
  line 6:86  spec.candidates[2]
             there is nothing in it; leave it out, or give it a value",
    ),
    (
        "  traffic: { reads: all }\n",
        "a mistake in the experiment
  line 6:21  spec.traffic.reads
             `all` is not a whole number between 0 and 100",
    ),
    (
        "  baseline: maybe\n",
        "a mistake in the experiment
  line 6:13  spec.baseline
             `maybe` is not true or false",
    ),
    (
        "  target: { citus: {} }\n",
        "a mistake in the experiment
  line 6:3  `target` stands here for the second time",
    ),
    (
        "---\nkind: ConfigMap\n",
        "a mistake in the experiment
  line 7:1  a second document begins here; put each experiment into a file of its own",
    ),
    (
        "  success: [\n",
        "a mistake in the experiment
  line 6:12  this is not YAML: unclosed bracket '['",
    ),
    (
        "\tcut: {}\n",
        "a mistake in the experiment
  line 6:2  this is not YAML: tabs disallowed within this context (block indentation)",
    ),
];

/// Whole documents, and what is said about them.
const DOCUMENTS: &[(&str, &str)] = &[
    ("", "a mistake in the experiment\n  there is nothing in it"),
    ("# later\n", "a mistake in the experiment\n  there is nothing in it"),
    ("index", "a mistake in the experiment\n  line 1:1  it is not a list of fields like `kind: …`"),
    (
        "apiVersion: apps/v1\nkind: StatefulSet\nspec: {}\n",
        "a mistake in the experiment
  line 1:13  apiVersion
             `apps/v1` can't be read here, only `understudy.dev/v1alpha1`",
    ),
    (
        "apiVersion: understudy.dev/v1alpha1\nkind: Experiment\n",
        "a mistake in the experiment
  line 2:7  kind
            `Experiment` can't be read here, only `ShadowExperiment`",
    ),
    (
        "spec: {}\n",
        "a mistake in the experiment
  line 1:1  apiVersion
            missing; a manifest begins with `apiVersion: understudy.dev/v1alpha1` and `kind: ShadowExperiment`",
    ),
    (
        "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\n",
        "2 mistakes in the experiment
  line 1:1  metadata
            missing; it has no default
  line 1:1  spec
            missing; it has no default",
    ),
    (
        "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\nmetadata: {}\nsepc:\n  target: { citus: {} }\n",
        "a mistake in the experiment
  line 4:1  sepc
            there is no such field; did you mean `spec`?",
    ),
    (
        "apiVersion: understudy.dev/v1alpha1\nkind: ShadowExperiment\nmetadata: {}\nspec:\n  target: {}\n",
        "2 mistakes in the experiment
  line 3:1  metadata.name
            the experiment needs a name
  line 5:3  spec.target
            target needs exactly one of statefulSet, local, cloudNativePg, citus",
    ),
];

#[test]
fn every_mistake_is_named_with_its_place_and_what_would_be_right() {
    for (body, expected) in BODIES {
        let text = format!("{HEAD}{TARGET}{body}");
        let error = manifest::read(&text).map(|_| ()).expect_err(body).to_string();
        assert_eq!(error, *expected, "\n{body}\n{error}");
    }
}

#[test]
fn a_document_that_is_no_experiment_is_told_so() {
    for (text, expected) in DOCUMENTS {
        let error = manifest::read(text).map(|_| ()).expect_err(text).to_string();
        assert_eq!(error, *expected, "\n{text}\n{error}");
    }
}

#[test]
fn nothing_a_person_can_write_ends_in_a_panic() {
    let whole = include_str!("manifests/good/local.yaml");
    for (end, _) in whole.char_indices().step_by(3) {
        // Beginnings of a good manifest: most are no YAML, or no experiment, and all have an answer.
        if let Err(error) = manifest::read(whole.get(..end).unwrap()) {
            assert!(!error.mistakes().is_empty(), "{error}");
            let text = error.to_string();
            assert!(text.contains("not YAML") || !text.contains("expected"), "the parser's own words: {text}");
        }
    }
}
