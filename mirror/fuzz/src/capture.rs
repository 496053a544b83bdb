//! Checks of the capture: the tracker, and the digest of rows.

use understudy_mirror::{
    capture::{
        digest::{RowDigest, Rows},
        exchange::SessionId,
        moments::Moments,
        tracker::{Keep, Step, Tracker},
    },
    wire::encode,
};

/// A conversation: chunks of both sides, and whether it is the server's. Before each stands a byte: its side
/// and its length.
pub fn chunks(data: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (head, tail) = rest.split_first()?;
        let (chunk, tail) = tail.split_at(usize::from(head & 0x7f).min(tail.len()));
        rest = tail;
        Some((head & 0x80 != 0, chunk))
    })
}

/// The tracker takes any chunks of both sides in any order; every exchange that begins ends once, in
/// order, and nothing is under way when the connection is gone.
pub fn tracker(data: &[u8]) {
    let mut tracker = Tracker::new(SessionId(1), Keep::Requests);
    let (mut steps, mut now_ns) = (Vec::new(), 0);
    for (from_server, chunk) in chunks(data) {
        now_ns += 1;
        let taken = if from_server {
            tracker.server(chunk, now_ns, &mut steps)
        } else {
            tracker.client(chunk, now_ns, &mut steps)
        };
        if taken.is_err() {
            break;
        }
    }
    tracker.broken(now_ns, &mut steps);
    let (mut begun, mut ended, mut request_bytes) = (0, 0, 0);
    for step in steps {
        match step {
            Step::Begun(exchange) => {
                assert_eq!(exchange.sequence, begun);
                request_bytes += exchange.request.len();
                begun += 1;
            }
            Step::Ended(exchange) => {
                assert_eq!(exchange.sequence, ended);
                let Some(outcome) = exchange.outcome.get() else { panic!("what has ended has an outcome") };
                assert!(outcome.ended_ns >= outcome.served_from_ns);
                request_bytes += outcome.copy_in.len();
                ended += 1;
            }
            Step::LoggedIn | Step::Terminated => {}
        }
    }
    assert_eq!(ended, begun, "every exchange ends, at the latest with its connection");
    // What a connection that is gone had begun is brought to its end, once.
    let end_bytes = encode::FAIL.len() + encode::SYNC.len();
    assert!(request_bytes <= data.len() + end_bytes, "nothing is kept that was not sent");
}

/// Rows have one digest however the stream is cut and in whatever order they come, and another when a byte of
/// them changes. The first byte says how it is cut, the second how long rows are.
pub fn digest(data: &[u8]) {
    let Some(([cut, row], rest)) = data.split_first_chunk::<2>() else { return };
    // Some rows longer than a segment.
    let repeated = rest.repeat(if cut & 1 == 0 { 1 } else { 1 + (70_000 / rest.len().max(1)) });
    let row_bytes = if cut & 1 == 0 { usize::from(*row) + 1 } else { 66_000 + usize::from(*row) };
    let rows: Vec<&[u8]> = repeated.chunks(row_bytes).collect();
    let whole = digested(rows.iter().copied(), usize::MAX);
    assert_eq!(whole.rows, u64::try_from(rows.len()).unwrap_or(0));
    assert_eq!(digested(rows.iter().copied(), usize::from(*cut) + 1 + row_bytes / 9), whole, "however it is cut");
    assert_eq!(digested(rows.iter().rev().copied(), usize::MAX), whole, "in whatever order");
    if let Some((last, before)) = rows.split_last() {
        let mut changed = last.to_vec();
        if let Some(byte) = changed.first_mut() {
            *byte ^= 1;
        }
        let others = before.iter().copied().chain([changed.as_slice()]);
        assert_ne!(digested(others, usize::MAX), whole, "another row");
    }
}

fn digested<'a>(rows: impl Iterator<Item = &'a [u8]>, cut: usize) -> Rows {
    let mut digest = RowDigest::without(Moments::between(0, 20_000));
    for row in rows {
        let pieces = row.chunks(cut).count().max(1);
        if row.is_empty() {
            digest.piece(row, true, true, true);
        }
        for (index, piece) in row.chunks(cut).enumerate() {
            digest.piece(piece, index == 0, index + 1 == pieces, true);
        }
    }
    digest.take()
}
