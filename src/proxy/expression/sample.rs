//! Values and their types (7.1 of the manual), and the casts that HAProxy makes between them.

use core::net::IpAddr;
use std::borrow::Cow;

/// A value. It borrows from the exchange where it can.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Sample<'e> {
    Bool(bool),
    Integer(i64),
    Address(IpAddr),
    /// `str`, and methods.
    Text(Cow<'e, [u8]>),
    /// `bin`.
    Binary(Cow<'e, [u8]>),
}

/// Type of a value, where it is known before evaluation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    /// Whatever comes (`var()`).
    Any,
    Bool,
    Integer,
    Address,
    Text,
    Binary,
    Method,
}

impl<'e> Sample<'e> {
    /// Text that is borrowed.
    pub fn text(bytes: &'e [u8]) -> Sample<'e> {
        Sample::Text(Cow::Borrowed(bytes))
    }

    /// Text that was made.
    pub fn made(bytes: Vec<u8>) -> Sample<'static> {
        Sample::Text(Cow::Owned(bytes))
    }

    /// The same value, without a loan.
    pub fn into_owned(self) -> Sample<'static> {
        match self {
            Sample::Bool(value) => Sample::Bool(value),
            Sample::Integer(value) => Sample::Integer(value),
            Sample::Address(value) => Sample::Address(value),
            Sample::Text(value) => Sample::Text(Cow::Owned(value.into_owned())),
            Sample::Binary(value) => Sample::Binary(Cow::Owned(value.into_owned())),
        }
    }

    /// The same value, borrowed from this one.
    pub fn borrow(&self) -> Sample<'_> {
        match self {
            Sample::Bool(value) => Sample::Bool(*value),
            Sample::Integer(value) => Sample::Integer(*value),
            Sample::Address(value) => Sample::Address(*value),
            Sample::Text(value) => Sample::Text(Cow::Borrowed(value)),
            Sample::Binary(value) => Sample::Binary(Cow::Borrowed(value)),
        }
    }

    /// As HAProxy casts it to `str`: numbers in decimal, truth as `1` and `0`, addresses in their text form.
    pub fn into_text(self) -> Cow<'e, [u8]> {
        match self {
            Sample::Bool(value) => Cow::Borrowed(if value { b"1" } else { b"0" }),
            Sample::Integer(value) => Cow::Owned(value.to_string().into_bytes()),
            Sample::Address(value) => Cow::Owned(value.to_string().into_bytes()),
            Sample::Text(value) | Sample::Binary(value) => value,
        }
    }

    /// As an integer: text is read up to its first character that is no digit, with a sign; an IPv4 address is its 32
    /// bits. `None` where HAProxy has no cast (`bin`, IPv6, empty text).
    pub fn to_integer(&self) -> Option<i64> {
        match self {
            Sample::Bool(value) => Some(i64::from(*value)),
            Sample::Integer(value) => Some(*value),
            Sample::Address(IpAddr::V4(value)) => Some(i64::from(u32::from(*value))),
            Sample::Address(IpAddr::V6(_)) | Sample::Binary(_) => None,
            Sample::Text(value) => (!value.is_empty()).then(|| leading_integer(value)),
        }
    }

    /// As an address.
    pub fn to_address(&self) -> Option<IpAddr> {
        match self {
            Sample::Address(value) => Some(*value),
            Sample::Text(value) => std::str::from_utf8(value).ok()?.parse().ok(),
            // HAProxy casts `sint` to `ipv4` by its low 32 bits.
            Sample::Integer(value) => Some(IpAddr::V4(u32::try_from(*value & 0xffff_ffff).ok()?.into())),
            Sample::Binary(value) => match value.len() {
                4 => <[u8; 4]>::try_from(&value[..]).ok().map(IpAddr::from),
                16 => <[u8; 16]>::try_from(&value[..]).ok().map(IpAddr::from),
                _ => None,
            },
            Sample::Bool(_) => None,
        }
    }

    /// As bytes (HAProxy's cast to `bin`): integers as 8 bytes in network order, addresses as their 4 or 16.
    pub fn into_binary(self) -> Option<Cow<'e, [u8]>> {
        match self {
            Sample::Bool(_) => None,
            Sample::Integer(value) => Some(Cow::Owned(value.to_be_bytes().to_vec())),
            Sample::Address(IpAddr::V4(value)) => Some(Cow::Owned(value.octets().to_vec())),
            Sample::Address(IpAddr::V6(value)) => Some(Cow::Owned(value.octets().to_vec())),
            Sample::Text(value) | Sample::Binary(value) => Some(value),
        }
    }

    /// As a truth value: what is not zero.
    pub fn to_bool(&self) -> Option<bool> {
        self.to_integer().map(|value| value != 0)
    }
}

impl Kind {
    /// Whether HAProxy casts this type to `other` (whether a value has the form that is needed shows only later).
    pub fn casts_to(self, other: Kind) -> bool {
        use Kind::{Address, Any, Binary, Bool, Integer, Method, Text};
        matches!(
            (self, other),
            (Any | Text, _)
                | (_, Any)
                | (Bool | Integer, Bool | Integer | Text)
                | (Integer, Address | Binary)
                | (Address, Address | Integer | Text | Binary)
                | (Binary | Method, Text | Binary | Method)
        )
    }

    /// Its name in the manual.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "any",
            Kind::Bool => "bool",
            Kind::Integer => "integer",
            Kind::Address => "ip",
            Kind::Text => "string",
            Kind::Binary => "binary",
            Kind::Method => "method",
        }
    }
}

/// The 32-bit integer that `text` begins with, wrapped where it does not fit: HAProxy's `*_val` fetches read so.
pub(super) fn wrapping_integer(text: &[u8]) -> i64 {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        _ => (false, text),
    };
    let value = digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0_i32, |value, digit| {
        let (ten, digit) = (value.wrapping_mul(10), i32::from(digit - b'0'));
        if negative { ten.wrapping_sub(digit) } else { ten.wrapping_add(digit) }
    });
    value.into()
}

/// The integer that `text` begins with; 0 without one. It stops before it would overflow, at the limit.
pub(super) fn leading_integer(text: &[u8]) -> i64 {
    let (negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        let digit = i64::from(digit - b'0');
        let next = value
            .checked_mul(10)
            .and_then(|ten| if negative { ten.checked_sub(digit) } else { ten.checked_add(digit) });
        match next {
            Some(next) => value = next,
            None => return if negative { i64::MIN } else { i64::MAX },
        }
    }
    value
}
