//! Buffers that a thread lends for as long as there is something in them. A thread with thousands of sessions,
//! nearly all of them idle, needs a few. They are as large as a processor's first cache has room for: what was read is
//! still there when it is written. Smaller ones cost a large result more system calls, larger ones more processor time,
//! but where so much has been waited for that it is no longer in that cache.

use std::{
    cell::RefCell,
    ops::{Deref, DerefMut},
};

const BUFFER_BYTES: usize = 16 * 1024;
const LARGE_BYTES: usize = 64 * 1024;
/// A thread keeps no more than this for the next time.
const SPARE: usize = 4;

thread_local! {
    static SPARES: RefCell<[Vec<Box<[u8]>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// A buffer, given back when dropped. What is in it at first is of no meaning.
#[derive(Debug)]
pub struct Lent(Box<[u8]>);

/// How large a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 16 KiB.
    Usual,
    /// 64 KiB, for what was gathered.
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Usual => BUFFER_BYTES,
            Self::Large => LARGE_BYTES,
        }
    }

    fn of(self, spares: &mut [Vec<Box<[u8]>>; 2]) -> &mut Vec<Box<[u8]>> {
        let [usual, large] = spares;
        match self {
            Self::Usual => usual,
            Self::Large => large,
        }
    }
}

impl Lent {
    /// One that nobody else holds.
    pub fn borrow(size: Size) -> Self {
        let spare = SPARES.with_borrow_mut(|spares| size.of(spares).pop());
        Self(spare.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice()))
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // A thread that ends has no spares any more.
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            let size = if buffer.len() == LARGE_BYTES { Size::Large } else { Size::Usual };
            let spares = size.of(&mut spares);
            if spares.len() < SPARE {
                spares.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_lent_to_one_at_a_time_and_few_are_kept() {
        let size = |n: usize| if n.is_multiple_of(2) { Size::Usual } else { Size::Large };
        let mut held: Vec<Lent> = (0..20).map(|n| Lent::borrow(size(n))).collect();
        for (n, buffer) in held.iter_mut().enumerate() {
            buffer.fill(u8::try_from(n).unwrap());
        }
        for (n, buffer) in held.iter().enumerate() {
            assert!(buffer.len() == size(n).bytes() && buffer.iter().all(|byte| usize::from(*byte) == n));
        }
        drop(held);
        assert_eq!(SPARES.with_borrow(|spares| spares.clone().map(|spares| spares.len())), [SPARE; 2]);
    }
}
