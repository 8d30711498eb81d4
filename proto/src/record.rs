//! Record marking of RPC over TCP (RFC 5531 section 11): a record is one or more fragments, each with a
//! four-byte header: last-fragment bit and length.

use std::borrow::Cow;

/// Longest record that is accepted: a WRITE of 1 MiB and 4 KiB for its header.
pub const MAX_RECORD: usize = 1024 * 1024 + 4096;
/// Most fragments that one record may come in.
pub const MAX_FRAGMENTS: usize = 64;

const LAST: u32 = 0x8000_0000;

/// Why a connection's bytes are no records. The stream cannot be trusted after any of these.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The fragments announced so far exceed the limit.
    #[error("record of at least {length} bytes announced, at most {limit} allowed")]
    TooLong {
        /// Bytes of the record, this fragment included.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A record in too many pieces.
    #[error("record in more than {limit} fragments")]
    TooManyFragments {
        /// The limit.
        limit: usize,
    },
}

/// The header of a record of `len` bytes sent as one fragment.
pub fn mark(len: usize) -> [u8; 4] {
    (LAST | (len as u32 & !LAST)).to_be_bytes()
}

/// Puts records together from the bytes of one connection. Holds at most one record.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    record: Vec<u8>,
    header: [u8; 4],
    header_len: usize,
    /// Length of `record` at which the current fragment is complete; `None` while in a header.
    fragment_end: Option<usize>,
    last: bool,
    fragments: usize,
}

/// A large fragment may be read straight into its record.
#[derive(Debug)]
pub struct Body<'a> {
    /// Append here, at most `missing` bytes.
    pub record: &'a mut Vec<u8>,
    /// Bytes that the current fragment still lacks, at least 1.
    pub missing: usize,
}

impl Default for Assembler {
    fn default() -> Assembler {
        Assembler::new(MAX_RECORD)
    }
}

impl Assembler {
    /// Accepts records of at most `limit` bytes.
    pub fn new(limit: usize) -> Assembler {
        Assembler {
            limit,
            record: Vec::new(),
            header: [0; 4],
            header_len: 0,
            fragment_end: None,
            last: false,
            fragments: 0,
        }
    }

    /// Takes bytes from the front of `input`; a record when one is complete (then `input` may hold more).
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, RecordError> {
        loop {
            if let Some(record) = self.take_complete() {
                return Ok(Some(record));
            }
            if input.is_empty() {
                return Ok(None);
            }
            match self.fragment_end {
                None => self.feed_header(input)?,
                Some(end) => {
                    let take = input.len().min(end - self.record.len());
                    let (head, rest) = input.split_at(take);
                    self.record.extend_from_slice(head);
                    *input = rest;
                }
            }
        }
    }

    /// As [`Assembler::feed`], but a record that lies in `input` as one whole fragment is lent, not copied.
    pub fn feed_borrowed<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, RecordError> {
        if self.is_between_records()
            && let Some((header, rest)) = input.split_first_chunk::<4>()
        {
            let word = u32::from_be_bytes(*header);
            let length = usize::try_from(word & !LAST).unwrap_or(usize::MAX);
            if word & LAST != 0 && length <= self.limit && length <= rest.len() {
                let (record, rest) = rest.split_at(length);
                *input = rest;
                return Ok(Some(Cow::Borrowed(record)));
            }
        }
        Ok(self.feed(input)?.map(Cow::Owned))
    }

    fn feed_header(&mut self, input: &mut &[u8]) -> Result<(), RecordError> {
        let take = input.len().min(4 - self.header_len);
        let (head, rest) = input.split_at(take);
        self.header[self.header_len..self.header_len + take].copy_from_slice(head);
        self.header_len += take;
        *input = rest;
        if self.header_len < 4 {
            return Ok(());
        }
        self.header_len = 0;
        let word = u32::from_be_bytes(self.header);
        self.fragments += 1;
        if self.fragments > MAX_FRAGMENTS {
            return Err(RecordError::TooManyFragments { limit: MAX_FRAGMENTS });
        }
        // Saturates where usize is 32 bits; the comparison below then refuses it all the same.
        let announced = usize::try_from(word & !LAST).unwrap_or(usize::MAX);
        let length = self.record.len().saturating_add(announced);
        if length > self.limit {
            return Err(RecordError::TooLong { length, limit: self.limit });
        }
        self.record.reserve_exact(announced);
        self.last = word & LAST != 0;
        self.fragment_end = Some(length);
        Ok(())
    }

    /// The record, if its last fragment is complete. Call after appending to [`Body::record`].
    pub fn take_complete(&mut self) -> Option<Vec<u8>> {
        if self.fragment_end != Some(self.record.len()) {
            return None;
        }
        self.fragment_end = None;
        if !self.last {
            return None;
        }
        self.fragments = 0;
        Some(std::mem::take(&mut self.record))
    }

