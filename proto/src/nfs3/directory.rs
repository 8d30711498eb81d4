//! Results of READDIR and READDIRPLUS: written entry by entry within the caller's byte limits.

use super::arguments::Name;
use super::{Reply, nfs_fh3, post_op_attr, post_op_fh3};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{Decode, Encode, encode_opaque, opaque_len, xdr_struct};

/// READDIR.
pub type Readdir<'a> = Reply<Listing<Entry<'a>>, post_op_attr>;
/// READDIRPLUS.
pub type Readdirplus<'a> = Reply<Listing<EntryPlus<'a>>, post_op_attr>;

/// A listing, or the part of it that fitted.
#[derive(Clone, Debug)]
pub struct Listing<T> {
    /// The directory's attributes.
    pub attributes: post_op_attr,
    /// Goes with the cookies.
    pub verifier: [u8; 8],
    /// The entries.
    pub entries: Vec<T>,
    /// Nothing comes after them.
    pub eof: bool,
}

xdr_struct! {
    /// One entry of READDIR.
    Entry<'a> {
        /// Number of the object.
        fileid: u64,
        /// Its name.
        name: Name<'a>,
        /// Resume after it.
        cookie: u64,
    }
}

xdr_struct! {
    /// One entry of READDIRPLUS.
    EntryPlus<'a> {
        /// Number of the object.
        fileid: u64,
        /// Its name.
        name: Name<'a>,
        /// Resume after it.
        cookie: u64,
        /// The object's attributes.
        attributes: post_op_attr,
        /// The object's handle.
        object: post_op_fh3,
    }
}

impl<T: Encode> Encode for Listing<T> {
    fn encode(&self, out: &mut Encoder) {
        self.attributes.encode(out);
        out.bytes(&self.verifier);
        for entry in &self.entries {
            out.u32(1);
            entry.encode(out);
        }
        out.u32(0);
        self.eof.encode(out);
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Listing<T> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let attributes = Decode::decode(input)?;
        let verifier = input.array()?;
        let mut entries = Vec::new();
        while let Some(entry) = Option::<T>::decode(input)? {
            entries.push(entry);
        }
        Ok(Listing { attributes, verifier, entries, eof: Decode::decode(input)? })
    }
}

/// Bytes of an attributes field that is there, and of the verifier after it.
const HEAD: usize = 4 + 84 + 8;
/// "No more entries" and the end-of-directory flag.
const TAIL: usize = 8;

/// Writes entries until the next one would exceed a limit.
#[derive(Debug)]
pub struct ListingWriter {
    entries: Encoder,
    /// Bytes left of the whole result (`count` of READDIR, `max_count` of READDIRPLUS).
    left: usize,
    /// Bytes left of READDIRPLUS's `dir_count`.
    dir_left: usize,
    written: usize,
}

impl ListingWriter {
    /// Bytes of a resok structure without entries: with less, not even the end of a directory can be told.
    pub const EMPTY: usize = HEAD + TAIL;

    /// `max` bounds the bytes of the resok structure, `dir_max` those of names, file ids and cookies.
    pub fn new(max: usize, dir_max: usize) -> ListingWriter {
        ListingWriter {
            entries: Encoder::new(),
            left: max.saturating_sub(HEAD + TAIL),
            dir_left: dir_max,
            written: 0,
        }
    }

    /// Adds an entry of READDIR; false when it does not fit, and nothing was written.
    pub fn entry(&mut self, fileid: u64, name: &[u8], cookie: u64) -> bool {
        let len = entry_len(name);
        if !self.fits(len, len) {
            return false;
        }
        plain(&mut self.entries, fileid, name, cookie);
        true
    }

    /// Adds an entry of READDIRPLUS; false when it does not fit, and nothing was written.
    pub fn entry_plus(
        &mut self,
        (fileid, name, cookie): (u64, &[u8], u64),
        attributes: post_op_attr,
        object: Option<nfs_fh3>,
    ) -> bool {
        let plain = entry_len(name);
        let attributes_len = if matches!(attributes, post_op_attr::Void) { 4 } else { 88 };
        let object_len = 4 + object.as_ref().map_or(0, |handle| opaque_len(handle.data.len()));
        if !self.fits(plain + attributes_len + object_len, plain) {
            return false;
        }
        ListingWriter::encode_plus((fileid, name, cookie), attributes, object, &mut self.entries);
        true
    }

    /// Writes an entry of READDIRPLUS as [`ListingWriter::entry_encoded`] takes it.
    pub fn encode_plus(
        (fileid, name, cookie): (u64, &[u8], u64),
        attributes: post_op_attr,
        object: Option<nfs_fh3>,
        out: &mut Encoder,
    ) {
        plain(out, fileid, name, cookie);
        attributes.encode(out);
        object.encode(out);
    }

    /// Adds an entry of READDIRPLUS, of this name, that was written before; false when it does not fit, and nothing
    /// was written.
    pub fn entry_encoded(&mut self, name: &[u8], encoded: &[u8]) -> bool {
        if !self.fits(encoded.len(), entry_len(name)) {
            return false;
        }
        self.entries.bytes(encoded);
        true
    }

