//! Buffers that a thread uses again: replies come and go, their memory stays.

use ehpc_proto::nfs3::MAX_IO;
use std::cell::RefCell;

/// Bytes of a buffer for small replies.
const SMALL: usize = 16 * 1024;
/// Small buffers kept.
const KEPT_SMALL: usize = 64;
/// A buffer for a READ of the largest size and what surrounds its data.
const LARGE: usize = MAX_IO + 1024;
/// Large buffers kept.
const KEPT_LARGE: usize = 4;

/// One thread's spare buffers.
#[derive(Default)]
pub(super) struct Spare {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Spare {
    /// An empty buffer for small replies.
    pub(super) fn small(&self) -> Vec<u8> {
        self.small.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// An empty buffer for a reply of `bytes`.
    pub(super) fn of_size(&self, bytes: usize) -> Vec<u8> {
        if bytes > LARGE / 2 {
            return self.large.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(LARGE));
        }
        Vec::with_capacity(bytes)
    }

    /// A buffer that is done with.
    pub(super) fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let (kept, most) = match buffer.capacity() {
            SMALL..=65_536 => (&self.small, KEPT_SMALL),
            LARGE.. => (&self.large, KEPT_LARGE),
            _ => return,
        };
        let mut kept = kept.borrow_mut();
        // What grew far beyond its purpose is given up.
        if kept.len() < most && buffer.capacity() <= 2 * LARGE {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_are_bounded() {
        let spare = Spare::default();
        let mut buffer = spare.small();
        buffer.push(1);
        let place = buffer.as_ptr();
        spare.give_back(buffer);
        let again = spare.small();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), place);
        for _ in 0..1000 {
            spare.give_back(Vec::with_capacity(SMALL));
            spare.give_back(Vec::with_capacity(LARGE));
            spare.give_back(Vec::with_capacity(10 * LARGE));
            spare.give_back(Vec::with_capacity(7));
        }
        assert_eq!(spare.small.borrow().len(), KEPT_SMALL);
        assert_eq!(spare.large.borrow().len(), KEPT_LARGE);
        assert!(spare.large.borrow().iter().all(|buffer| buffer.capacity() <= 2 * LARGE));
    }
}
