//! The protocol's fields: little-endian numbers, length-encoded numbers and strings, strings that end with NUL.
//!
//! Source: "Protocol Data Types" of MariaDB's knowledge base. Nothing is allocated; what is read borrows from the input.

use crate::codec::{DecodeError, Decoder};

/// Reads fields, front to back.
#[derive(Clone, Debug)]
pub struct Fields<'a>(Decoder<'a>);

impl<'a> Fields<'a> {
    /// Starts at the front of a packet's payload.
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields(Decoder::new(bytes))
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        self.0.bytes(len)
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.0.array()
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        let [value] = self.array()?;
        Ok(value)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 24-bit number.
    pub fn u24(&mut self) -> Result<u32, DecodeError> {
        let [a, b, c] = self.array()?;
        Ok(u32::from_le_bytes([a, b, c, 0]))
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length-encoded number.
    pub fn number(&mut self) -> Result<u64, DecodeError> {
        match self.u8()? {
            small @ 0..=0xfa => Ok(u64::from(small)),
            0xfc => Ok(u64::from(self.u16()?)),
            0xfd => Ok(u64::from(self.u24()?)),
            0xfe => self.u64(),
            other => Err(DecodeError::Invalid { what: "length-encoded number", value: u64::from(other) }),
        }
    }

    /// A length-encoded string.
    pub fn string(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.number()?;
        let limit = self.rest().len();
        match usize::try_from(length) {
            Ok(len) if len <= limit => self.bytes(len),
            _ => Err(DecodeError::TooLong { what: "string", length, limit: limit as u64 }),
        }
    }

    /// A string whose length is one byte.
    pub fn short_string(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    /// A string that ends with NUL; the NUL is read too.
    pub fn until_nul(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        let Some(len) = rest.iter().position(|byte| *byte == 0) else {
            return Err(DecodeError::Short { needed: rest.len() + 1, left: rest.len() });
        };
        let text = self.bytes(len)?;
        self.bytes(1)?;
        Ok(text)
    }

    /// Everything that is left.
    pub fn all(&mut self) -> &'a [u8] {
        let rest = self.rest();
        self.0 = Decoder::new(&[]);
        rest
    }
}

/// Appends a length-encoded number.
pub fn put_number(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    match value {
        0..=0xfa => out.extend_from_slice(&bytes[..1]),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Appends a length-encoded string.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Appends a string and its NUL. What follows a NUL inside of `text` is not written: the reader would take it for the
/// next field.
pub fn put_until_nul(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().take_while(|byte| **byte != 0));
    out.push(0);
}

/// Appends a string whose length is one byte; cut at 255 bytes.
pub fn put_short_string(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(255)];
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

/// Bytes of a server as text for people: what is not UTF-8 is replaced.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_size_come_back() {
        for value in [0, 1, 0xfa, 0xfb, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, value);
            let mut fields = Fields::new(&out);
            assert_eq!(fields.number(), Ok(value));
            assert!(fields.rest().is_empty());
        }
        assert!(Fields::new(&[0xfb]).number().is_err(), "NULL is not a number");
        assert!(Fields::new(&[0xff]).number().is_err(), "an error is not a number");
    }

    #[test]
    fn a_string_longer_than_the_input_is_refused() {
        let mut claimed = Vec::new();
        put_number(&mut claimed, u64::MAX);
        claimed.extend_from_slice(b"xyz");
        assert_eq!(
            Fields::new(&claimed).string(),
            Err(DecodeError::TooLong { what: "string", length: u64::MAX, limit: 3 })
        );
        assert!(Fields::new(b"no end").until_nul().is_err());
        assert_eq!(Fields::new(b"end\0rest").until_nul(), Ok(&b"end"[..]));
    }
}
