//! How far the COPYs from the client are that belong to one exchange. Pure.
//!
//! Both sides are heard, and neither waits for the other to be heard: a client may send the data before the server
//! has asked for it. So it is counted what each has said, and where the COPY stands follows from both counts
//! (chapter "Message Flow", "COPY Operations" and "Extended Query").

use crate::wire::frontend::tag as f;

/// What both sides have said of the COPYs of one exchange.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CopyIn {
    /// How often the server has asked for data.
    asked: u32,
    /// How often the client has said that there is no more, or the server that it takes no more.
    ended: u32,
    /// The same when the Sync of the request was sent; nothing: it has none.
    ended_before_sync: Option<u32>,
    /// The Sync behind the data has come.
    synced: bool,
    /// The server has failed a COPY that it had asked for data of.
    failed: bool,
}

/// What a Sync behind a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyncIs {
    /// An exchange of its own.
    Own,
    /// The one that ends the COPY: the server has ignored the one of the request.
    Part,
    /// One or the other: the client has sent data, and the server has not said yet whether it takes any.
    Open,
}

impl CopyIn {
    /// The server asks for data.
    pub(super) fn asked(&mut self) {
        self.asked += 1;
    }

    /// The server has failed: it takes no more data.
    pub(super) fn failed(&mut self) {
        self.failed |= self.asked > 0;
        self.ended = self.ended.max(self.asked);
    }

    /// The client has sent, into a COPY, what belongs to none. In a simple query that fails it, and what comes then is a
    /// request again; a server since 14 ends the session.
    pub(super) fn disturbed(&mut self) {
        if self.ended_before_sync.is_none() {
            self.failed();
        }
    }

    /// The request is complete; its last message is a Sync.
    pub(super) fn request_ends_with_sync(&mut self) {
        self.ended_before_sync = Some(self.ended);
    }

    /// The client has sent a message of this kind.
    pub(super) fn sent(&mut self, tag: u8) {
        self.ended += u32::from(matches!(tag, f::COPY_DONE | f::COPY_FAIL));
    }

    /// The Sync behind the data has come.
    pub(super) fn synced(&mut self) {
        self.synced = true;
    }

    /// The server waits for data of which the client has not said the end.
    pub(super) fn wants_data(&self) -> bool {
        self.asked > self.ended
    }

    /// Whether the server may answer both the Sync of the request and the one behind the data: it does when it fails the
    /// COPY before it has read the first of them (a trigger before the statement, say).
    pub(super) fn may_be_answered_twice(&self) -> bool {
        self.failed && self.synced
    }

    /// What a Sync is that comes now.
    pub(super) fn next_sync(&self) -> SyncIs {
        match self.ended_before_sync {
            Some(before) if self.asked > before && !self.synced => SyncIs::Part,
            Some(before) if self.asked == 0 && self.ended > before => SyncIs::Open,
            _ => SyncIs::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_sync_ends_a_copy_follows_from_both_counts() {
        // S and Q: the request ends with it or without it; G and E: the server asks, and fails; D: the client ends it.
        for (said, wants_data, sync) in [
            ("S", false, SyncIs::Own),
            ("SG", true, SyncIs::Part),
            ("SGD", false, SyncIs::Part),
            ("SGE", false, SyncIs::Part),
            // Sent before it was asked for.
            ("SD", false, SyncIs::Open),
            ("SDG", false, SyncIs::Part),
            // All in one request, whether or not it was asked for by then.
            ("DS", false, SyncIs::Own),
            ("DSG", false, SyncIs::Own),
            ("GDS", false, SyncIs::Own),
            ("GS", true, SyncIs::Part),
            // Two COPYs in a simple query.
            ("QGD", false, SyncIs::Own),
            ("QGDG", true, SyncIs::Own),
            ("QDDG", false, SyncIs::Own),
            // Disturbed by what belongs to no COPY.
            ("QGX", false, SyncIs::Own),
            ("SGX", true, SyncIs::Part),
        ] {
            let mut copy = CopyIn::default();
            for one in said.chars() {
                match one {
                    'S' => copy.request_ends_with_sync(),
                    'G' => copy.asked(),
                    'E' => copy.failed(),
                    'D' => copy.sent(f::COPY_DONE),
                    'X' => copy.disturbed(),
                    _ => {}
                }
            }
            assert_eq!((copy.wants_data(), copy.next_sync()), (wants_data, sync), "{said}");
            copy.synced();
            assert_ne!(copy.next_sync(), SyncIs::Part, "{said}");
        }
    }
}
