//! Buffers of one thread. A connection holds one only while bytes are in flight.

use std::cell::RefCell;

/// Bytes of a fresh buffer: one read of it fetches a whole page of a site, and most of what a socket holds.
pub(crate) const LARGE: usize = 128 * 1024;

/// Buffers kept for the next user.
const KEPT: usize = 16;

/// Bytes between `from` and `to` of a piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    /// With bytes in it and no room for more.
    pub(crate) fn holding(bytes: &[u8]) -> Buffer {
        Buffer { memory: bytes.to_vec(), from: 0, to: bytes.len() }
    }

    /// What it holds.
    pub(crate) fn data(&self) -> &[u8] {
        &self.memory[self.from..self.to]
    }

    /// How many bytes it holds.
    pub(crate) fn len(&self) -> usize {
        self.to - self.from
    }

    /// Holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// The first `count` bytes are done with.
    pub(crate) fn consume(&mut self, count: usize) {
        self.from = (self.from + count).min(self.to);
        if self.is_empty() {
            (self.from, self.to) = (0, 0);
        }
    }

    /// Room behind the data, at least `least` bytes of it.
    pub(crate) fn room(&mut self, least: usize) -> &mut [u8] {
        if self.memory.len() - self.to < least && self.from > 0 {
            self.memory.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        if self.memory.len() - self.to < least {
            let wanted = (self.to + least).max(2 * self.memory.len());
            self.memory.resize(wanted, 0);
        }
        &mut self.memory[self.to..]
    }

    /// `count` bytes of the room are data now.
    pub(crate) fn fill(&mut self, count: usize) {
        self.to = (self.to + count).min(self.memory.len());
    }
}

/// This thread's spare buffers, the one used last on top: it is still in the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    large: RefCell<Vec<Buffer>>,
    texts: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer of [`LARGE`] bytes.
    pub(crate) fn take(&self) -> Buffer {
        let spare = self.large.borrow_mut().pop();
        spare.unwrap_or_else(|| Buffer { memory: vec![0; LARGE], from: 0, to: 0 })
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, mut buffer: Buffer) {
        let mut large = self.large.borrow_mut();
        if buffer.memory.len() == LARGE && large.len() < KEPT {
            (buffer.from, buffer.to) = (0, 0);
            large.push(buffer);
        }
    }

    /// A buffer that has to be kept while its connection waits: as large as what it holds, if that is little.
    pub(crate) fn park(&self, buffer: Buffer) -> Option<Buffer> {
        if buffer.is_empty() {
            self.give(buffer);
            return None;
        }
        if buffer.memory.len() == LARGE && buffer.len() <= LARGE / 4 {
            let small = Buffer::holding(buffer.data());
            self.give(buffer);
            return Some(small);
        }
        Some(buffer)
    }

    /// An empty growing text.
    pub(crate) fn take_text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a text back; one that has grown beyond reason is freed.
    pub(crate) fn give_text(&self, mut text: Vec<u8>) {
        let mut texts = self.texts.borrow_mut();
        if text.capacity() > 0 && text.capacity() <= LARGE && texts.len() < KEPT {
            text.clear();
            texts.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_was_not_consumed() {
        let mut buffer = Buffer::holding(b"abcdef");
        buffer.consume(4);
        buffer.room(3)[..3].copy_from_slice(b"ghi");
        buffer.fill(3);
        assert_eq!(buffer.data(), b"efghi");
        buffer.consume(5);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_waiting_connection_holds_no_more_than_it_must() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        buffer.room(1)[0] = b'x';
        buffer.fill(1);
        let parked = buffers.park(buffer).unwrap();
        assert_eq!((parked.data(), parked.memory.capacity()), (&b"x"[..], 1));
        assert_eq!(buffers.large.borrow().len(), 1);
        assert!(buffers.park(buffers.take()).is_none());
    }
}