    fn fits(&mut self, len: usize, dir_len: usize) -> bool {
        if len > self.left || dir_len > self.dir_left {
            return false;
        }
        self.left -= len;
        self.dir_left -= dir_len;
        self.written += 1;
        true
    }

    /// Entries written.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Writes the whole successful result, status included, with verifier 0.
    pub fn finish(self, attributes: post_op_attr, eof: bool, out: &mut Encoder) {
        out.u32(0);
        attributes.encode(out);
        out.bytes(&[0; 8]);
        out.bytes(self.entries.as_slice());
        out.u32(0);
        eof.encode(out);
    }
}

fn plain(out: &mut Encoder, fileid: u64, name: &[u8], cookie: u64) {
    out.u32(1);
    out.u64(fileid);
    encode_opaque(out, name);
    out.u64(cookie);
}

/// "An entry follows", file id, name, cookie.
fn entry_len(name: &[u8]) -> usize {
    4 + 8 + opaque_len(name.len()) + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs3::fattr3;

    fn attributes() -> post_op_attr {
        post_op_attr::attributes(fattr3::default())
    }

    fn plain(max: usize, names: &[&str]) -> (usize, Vec<u8>) {
        let mut writer = ListingWriter::new(max, usize::MAX);
        for (fileid, name) in (1..).zip(names) {
            if !writer.entry(fileid, name.as_bytes(), fileid * 10) {
                break;
            }
        }
        let written = writer.written();
        let mut out = Encoder::new();
        writer.finish(attributes(), false, &mut out);
        (written, out.finish())
    }

    #[test]
    fn count_is_honoured_to_the_byte() {
        // head 96, tail 8, entries of 28 bytes ("a" and "abcd") and 32 ("abcde")
        let names = ["a", "abcd", "abcde"];
        for (max, expected) in [(0, 0), (131, 0), (132, 1), (159, 1), (160, 2), (191, 2), (192, 3)] {
            let (written, bytes) = plain(max, &names);
            assert_eq!(written, expected, "count {max}");
            if written > 0 {
                assert!(bytes.len() - 4 <= max, "{} bytes for count {max}", bytes.len() - 4);
            }
        }
        assert_eq!(plain(192, &names).1.len() - 4, 192, "the limit can be used up");
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (_, bytes) = plain(1000, &["a", "bcd"]);
        let listing = Readdir::decode(&mut Decoder::new(&bytes)).unwrap().unwrap();
        let entries: Vec<_> = listing.entries.iter().map(|e| (e.fileid, e.name.0, e.cookie)).collect();
        assert_eq!(entries, [(1, &b"a"[..], 10), (2, &b"bcd"[..], 20)]);
        assert!(!listing.eof);
        for cut in 0..bytes.len() {
            assert!(Readdir::decode(&mut Decoder::new(&bytes[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_entry_written_before_is_the_same_entry() {
        let handle = || Some(nfs_fh3 { data: vec![7; 30] });
        let named = (1, &b"abc"[..], 9);
        let mut encoded = Encoder::new();
        ListingWriter::encode_plus(named, attributes(), handle(), &mut encoded);
        let room = 104 + encoded.len();
        for (max, dir_max) in [(room, 1000), (room - 1, 1000), (room, 27), (room, 28)] {
            let (mut fresh, mut kept) = (ListingWriter::new(max, dir_max), ListingWriter::new(max, dir_max));
            let fits = fresh.entry_plus(named, attributes(), handle());
            assert_eq!(kept.entry_encoded(b"abc", encoded.as_slice()), fits);
            assert_eq!(fits, max == room && dir_max >= 28);
            assert_eq!(kept.entries.as_slice(), fresh.entries.as_slice());
        }
    }

    #[test]
    fn both_limits_of_readdirplus_hold() {
        let handle = || Some(nfs_fh3 { data: vec![7; 30] });
        // 28 plain, 88 attributes, 4 + 36 handle
        let one = 28 + 88 + 40;
        let mut writer = ListingWriter::new(104 + 2 * one, 55);
        assert!(writer.entry_plus((1, b"a", 1), attributes(), handle()));
        assert!(!writer.entry_plus((2, b"b", 2), attributes(), handle()), "dir_count");
        let mut writer = ListingWriter::new(104 + 2 * one - 1, 1000);
        assert!(writer.entry_plus((1, b"a", 1), attributes(), handle()));
        assert!(!writer.entry_plus((2, b"b", 2), attributes(), handle()), "max_count");
        assert!(writer.entry_plus((2, b"b", 2), post_op_attr::Void, None), "a smaller one fits");
        let mut out = Encoder::new();
        writer.finish(attributes(), true, &mut out);
        assert_eq!(out.len() - 4, 104 + one + 28 + 8);
        let listing = Readdirplus::decode(&mut Decoder::new(out.as_slice())).unwrap().unwrap();
        assert!(listing.eof);
        assert!(matches!(&listing.entries[0].object, post_op_fh3::handle(h) if h.data == [7; 30]));
        assert!(matches!(listing.entries[1].attributes, post_op_attr::Void));
    }
}
