//! Bytes of a request, or of a COPY's data, while they come in. Growing must not move what is there once it is
//! large: a production thread that copies 64 MB into fresh memory serves nobody for tens of milliseconds.

use bytes::Bytes;

/// What is smaller is moved when it grows, as vectors are.
const LARGE_BYTES: usize = 256 * 1024;

/// Bytes that only grow.
#[derive(Debug, Default)]
pub struct Growing(Vec<u8>);

impl Growing {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets go of what is behind so many bytes.
    pub fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// Appends, with room for at least `most_bytes` in all once it is large. The room is a reservation of addresses:
    /// memory is taken as it is filled. What outgrows it is moved, as vectors are.
    pub fn extend(&mut self, bytes: &[u8], most_bytes: usize) {
        let (length, capacity) = (self.0.len(), self.0.capacity());
        let needed = length.saturating_add(bytes.len());
        if needed > capacity && needed > LARGE_BYTES && needed < most_bytes {
            // Where addresses are short it is moved after all.
            let _ = self.0.try_reserve_exact(most_bytes.saturating_sub(length));
        }
        self.0.extend_from_slice(bytes);
    }
}

impl From<Growing> for Bytes {
    fn from(growing: Growing) -> Self {
        growing.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_not_moved_when_it_grows() {
        let (mut growing, most_bytes) = (Growing::default(), 64 * LARGE_BYTES);
        let piece = [7; 10_000];
        while growing.0.capacity() < most_bytes {
            growing.extend(&piece, most_bytes);
            assert!(growing.len() <= 2 * LARGE_BYTES + piece.len(), "moved for the last time while it is not large");
        }
        let place = growing.0.as_ptr();
        while growing.len() + piece.len() <= most_bytes {
            growing.extend(&piece, most_bytes);
            assert_eq!(growing.0.as_ptr(), place, "moved at {} bytes", growing.len());
        }
        let bytes = Bytes::from(growing);
        assert!(bytes.as_ptr() == place && bytes.iter().all(|byte| *byte == 7), "nor when it is whole");
    }

    #[test]
    fn what_is_small_takes_little() {
        let mut growing = Growing::default();
        growing.extend(&[1; 100], usize::MAX);
        assert!(growing.0.capacity() < 1000);
        growing.extend(&vec![1; LARGE_BYTES], usize::MAX);
        assert_eq!(growing.len(), LARGE_BYTES + 100, "more than there are addresses for is no failure");
    }
}
