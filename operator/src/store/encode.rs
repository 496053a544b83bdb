//! Values as the store keeps them: JSON for documents, V2 deflated for histograms, words for enums.

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2DeflateSerializer},
};
use serde::{Serialize, de::DeserializeOwned};
use understudy_crds::experiment::StatementClass;

use super::{Stage, error::StoreError};

/// Which of an arm's histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Service,
    Response,
    Ratio,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Service, Self::Response, Self::Ratio];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Response => "response",
            Self::Ratio => "ratio",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

pub(super) fn class_named(name: &str) -> Option<StatementClass> {
    StatementClass::ALL.into_iter().find(|class| class.name() == name)
}

pub(super) fn stage(stage: Stage) -> i64 {
    match stage {
        Stage::Observing => 0,
        Stage::Promoted => 1,
    }
}

/// SQLite's integers are signed; nothing that is counted here comes near the difference.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn json<T: Serialize>(value: &T, what: &'static str) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Encode { what, why: error.to_string() })
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn histogram(serializer: &mut V2DeflateSerializer, value: &Histogram<u64>) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    serializer
        .serialize(value, &mut bytes)
        .map_err(|error| StoreError::Encode { what: "a histogram", why: error.to_string() })?;
    Ok(bytes)
}

pub(super) fn from_v2(deserializer: &mut Deserializer, mut bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let mut value: Histogram<u64> = deserializer.deserialize(&mut bytes).map_err(|error| format!("{error:?}"))?;
    // As everywhere else: histograms grow.
    value.auto(true);
    Ok(value)
}