    /// Bytes that the record has and is known to get: what it will occupy in memory.
    pub fn announced(&self) -> usize {
        self.fragment_end.unwrap_or(self.record.len())
    }

    /// In the middle of a fragment: where its rest may be read to.
    pub fn body(&mut self) -> Option<Body<'_>> {
        let missing = self.fragment_end?.checked_sub(self.record.len())?;
        (missing > 0).then_some(Body { record: &mut self.record, missing })
    }

    /// Nothing of a next record has arrived.
    pub fn is_between_records(&self) -> bool {
        self.header_len == 0 && self.fragment_end.is_none() && self.fragments == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(input: &[u8], step: usize, limit: usize) -> Result<Vec<Vec<u8>>, RecordError> {
        let mut assembler = Assembler::new(limit);
        let mut records = Vec::new();
        for mut piece in input.chunks(step) {
            while let Some(record) = assembler.feed(&mut piece)? {
                records.push(record);
            }
            assert!(piece.is_empty());
        }
        assert!(assembler.is_between_records());
        Ok(records)
    }

    #[test]
    fn records_come_out_however_the_bytes_arrive() {
        let input = b"\x80\0\0\x03abc\0\0\0\x02de\0\0\0\0\x80\0\0\x01f\x80\0\0\0\x80\0\0\x01g";
        let expected: Vec<Vec<u8>> = vec![b"abc".into(), b"def".into(), b"".into(), b"g".into()];
        for step in 1..=input.len() {
            assert_eq!(all(input, step, 3), Ok(expected.clone()), "step {step}");
        }
    }

    #[test]
    fn lent_records_are_the_same_records() {
        let input = b"\x80\0\0\x03abc\0\0\0\x02de\0\0\0\0\x80\0\0\x01f\x80\0\0\0\x80\0\0\x01g";
        let expected: Vec<Vec<u8>> = vec![b"abc".into(), b"def".into(), b"".into(), b"g".into()];
        for step in 1..=input.len() {
            let mut assembler = Assembler::new(3);
            let (mut records, mut lent) = (Vec::new(), 0);
            for mut piece in input.chunks(step) {
                while let Some(record) = assembler.feed_borrowed(&mut piece).unwrap() {
                    lent += usize::from(matches!(record, Cow::Borrowed(_)));
                    records.push(record.into_owned());
                }
            }
            assert_eq!(records, expected, "step {step}");
            assert!(
                step < input.len() || lent == 3,
                "{lent} of the four are whole fragments: \"def\" is not"
            );
        }
        let too_long = Assembler::new(3).feed_borrowed(&mut &b"\x80\0\0\x04abcd"[..]);
        assert_eq!(too_long, Err(RecordError::TooLong { length: 4, limit: 3 }));
    }

    #[test]
    fn two_gib_are_refused_before_anything_is_allocated() {
        let mut assembler = Assembler::default();
        let error = assembler.feed(&mut &[0xff, 0xff, 0xff, 0xff][..]);
        assert_eq!(error, Err(RecordError::TooLong { length: 0x7fff_ffff, limit: MAX_RECORD }));
        assert_eq!(assembler.record.capacity(), 0);
    }

    #[test]
    fn the_limit_holds_for_the_sum_of_fragments() {
        assert_eq!(all(b"\0\0\0\x02ab\x80\0\0\x02cd", 5, 4), Ok(vec![b"abcd".to_vec()]));
        assert_eq!(
            all(b"\0\0\0\x02ab\x80\0\0\x03cde", 5, 4),
            Err(RecordError::TooLong { length: 5, limit: 4 })
        );
    }

    #[test]
    fn endless_empty_fragments_end() {
        let input = [0u8; 4 * (MAX_FRAGMENTS + 1)];
        assert_eq!(
            Assembler::default().feed(&mut &input[..]),
            Err(RecordError::TooManyFragments { limit: MAX_FRAGMENTS })
        );
    }

    #[test]
    fn a_body_can_be_read_in_place() {
        let mut assembler = Assembler::default();
        let mut input = &b"\x80\0\0\x05ab"[..];
        assert_eq!(assembler.feed(&mut input), Ok(None));
        assert_eq!(assembler.announced(), 5);
        let body = assembler.body().expect("in a fragment");
        assert_eq!(body.missing, 3);
        body.record.extend_from_slice(b"cde");
        assert!(assembler.body().is_none());
        assert_eq!(assembler.take_complete(), Some(b"abcde".to_vec()));
        assert!(assembler.is_between_records());
    }

    #[test]
    fn the_mark_of_a_whole_record() {
        assert_eq!(mark(0x0102), [0x80, 0, 1, 2]);
    }
}
