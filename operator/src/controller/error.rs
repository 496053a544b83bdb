//! What can go wrong for the controller itself, as a closed list: what a user did is a refusal, not
//! one of these.

/// Why a reconciliation could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API server could not be reached, or refused.
    #[error("{doing}: {source}")]
    Api {
        /// What was being done.
        doing: &'static str,
        /// What the client says.
        #[source]
        source: kube::Error,
    },
    /// Somebody else keeps changing the same object.
    #[error("{0} was changed by somebody else each time we tried")]
    Contended(&'static str),
    /// Certificates could not be made.
    #[error("the experiment's certificates can't be made: {0}")]
    Certificates(#[from] rcgen::Error),
    /// Something that we wrote can't be read or written as JSON.
    #[error("{0} is not the document it should be: {1}")]
    Document(&'static str, #[source] serde_json::Error),
}

impl ControllerError {
    /// The kind, for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Api { .. } => "api",
            Self::Contended(_) => "contended",
            Self::Certificates(_) => "certificates",
            Self::Document(..) => "document",
        }
    }

    /// The API server's own words, when it refused for a reason that a user can do something about: a
    /// quota, a policy, a webhook.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Api { source: kube::Error::Api(status), .. } if matches!(status.code, 400 | 403 | 422) => {
                Some(status.message.clone())
            }
            _ => None,
        }
    }
}

/// Says what was being done when a call failed.
pub trait Doing<T> {
    /// Names the deed.
    fn doing(self, doing: &'static str) -> Result<T, ControllerError>;
}

impl<T> Doing<T> for Result<T, kube::Error> {
    fn doing(self, doing: &'static str) -> Result<T, ControllerError> {
        self.map_err(|source| ControllerError::Api { doing, source })
    }
}

/// Whether the API server says that there is no such object.
pub fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object is there already, or was changed in the meantime.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
