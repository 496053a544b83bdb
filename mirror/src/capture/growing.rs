//! Bytes of a request, or of a COPY's data, while they come in. Growing must not move what is there once it is
//! large: a production thread that copies 64 MB into fresh memory serves nobody for tens of milliseconds. Nor must a
//! machine that has no memory left for it end production, which does not need it.

use bytes::Bytes;

/// What is smaller is moved when it grows, as vectors are.
const LARGE_BYTES: usize = 256 * 1024;

/// Bytes that only grow.
#[derive(Debug, Default)]
pub struct Growing(Vec<u8>);

/// It is as long as it may be, or there is no memory for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for more")]
pub struct NoRoom;

impl Growing {
    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Lets go of what is behind so many bytes.
    pub fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// Appends, up to `most_bytes` in all, for which there is room once it is large. The room is a reservation of addresses:
    /// memory is taken as it is filled. With 0 there is neither a limit nor a reservation: it is moved, as vectors are.
    pub fn extend(&mut self, bytes: &[u8], most_bytes: usize) -> Result<(), NoRoom> {
        let (length, capacity) = (self.0.len(), self.0.capacity());
        let needed = length.saturating_add(bytes.len());
        if most_bytes > 0 && needed > most_bytes {
            return Err(NoRoom);
        }
        if needed > capacity {
            let reserves = most_bytes > 0 && needed > LARGE_BYTES;
            // Where addresses are short it is moved after all.
            if !reserves || self.0.try_reserve_exact(most_bytes - length).is_err() {
                self.0.try_reserve(bytes.len()).map_err(|_| NoRoom)?;
            }
        }
        self.0.extend_from_slice(bytes);
        Ok(())
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
            growing.extend(&piece, most_bytes).unwrap();
            assert!(growing.len() <= 2 * LARGE_BYTES + piece.len(), "moved for the last time while it is not large");
        }
        let place = growing.0.as_ptr();
        while growing.len() + piece.len() <= most_bytes {
            growing.extend(&piece, most_bytes).unwrap();
            assert_eq!(growing.0.as_ptr(), place, "moved at {} bytes", growing.len());
        }
        let full_bytes = growing.len();
        assert_eq!(growing.extend(&piece, most_bytes), Err(NoRoom));
        assert_eq!(
            (growing.0.as_ptr(), growing.len()),
            (place, full_bytes),
            "what does not fit does not move it either"
        );
        let bytes = Bytes::from(growing);
        assert!(bytes.as_ptr() == place && bytes.iter().all(|byte| *byte == 7), "nor when it is whole");
    }

    #[test]
    fn what_is_small_takes_little() {
        let mut growing = Growing::default();
        growing.extend(&[1; 100], usize::MAX).unwrap();
        assert!(growing.0.capacity() < 1000);
        growing.extend(&vec![1; LARGE_BYTES], usize::MAX).unwrap();
        assert_eq!(growing.len(), LARGE_BYTES + 100, "more than there are addresses for is no failure");
    }

    #[test]
    fn without_a_reservation_it_grows_as_vectors_do() {
        let mut growing = Growing::default();
        for _ in 0..4 {
            growing.extend(&vec![1; LARGE_BYTES], 0).unwrap();
            assert!(growing.0.capacity() <= 2 * growing.len().next_power_of_two());
        }
        assert_eq!(growing.len(), 4 * LARGE_BYTES);
    }
}
