//! Names that mark what Understudy makes, so that nobody takes a clone for production.

/// The experiment that something belongs to.
pub const EXPERIMENT: &str = "understudy.dev/experiment";
/// The arm that something belongs to.
pub const ARM: &str = "understudy.dev/arm";
/// The part something plays: `arm` or `mirror`.
pub const COMPONENT: &str = "understudy.dev/component";

/// The name of the production side where arms are listed.
pub const PRODUCTION: &str = "production";
/// The name of the unchanged clone.
pub const BASELINE: &str = "baseline";

/// A clone's `cluster_name`: it stands in the process title and in every log line of the clone.
pub fn cluster_name(experiment: &str, arm: &str) -> String {
    format!("understudy/{experiment}/{arm}")
}
