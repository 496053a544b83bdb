//! A session that rests although no Sync has come: some clients prepare a statement, or close one, with a Flush, and say
//! nothing more until they need it (asyncpg, skunk). Nothing can come of that before they do. Pure.

use crate::wire::{
    backend::{is_asynchronous, tag as b},
    frontend::tag as f,
};

/// How far the messages of an exchange are that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Rest {
    /// Nothing of it has been asked to be answered.
    #[default]
    Asking,
    /// A Flush is the last of it.
    Flushed,
    /// And has been answered.
    Answered,
    /// It executes something, copies, or has failed: it is under way until its Sync.
    Never,
}

impl Rest {
    /// The client has sent such a message.
    pub(super) fn sent(&mut self, tag: u8) {
        *self = match (*self, tag) {
            (Self::Never, _) => Self::Never,
            (_, f::FLUSH) => Self::Flushed,
            (_, f::PARSE | f::BIND | f::DESCRIBE | f::CLOSE) => Self::Asking,
            _ => Self::Never,
        };
    }

    /// The server answers.
    pub(super) fn answered(&mut self, tag: u8) {
        *self = match (*self, tag) {
            (_, b::ERROR) | (Self::Never, _) => Self::Never,
            (Self::Flushed, tag) if !is_asynchronous(tag) => Self::Answered,
            (other, _) => other,
        };
    }

    /// Whether the session rests.
    pub(super) fn is_here(self) -> bool {
        self == Self::Answered
    }
}
