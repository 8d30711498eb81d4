//! Keys of stick tables: a value cast to the table's type.

use crate::proxy::config::model::StickKey;
use crate::proxy::expression::Sample;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A key: bytes of the table's type.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key(smallvec::SmallVec<[u8; 16]>);

impl Key {
    /// A value as a key; `None` when it cannot be cast. Text longer than the table keeps is cut, blocks are filled up
    /// with zeros.
    pub fn new(kind: StickKey, sample: Sample<'_>) -> Option<Key> {
        let bytes = match kind {
            StickKey::Ip => match sample.to_address()?.to_canonical() {
                IpAddr::V4(address) => address.octets()[..].into(),
                IpAddr::V6(_) => return None,
            },
            StickKey::Ipv6 => match sample.to_address()? {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets()[..].into(),
                IpAddr::V6(address) => address.octets()[..].into(),
            },
            StickKey::Integer => {
                u32::try_from(sample.to_integer()? & 0xffff_ffff).ok()?.to_be_bytes()[..].into()
            }
            StickKey::String(longest) => {
                let text = sample.into_text();
                if text.is_empty() {
                    return None;
                }
                text[..text.len().min(longest)].into()
            }
            StickKey::Binary(length) => {
                let block = sample.into_binary()?;
                if block.is_empty() {
                    return None;
                }
                let mut key: smallvec::SmallVec<[u8; 16]> = block[..block.len().min(length)].into();
                key.resize(length, 0);
                key
            }
        };
        Some(Key(bytes))
    }

    /// From what a person types (`clear table T key K`).
    pub fn from_text(kind: StickKey, text: &str) -> Option<Key> {
        Key::new(kind, Sample::text(text.as_bytes()))
    }

    /// As `show table` writes it.
    pub fn show(&self, kind: StickKey) -> impl fmt::Display {
        Shown { key: self.clone(), kind }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Shown {
    key: Key,
    kind: StickKey,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.key.bytes();
        match self.kind {
            StickKey::Ip => match <[u8; 4]>::try_from(bytes) {
                Ok(octets) => write!(f, "{}", Ipv4Addr::from(octets)),
                Err(_) => Ok(()),
            },
            StickKey::Ipv6 => match <[u8; 16]>::try_from(bytes) {
                Ok(octets) => write!(f, "{}", Ipv6Addr::from(octets)),
                Err(_) => Ok(()),
            },
            StickKey::Integer => match <[u8; 4]>::try_from(bytes) {
                Ok(octets) => write!(f, "{}", u32::from_be_bytes(octets)),
                Err(_) => Ok(()),
            },
            StickKey::String(_) => {
                for byte in bytes {
                    match byte {
                        b'\\' | b' ' => write!(f, "\\{}", char::from(*byte))?,
                        b'!'..=b'~' => write!(f, "{}", char::from(*byte))?,
                        _ => write!(f, "\\x{byte:02x}")?,
                    }
                }
                Ok(())
            }
            StickKey::Binary(_) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
        }
    }
}
