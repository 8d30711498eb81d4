//! A cursor that reads and a buffer that writes, big endian, for every protocol of this crate.
//!
//! Nothing here allocates what the input claims: a length is compared with its limit and with the bytes
//! that are there, and what is returned borrows from the input.

/// Why input could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The input ends in the middle of a value.
    #[error("input too short: {needed} bytes wanted, {left} left")]
    Short {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are there.
        left: usize,
    },
    /// A length exceeds what the protocol, or this product, allows.
    #[error("{what} is too long: {length}, at most {limit} allowed")]
    TooLong {
        /// What has the length.
        what: &'static str,
        /// The length claimed.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// A value that the protocol does not define.
    #[error("{value} is not a valid {what}")]
    Invalid {
        /// What it should have been.
        what: &'static str,
        /// The value found.
        value: u64,
    },
}

/// Reads from a byte slice, front to back.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Decoder<'a> {
        Decoder { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(DecodeError::Short { needed: len, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short { needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*head)
    }

    /// A 32-bit number, big endian.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A 64-bit number, big endian.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A 32-bit length that must not exceed `limit`.
    pub fn length(&mut self, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let length = self.u32()?;
        let too_long = || DecodeError::TooLong { what, length: u64::from(length), limit: limit as u64 };
        let length = usize::try_from(length).map_err(|_| too_long())?;
        if length > limit { Err(too_long()) } else { Ok(length) }
    }
}

/// Writes into a growing buffer.
#[derive(Clone, Default, Debug)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty buffer.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Encoder {
        Encoder { bytes: Vec::with_capacity(capacity) }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing written yet.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a 32-bit number, big endian.
    pub fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Appends a 64-bit number, big endian.
    pub fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    /// Forgets everything after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// The buffer itself, for what is written in place.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_says_what_is_missing() {
        let mut input = Decoder::new(&[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 1, 0, 9]);
        assert_eq!(input.u32(), Ok(7));
        assert_eq!(input.u64(), Ok(256));
        assert_eq!(input.u32(), Err(DecodeError::Short { needed: 4, left: 1 }));
        assert_eq!(input.rest(), &[9], "a failed read consumes nothing");
        assert_eq!(input.bytes(2), Err(DecodeError::Short { needed: 2, left: 1 }));
    }

    #[test]
    fn a_length_is_checked_against_its_limit() {
        let bytes = 0x8000_0000u32.to_be_bytes();
        assert_eq!(
            Decoder::new(&bytes).length("name", 255),
            Err(DecodeError::TooLong { what: "name", length: 0x8000_0000, limit: 255 })
        );
        assert_eq!(Decoder::new(&[0, 0, 0, 255]).length("name", 255), Ok(255));
    }

    #[test]
    fn writes_big_endian() {
        let mut out = Encoder::with_capacity(16);
        assert!(out.is_empty());
        out.u32(1);
        out.u64(2);
        out.bytes(b"x");
        assert_eq!(out.len(), 13);
        assert_eq!(out.finish(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, b'x']);
    }
}
