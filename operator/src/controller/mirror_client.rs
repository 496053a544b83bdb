//! Speaks with a mirror pod: is it well, what does it say, and the verbs. Every call has a short limit;
//! a mirror that does not answer must not hold the controller up.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Secret;
use understudy_crds::{
    ShadowExperimentStatus,
    pods::{CONTROL_PORT, CandidatesNotice, CandidatesTaken, HEALTH_PORT, PromotionNotice},
};

use super::objects::tls::{CA, OPERATOR};
use crate::peer::{
    http::{HttpError, Peer},
    identity::{Identity, IdentityError, NameError, expecting},
};

/// How long a mirror that is well takes to say so, at most: three of these and the pauses between them
/// must fit into five seconds.
const HEALTH_LIMIT: Duration = Duration::from_millis(800);
/// How long a verb and the status may take.
const CALL_LIMIT: Duration = Duration::from_secs(2);

/// Why a mirror did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// It did not answer, or said no.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There are no certificates yet.
    #[error("the experiment has no certificates yet")]
    NoCertificates,
    /// The experiment's certificates are not what they should be.
    #[error(transparent)]
    Certificates(#[from] IdentityError),
    /// The mirror's name is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// A mirror pod.
#[derive(Clone)]
pub struct MirrorClient {
    health: Peer,
    control: Option<Peer>,
}

impl MirrorClient {
    /// The mirror at a pod's address, known by the name in its certificate.
    pub fn new(address: &str, name: &str, certificates: Option<&Secret>) -> Result<Self, MirrorError> {
        let control = match certificates {
            None => None,
            Some(secret) => {
                let tls = expecting(name, identity(secret).client()?)?;
                Some(Peer::new(address, CONTROL_PORT, tls))
            }
        };
        Ok(Self { health: Peer::plain(address, HEALTH_PORT), control })
    }

    /// Whether it is well.
    pub async fn is_healthy(&self) -> bool {
        self.health.get_bytes("/healthz", HEALTH_LIMIT).await.is_ok()
    }

    /// What it says.
    pub async fn status(&self) -> Result<ShadowExperimentStatus, MirrorError> {
        Ok(self.control()?.get("/v1/status", CALL_LIMIT).await?)
    }

    /// The version of the candidates that its arms are of.
    pub async fn candidates_taken(&self) -> Result<String, MirrorError> {
        let taken: CandidatesTaken = self.control()?.get("/v1/candidates", CALL_LIMIT).await?;
        Ok(taken.version)
    }

    /// Its report, a JSON document.
    pub async fn report(&self) -> Result<Bytes, MirrorError> {
        Ok(self.control()?.get_bytes("/v1/report.json", CALL_LIMIT).await?)
    }

    /// Says that no Service leads to it any more: it may end once its clients have left.
    pub async fn release(&self) -> Result<(), MirrorError> {
        Ok(self.control()?.post_nothing("/v1/release", CALL_LIMIT).await?)
    }

    /// Stops mirroring; what clients do goes on.
    pub async fn halt(&self) -> Result<(), MirrorError> {
        Ok(self.control()?.post_nothing("/v1/halt", CALL_LIMIT).await?)
    }

    /// Tells it which candidates there shall be.
    pub async fn candidates(&self, notice: &CandidatesNotice) -> Result<(), MirrorError> {
        Ok(self.control()?.post("/v1/candidates", notice, CALL_LIMIT).await?)
    }

    /// Tells it about the promotion.
    pub async fn announce(&self, notice: &PromotionNotice) -> Result<(), MirrorError> {
        Ok(self.control()?.post("/v1/promotion", notice, CALL_LIMIT).await?)
    }

    fn control(&self) -> Result<&Peer, MirrorError> {
        self.control.as_ref().ok_or(MirrorError::NoCertificates)
    }
}

/// The operator's certificate in the experiment's Secret. What is missing there is told as unreadable.
fn identity(secret: &Secret) -> Identity {
    let get = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |bytes| &bytes.0);
    let place = format!("the Secret {}", secret.metadata.name.as_deref().unwrap_or_default());
    Identity::of_texts(&place, get(CA), get(&OPERATOR.certificate()), get(&OPERATOR.key()))
}
