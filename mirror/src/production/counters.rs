//! What the production path counts. Causes are a closed list: nothing that a client sent decides what is counted
//! under which name.

use std::sync::atomic::{AtomicU64, Ordering};

/// What the production path counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Attempts to accept one that failed. Those clients wait and are not lost.
    pub unaccepted: AtomicU64,
    /// Connections that are encrypted.
    pub encrypted: AtomicU64,
    /// Logins refused since the client's channel could not be bound to the worker's.
    pub unbound: AtomicU64,
    /// Cancel requests passed on.
    pub cancels: AtomicU64,
    /// Replication connections, which are relayed and not mirrored.
    pub replication: AtomicU64,
    /// The worker could not be reached.
    pub worker_unreachable: AtomicU64,
    unencrypted: [AtomicU64; NoTls::ALL.len()],
    malformed: [[AtomicU64; Wrong::ALL.len()]; Side::ALL.len()],
    refused: [AtomicU64; Cause::ALL.len()],
}

/// Who has sent what is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The worker.
    Worker,
}

impl Side {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Client, Self::Worker];

    /// Its name in the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
        }
    }
}

/// What is wrong with what one side has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// A message of a length that none may have.
    Length,
    /// It ended in the middle of a message.
    Truncated,
    /// A message that the other side can't make sense of, or not now: of no type or no layout, out of turn.
    Protocol,
    /// What belongs to no TLS of this connection.
    Record,
}

impl Wrong {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Length, Self::Truncated, Self::Protocol, Self::Record];

    /// Its name in the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Truncated => "truncated",
            Self::Protocol => "protocol",
            Self::Record => "record",
        }
    }
}

/// Why there is no TLS with a client that both sides take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoTls {
    /// The client has to use it, and does not.
    Plain,
    /// The two have no version or cipher in common.
    Version,
    /// The client's certificate is missing, or not taken.
    Certificate,
    /// The client ended it: it does not take what it was shown, say.
    Alert,
    /// What the client sends is no TLS.
    Record,
}

impl NoTls {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Version, Self::Certificate, Self::Alert, Self::Record];

    /// Its name in the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Version => "version",
            Self::Certificate => "certificate",
            Self::Alert => "alert",
            Self::Record => "record",
        }
    }
}

impl From<&rustls::Error> for NoTls {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => Self::Version,
            rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_) => Self::Certificate,
            rustls::Error::AlertReceived(_) => Self::Alert,
            _ => Self::Record,
        }
    }
}

/// Why a connection ended before its client was in a session, where no other counter says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The client went away before it had said what it wants.
    Vanished,
    /// It had not said it in time.
    Silent,
    /// It sent a first packet of a length that none may have.
    Length,
    /// It spoke TLS that it was not offered.
    Unasked,
    /// It sent a first packet that the worker refuses: another protocol, a layout that can't be read.
    Protocol,
    /// Its login was not over in time.
    Late,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Vanished, Self::Silent, Self::Length, Self::Unasked, Self::Protocol, Self::Late];

    /// Its name in the metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vanished => "vanished",
            Self::Silent => "silent",
            Self::Length => "length",
            Self::Unasked => "unasked",
            Self::Protocol => "protocol",
            Self::Late => "late",
        }
    }
}

impl Counters {
    /// Counts a connection that ended for what this side has sent.
    pub fn malform(&self, side: Side, wrong: Wrong) {
        if let Some(counter) = self.malformed.get(side as usize).and_then(|by| by.get(wrong as usize)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections ended for what this side has sent.
    pub fn malformed(&self, side: Side, wrong: Wrong) -> u64 {
        let counter = self.malformed.get(side as usize).and_then(|by| by.get(wrong as usize));
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts a connection that ended for want of TLS that both sides take.
    pub fn leave_unencrypted(&self, why: NoTls) {
        if let Some(counter) = self.unencrypted.get(why as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections that ended for want of TLS that both sides take, for this reason.
    pub fn unencrypted(&self, why: NoTls) -> u64 {
        self.unencrypted.get(why as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// Counts a connection that ended before a session.
    pub fn refuse(&self, cause: Cause) {
        if let Some(counter) = self.refused.get(cause as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Connections that ended before a session, for this cause.
    pub fn refused(&self, cause: Cause) -> u64 {
        self.refused.get(cause as usize).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_counter_and_a_word_of_its_own() {
        let counters = Counters::default();
        for (times, cause) in Cause::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.refuse(cause));
        }
        assert_eq!(Cause::ALL.map(|cause| counters.refused(cause)), [0, 1, 2, 3, 4, 5]);
        for (times, wrong) in Wrong::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.malform(Side::Worker, wrong));
        }
        let malformed = Side::ALL.map(|side| (side.word(), Wrong::ALL.map(|wrong| counters.malformed(side, wrong))));
        assert_eq!(malformed, [("client", [0; 4]), ("worker", [0, 1, 2, 3])]);
        assert_eq!(Wrong::ALL.map(Wrong::word), ["length", "truncated", "protocol", "record"]);
        for (times, why) in NoTls::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counters.leave_unencrypted(why));
        }
        assert_eq!(NoTls::ALL.map(|why| counters.unencrypted(why)), [0, 1, 2, 3, 4]);
        assert_eq!(NoTls::ALL.map(NoTls::word), ["plain", "version", "certificate", "alert", "record"]);
        let mut words = Cause::ALL.map(Cause::word).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Cause::ALL.len());
    }
}
