//! Names that mark what Understudy makes, so that nobody takes a clone for production.

/// The experiment that something belongs to.
pub const EXPERIMENT: &str = "understudy.dev/experiment";
/// The arm that something belongs to.
pub const ARM: &str = "understudy.dev/arm";
/// The part something plays: `arm` or `mirror`.
pub const COMPONENT: &str = "understudy.dev/component";

/// [`COMPONENT`] of the pod through which clients reach the worker.
pub const COMPONENT_MIRROR: &str = "mirror";
/// [`COMPONENT`] of a clone's pod.
pub const COMPONENT_ARM: &str = "arm";

/// On the experiment: keeps the resource until production goes direct again and what was made is gone.
pub const FINALIZER: &str = "understudy.dev/restore-routing";
/// On the worker's Service while the mirror stands in its place, and on the experiment: the selector as
/// it was, as JSON.
pub const ROUTING: &str = "understudy.dev/routing";
/// On the experiment: the candidate that a person wants on all workers.
pub const PROMOTE: &str = "understudy.dev/promote";
/// On the experiment: what its candidates were when they were judged, as JSON, by name; another value than the
/// one that is worked out from the document says that a candidate was edited since.
pub const TESTED: &str = "understudy.dev/tested";
/// On the experiment: how far the rollout is, as JSON, so that a restarted operator goes on.
pub const ROLLOUT: &str = "understudy.dev/rollout";
/// On what was made: what it was made from. Something else asked for later shows as another value.
pub const REVISION: &str = "understudy.dev/revision";

/// The name of the production side where arms are listed.
pub const PRODUCTION: &str = "production";
/// The name of the unchanged clone.
pub const BASELINE: &str = "baseline";

/// A clone's `cluster_name`: it stands in the process title and in every log line of the clone.
pub fn cluster_name(experiment: &str, arm: &str) -> String {
    format!("understudy/{experiment}/{arm}")
}
