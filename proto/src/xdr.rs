//! XDR (RFC 4506): how values of ONC RPC protocols are laid out.
//!
//! The fixed-size NFSv3 base types and their layout are `nfsserve`'s. Whatever has a length of its own is
//! decoded here, because `nfsserve` allocates whatever length the wire claims.

use crate::codec::{DecodeError, Decoder, Encoder};
use nfsserve::nfs::{
    fattr3, fsinfo3, ftype3, nfs_fh3, nfsstat3, nfstime3, post_op_attr, post_op_fh3, pre_op_attr, sattr3,
    specdata3, wcc_attr, wcc_data,
};
use nfsserve::xdr::XDR;

/// Can be written as XDR.
pub trait Encode {
    /// Appends the value.
    fn encode(&self, out: &mut Encoder);
}

/// Can be read from XDR; may borrow from the input.
pub trait Decode<'a>: Sized {
    /// Reads a value.
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError>;
}

/// Bytes of padding after `len` bytes.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// Bytes that opaque data of `len` bytes takes: length, data, padding.
pub const fn opaque_len(len: usize) -> usize {
    4 + len + padding(len)
}

/// Reads variable-length opaque data or a string of at most `limit` bytes.
pub fn decode_opaque<'a>(
    input: &mut Decoder<'a>,
    what: &'static str,
    limit: usize,
) -> Result<&'a [u8], DecodeError> {
    let len = input.length(what, limit)?;
    let bytes = input.bytes(len)?;
    input.bytes(padding(len))?;
    Ok(bytes)
}

/// Writes variable-length opaque data or a string.
pub fn encode_opaque(out: &mut Encoder, bytes: &[u8]) {
    out.u32(bytes.len() as u32);
    out.bytes(bytes);
    out.bytes(&[0; 3][..padding(bytes.len())]);
}

/// Opaque data or a string of at most `MAX` bytes, borrowed from where it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opaque<'a, const MAX: usize>(pub &'a [u8]);

impl<const MAX: usize> Encode for Opaque<'_, MAX> {
    fn encode(&self, out: &mut Encoder) {
        encode_opaque(out, self.0);
    }
}

impl<'a, const MAX: usize> Decode<'a> for Opaque<'a, MAX> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Opaque(decode_opaque(input, "opaque data or string", MAX)?))
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Encoder) {}
}

impl<'a> Decode<'a> for () {
    fn decode(_: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(())
    }
}

impl Encode for u32 {
    fn encode(&self, out: &mut Encoder) {
        out.u32(*self);
    }
}

impl<'a> Decode<'a> for u32 {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        input.u32()
    }
}

impl Encode for u64 {
    fn encode(&self, out: &mut Encoder) {
        out.u64(*self);
    }
}

impl<'a> Decode<'a> for u64 {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        input.u64()
    }
}

impl Encode for bool {
    fn encode(&self, out: &mut Encoder) {
        out.u32(u32::from(*self));
    }
}

impl<'a> Decode<'a> for bool {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match input.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Invalid { what: "boolean", value: u64::from(value) }),
        }
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(self);
        out.bytes(&[0; 3][..padding(N)]);
    }
}

impl<'a, const N: usize> Decode<'a> for [u8; N] {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let bytes = input.array()?;
        input.bytes(padding(N))?;
        Ok(bytes)
    }
}

/// "Optional data": a boolean, then the value if it is true.
impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Encoder) {
        self.is_some().encode(out);
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        if bool::decode(input)? { Ok(Some(T::decode(input)?)) } else { Ok(None) }
    }
}

/// Reads a fixed-size base type with `nfsserve`'s own code.
fn decode_base<T: XDR>(input: &mut Decoder<'_>, what: &'static str, mut value: T) -> Result<T, DecodeError> {
    let mut rest = input.rest();
    let before = rest.len();
    match value.deserialize(&mut rest) {
        Ok(()) => {
            let read = before - rest.len();
            input.bytes(read)?;
            Ok(value)
        }
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(DecodeError::Short { needed: before + 1, left: before })
        }
        Err(_) => Err(DecodeError::Invalid { what, value: 0 }),
    }
}

/// Writes a base type with `nfsserve`'s own code.
fn encode_base(value: &impl XDR, out: &mut Encoder) {
    // Writing to memory does not fail.
    let _infallible = value.serialize(out.buffer());
}

macro_rules! base_type {
    ($($type:ident = $initial:expr;)*) => {$(
        impl Encode for $type {
            fn encode(&self, out: &mut Encoder) {
                encode_base(self, out);
            }
        }
        impl<'a> Decode<'a> for $type {
            fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
                decode_base(input, stringify!($type), $initial)
            }
        }
    )*};
}

base_type! {
    nfsstat3 = nfsstat3::NFS3_OK;
    ftype3 = ftype3::default();
    fattr3 = fattr3::default();
    nfstime3 = nfstime3::default();
    specdata3 = specdata3::default();
    sattr3 = sattr3::default();
    wcc_attr = wcc_attr::default();
    pre_op_attr = pre_op_attr::default();
    post_op_attr = post_op_attr::default();
    wcc_data = wcc_data::default();
    fsinfo3 = fsinfo3::default();
}

/// Longest NFSv3 file handle (NFS3_FHSIZE).
pub const HANDLE_MAX: usize = nfsserve::nfs::NFS3_FHSIZE as usize;

