//! The demo's experiment, as it is run and as it is shown to the user. A test holds the two
//! together, so that what is shown can be copied and run.

use std::collections::BTreeMap;

use understudy_crds::{
    Candidate, Percent, ShadowExperiment, ShadowExperimentSpec, Span,
    experiment::{
        CandidateSql, CaptureSpec, CloneSpec, Criterion, CutSpec, Guardrails, LocalTarget, Promotion, PromotionPolicy,
        Schedule, StatementClass, Target, TrafficSpec,
    },
};

/// Name of the experiment and of its candidate.
pub const NAME: &str = "user-id-index";

const HYPOTHESIS: &str =
    "An index that begins with the user cuts the read p95 of dashboards by 15 % and costs writes next to nothing.";
const APPLY: &str = "CREATE INDEX CONCURRENTLY events_user_id ON events (user_id, event_type, ts)";
const REVERT: &str = "DROP INDEX CONCURRENTLY IF EXISTS events_user_id";

/// The demo's experiment against `target`.
pub fn experiment(target: LocalTarget) -> ShadowExperiment {
    let read = Criterion {
        class: StatementClass::Read,
        quantile: 0.95,
        improve_by: Some(Percent::from_fraction(0.15)),
        regress_by: None,
    };
    let write = Criterion {
        class: StatementClass::Write,
        quantile: 0.5,
        improve_by: None,
        regress_by: Some(Percent::from_fraction(0.25)),
    };
    ShadowExperiment::new(
        NAME,
        ShadowExperimentSpec {
            hypothesis: Some(HYPOTHESIS.to_owned()),
            target: Target { stateful_set: None, local: Some(target), cloud_native_pg: None, citus: None },
            clone: CloneSpec::default(),
            cut: CutSpec::default(),
            capture: CaptureSpec::default(),
            baseline: true,
            candidates: vec![Candidate {
                name: NAME.to_owned(),
                parameters: BTreeMap::from([("random_page_cost".to_owned(), "1.1".to_owned())]),
                sql: Some(CandidateSql { apply: vec![APPLY.to_owned()], revert: vec![REVERT.to_owned()] }),
                ..Candidate::default()
            }],
            align: None,
            traffic: TrafficSpec::default(),
            schedule: Schedule {
                warm_up: Span::from_secs(12),
                minimum: Span::from_secs(15),
                maximum: Span::from_secs(90),
            },
            success: vec![read, write],
            guardrails: Guardrails {
                max_lag: Some(Span::from_secs(30)),
                max_divergence: Some(Percent::from_fraction(0.01)),
                max_production_overhead: None,
            },
            promotion: Promotion { policy: PromotionPolicy::Automatic },
            halt: false,
        },
    )
}

/// The same experiment as a document with comments, for people to read, change and run.
pub fn document(target: &LocalTarget) -> String {
    let LocalTarget { host, port, user, database, password_file, listen } = target;
    let password =
        password_file.as_ref().map_or(String::new(), |file| format!("\n      passwordFile: {}", quoted(file)));
    let (host, user, database, listen) = (quoted(host), quoted(user), quoted(database), quoted(listen));
    format!(
        "# Would this change make the worker better? Run it with: understudy run -f THIS-FILE
apiVersion: understudy.dev/v1alpha1
kind: ShadowExperiment
metadata:
  name: {NAME}
spec:
  # What you expect, in your own words. It heads the report.
  hypothesis: {HYPOTHESIS}

  # The worker under study. Your application connects to `listen` instead of the worker.
  target:
    local:
      host: {host}
      port: {port}
      user: {user}
      database: {database}{password}
      listen: {listen}

  # The change: one clone is made with it, one without (the baseline). Both get every statement that
  # the worker gets. What wins here is what promotion does to the worker, to the letter.
  candidates:
  - name: {NAME}
    parameters:
      random_page_cost: \"1.1\"
    sql:
      apply:
      - {APPLY}
      revert:
      - {REVERT}

  schedule:
    warmUp: 12s     # caches fill; nothing is measured
    minimum: 15s    # no verdict before
    maximum: 90s    # the end, clear or not

  # Better: all of these hold, at least one of them an improvement.
  success:
  - class: Read
    quantile: 0.95
    improveBy: 15%
  - class: Write
    quantile: 0.5
    regressBy: 25%

  # Any of these stops the experiment. Your application does not notice.
  guardrails:
    maxLag: 30s
    maxDivergence: 1%

  # Manual: a person decides. Automatic: a candidate that is Better is rolled out.
  promotion:
    policy: Automatic
"
    )
}

/// A YAML string that means the text, whatever stands in it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') && text.chars().all(plain);
    let reserved = ["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str());
    if word && !reserved { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use understudy_crds::{support::unsupported_locally, validate::violations};

    use super::*;

    fn target() -> LocalTarget {
        LocalTarget {
            host: "127.0.0.1".into(),
            port: 6432,
            user: "postgres".into(),
            database: "app".into(),
            password_file: None,
            listen: "127.0.0.1:0".into(),
        }
    }

    #[test]
    fn the_document_says_what_is_run() {
        let odd = LocalTarget {
            host: "/tmp/a dir: #1".into(),
            user: "no".into(),
            database: "it's \"quoted\"\\".into(),
            password_file: Some("/run/secret: x".into()),
            ..target()
        };
        for target in [target(), odd] {
            let text = document(&target);
            let read: ShadowExperiment = serde_saphyr::from_str(&text).expect(&text);
            assert_eq!(read, experiment(target));
        }
    }

    #[test]
    fn the_experiment_is_valid_and_supported() {
        let experiment = experiment(target());
        assert_eq!(violations(&experiment), []);
        assert_eq!(unsupported_locally(&experiment.spec), []);
    }
}
