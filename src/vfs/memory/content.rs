//! Content of a file: the pages that were written, and holes between them.

use std::collections::BTreeMap;

const PAGE: usize = 4096;

#[derive(Default)]
pub(super) struct Content {
    size: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Content {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are not holes, in whole pages.
    pub(super) fn used(&self) -> u64 {
        (self.pages.len() * PAGE) as u64
    }

    /// Appends at most `count` bytes from `offset` on to `into`; the number of bytes.
    pub(super) fn read(&self, offset: u64, count: usize, into: &mut Vec<u8>) -> usize {
        let len = self.size.saturating_sub(offset).min(count as u64) as usize;
        let start = into.len();
        into.resize(start + len, 0);
        for (page, at, from, part) in parts(offset, len) {
            let source = self.pages.get(&page).and_then(|bytes| bytes.get(from..from + part));
            if let (Some(source), Some(target)) = (source, into.get_mut(start + at..start + at + part)) {
                target.copy_from_slice(source);
            }
        }
        len
    }

    /// The caller has checked that the end is a size.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, at, from, part) in parts(offset, data.len()) {
            let bytes = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            if let (Some(target), Some(source)) = (bytes.get_mut(from..from + part), data.get(at..at + part))
            {
                target.copy_from_slice(source);
            }
        }
        self.size = self.size.max(offset.saturating_add(data.len() as u64));
    }

    /// What is cut off is gone: growing again shows zeros.
    pub(super) fn resize(&mut self, size: u64) {
        if size < self.size {
            let (page, rest) = (size / PAGE as u64, (size % PAGE as u64) as usize);
            let _ = self.pages.split_off(&(page + u64::from(rest > 0)));
            if let Some(tail) = self.pages.get_mut(&page).and_then(|bytes| bytes.get_mut(rest..)) {
                tail.fill(0);
            }
        }
        self.size = size;
    }
}

/// A range by pages: (page, offset in the range, offset in the page, bytes).
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= len {
            return None;
        }
        let position = offset + at as u64;
        let from = (position % PAGE as u64) as usize;
        let part = (PAGE - from).min(len - at);
        let this = (position / PAGE as u64, at, from, part);
        at += part;
        Some(this)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &Content, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.read(offset, count, &mut bytes);
        bytes
    }

    #[test]
    fn holes_are_zeros_and_cost_nothing() {
        let mut content = Content::default();
        content.write((5 << 30) - 1, b"abc");
        assert_eq!((content.size(), content.used()), ((5 << 30) + 2, 2 * PAGE as u64));
        assert_eq!(read(&content, (5 << 30) - 3, 100), b"\0\0abc");
        assert_eq!(read(&content, 0, 2), [0, 0]);
        assert!(read(&content, u64::MAX, 2).is_empty());
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[7; 3 * PAGE]);
        content.resize(10);
        content.resize(3 * PAGE as u64);
        assert_eq!(read(&content, 8, 4), [7, 7, 0, 0]);
        assert_eq!(read(&content, 2 * PAGE as u64, 1), [0]);
        content.resize(PAGE as u64);
        content.resize(0);
        assert_eq!((content.size(), content.used()), (0, 0));
    }
}