impl Encode for nfs_fh3 {
    fn encode(&self, out: &mut Encoder) {
        encode_opaque(out, &self.data);
    }
}

impl<'a> Decode<'a> for nfs_fh3 {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(nfs_fh3 { data: decode_opaque(input, "file handle", HANDLE_MAX)?.to_vec() })
    }
}

impl Encode for post_op_fh3 {
    fn encode(&self, out: &mut Encoder) {
        match self {
            post_op_fh3::Void => out.u32(0),
            post_op_fh3::handle(handle) => {
                out.u32(1);
                handle.encode(out);
            }
        }
    }
}

impl<'a> Decode<'a> for post_op_fh3 {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(match Option::<nfs_fh3>::decode(input)? {
            None => post_op_fh3::Void,
            Some(handle) => post_op_fh3::handle(handle),
        })
    }
}

/// A structure whose fields are laid out one after the other.
macro_rules! xdr_struct {
    ($(#[$meta:meta])* $name:ident<'a> { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name<'a> { $($(#[$field_meta])* pub $field: $type,)* }
        impl $crate::xdr::Encode for $name<'_> {
            fn encode(&self, out: &mut $crate::codec::Encoder) {
                $($crate::xdr::Encode::encode(&self.$field, out);)*
            }
        }
        impl<'a> $crate::xdr::Decode<'a> for $name<'a> {
            fn decode(input: &mut $crate::codec::Decoder<'a>) -> Result<Self, $crate::codec::DecodeError> {
                Ok($name { $($field: $crate::xdr::Decode::decode(input)?,)* })
            }
        }
    };
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)* }
        impl $crate::xdr::Encode for $name {
            fn encode(&self, out: &mut $crate::codec::Encoder) {
                $($crate::xdr::Encode::encode(&self.$field, out);)*
            }
        }
        impl<'a> $crate::xdr::Decode<'a> for $name {
            fn decode(input: &mut $crate::codec::Decoder<'a>) -> Result<Self, $crate::codec::DecodeError> {
                Ok($name { $($field: $crate::xdr::Decode::decode(input)?,)* })
            }
        }
    };
}
pub(crate) use xdr_struct;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    #[test]
    fn opaque_data_is_padded_to_four_bytes() {
        assert_eq!(encoded(&Opaque::<9>(b"abcde")), b"\0\0\0\x05abcde\0\0\0");
        assert_eq!(encoded(&Opaque::<9>(b"")), b"\0\0\0\0");
        for len in 0..9 {
            assert_eq!(encoded(&Opaque::<9>(&[7; 9][..len])).len(), opaque_len(len));
        }
        let mut input = Decoder::new(b"\0\0\0\x02ab\0\0\0\0\0\x01");
        assert_eq!(Opaque::<2>::decode(&mut input), Ok(Opaque(&b"ab"[..])));
        assert_eq!(u32::decode(&mut input), Ok(1));
    }

    #[test]
    fn a_length_over_the_limit_or_the_input_is_refused() {
        let long = Opaque::<4>::decode(&mut Decoder::new(b"\0\0\0\x05abcde\0\0\0"));
        assert!(matches!(long, Err(DecodeError::TooLong { length: 5, limit: 4, .. })), "{long:?}");
        let short = Opaque::<64>::decode(&mut Decoder::new(b"\0\0\0\x05abc"));
        assert_eq!(short, Err(DecodeError::Short { needed: 5, left: 3 }));
        let unpadded = Opaque::<64>::decode(&mut Decoder::new(b"\0\0\0\x03abc"));
        assert_eq!(unpadded, Err(DecodeError::Short { needed: 1, left: 0 }));
        let handle = nfs_fh3::decode(&mut Decoder::new(&[0, 0, 0, 65, 1, 2]));
        assert!(matches!(handle, Err(DecodeError::TooLong { length: 65, limit: 64, .. })), "{handle:?}");
    }

    #[test]
    fn base_types_are_bounded_and_checked() {
        assert!(matches!(fattr3::decode(&mut Decoder::new(&[0; 83])), Err(DecodeError::Invalid { .. })));
        assert!(matches!(
            nfstime3::decode(&mut Decoder::new(&[0; 7])),
            Err(DecodeError::Short { needed: 8, left: 7 })
        ));
        assert!(matches!(
            nfsstat3::decode(&mut Decoder::new(&[0, 0, 0, 3])),
            Err(DecodeError::Invalid { what: "nfsstat3", .. })
        ));
        let attributes = fattr3 { size: 5, fileid: 9, ..fattr3::default() };
        let bytes = encoded(&post_op_attr::attributes(attributes));
        assert_eq!(bytes.len(), 88);
        match post_op_attr::decode(&mut Decoder::new(&bytes)) {
            Ok(post_op_attr::attributes(read)) => assert_eq!((read.size, read.fileid), (5, 9)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn booleans_and_optional_data() {
        assert_eq!(encoded(&Some(7u32)), [0, 0, 0, 1, 0, 0, 0, 7]);
        assert_eq!(encoded(&None::<u32>), [0, 0, 0, 0]);
        assert_eq!(
            bool::decode(&mut Decoder::new(&[0, 0, 0, 2])),
            Err(DecodeError::Invalid { what: "boolean", value: 2 })
        );
    }
}
