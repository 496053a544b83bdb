//! How far an exchange is whose Sync has not come. Some clients prepare a statement, or close one, with a Flush, and say
//! nothing more until they need it (asyncpg, skunk): the session rests then, and nothing can come of it before they do.
//! Pure.

use crate::wire::{
    backend::{is_asynchronous, tag as b},
    frontend::tag as f,
};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Unsynced {
    /// The client is still asking.
    #[default]
    Asking,
    /// A Flush is the last of it.
    Flushed,
    /// And has been answered.
    Answered,
    /// It executes something, or copies: it is under way until its Sync.
    Executes,
    /// The server has failed it, and ignores everything until its Sync.
    Failed,
}

impl Unsynced {
    /// The client has sent such a message.
    pub(super) fn sent(&mut self, tag: u8) {
        *self = match (*self, tag) {
            (lasting @ (Self::Executes | Self::Failed), _) => lasting,
            (_, f::FLUSH) => Self::Flushed,
            (_, f::PARSE | f::BIND | f::DESCRIBE | f::CLOSE) => Self::Asking,
            _ => Self::Executes,
        };
    }

    /// The server answers it.
    pub(super) fn answered(&mut self, tag: u8) {
        *self = match (*self, tag) {
            (_, b::ERROR) => Self::Failed,
            (Self::Flushed, tag) if !is_asynchronous(tag) => Self::Answered,
            (other, _) => other,
        };
    }

    /// Whether the session rests.
    pub(super) fn rests(self) -> bool {
        self == Self::Answered
    }

    /// Whether the server ignores such a message.
    pub(super) fn ignores(self, tag: u8) -> bool {
        self == Self::Failed && tag != f::SYNC
    }
}
