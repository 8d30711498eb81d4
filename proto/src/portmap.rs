//! Which program listens where: portmap version 2 and rpcbind versions 3 and 4 (RFC 1833), one program number.

use crate::codec::{DecodeError, Decoder};
use crate::xdr::{Decode, Opaque, xdr_struct};
use core::net::{IpAddr, SocketAddr};
use std::fmt::Write as _;

/// Program number of portmap and of rpcbind.
pub const PROGRAM: u32 = 100_000;
/// The one port that everybody knows.
pub const PORT: u16 = 111;
/// Version 2: portmap, IPv4 only.
pub const PORTMAP: u32 = 2;
/// Version 3: rpcbind.
pub const RPCBIND_3: u32 = 3;
/// Version 4: rpcbind.
pub const RPCBIND_4: u32 = 4;
/// Longest string of rpcbind that is decoded: network ids are 4, universal addresses at most 60 bytes long.
pub const STRING_MAX: usize = 256;
/// Protocol number of TCP in version 2.
pub const TCP: u32 = 6;
/// Protocol number of UDP in version 2.
pub const UDP: u32 = 17;

/// Numbers that are the same in all versions.
pub mod procedure {
    /// Does nothing.
    pub const NULL: u32 = 0;
    /// Registers.
    pub const SET: u32 = 1;
    /// Takes a registration back.
    pub const UNSET: u32 = 2;
    /// Version 2: GETPORT; 3 and 4: GETADDR.
    pub const GET: u32 = 3;
    /// Everything that is registered.
    pub const DUMP: u32 = 4;
    /// CALLIT, in version 4 BCAST: calls another program for the caller. Refused: it hides who calls.
    pub const CALLIT: u32 = 5;
    /// Versions 3 and 4: seconds since 1970.
    pub const GETTIME: u32 = 6;
    /// Versions 3 and 4: a universal address as a socket address.
    pub const UADDR2TADDR: u32 = 7;
    /// Versions 3 and 4: a socket address as a universal address.
    pub const TADDR2UADDR: u32 = 8;
    /// Version 4: as GETADDR, but of this very version of the program.
    pub const GETVERSADDR: u32 = 9;
    /// Version 4: calls another program, with errors.
    pub const INDIRECT: u32 = 10;
    /// Version 4: every address of a program.
    pub const GETADDRLIST: u32 = 11;
    /// Version 4: counters.
    pub const GETSTAT: u32 = 12;
}

xdr_struct! {
    /// `mapping` of version 2: one registration.
    #[derive(Copy, PartialEq, Eq)]
    Mapping {
        /// Program number.
        program: u32,
        /// Its version.
        version: u32,
        /// [`TCP`] or [`UDP`].
        protocol: u32,
        /// Port; 0 where it does not matter.
        port: u32,
    }
}

/// A string of rpcbind.
pub type Text<'a> = Opaque<'a, STRING_MAX>;

xdr_struct! {
    /// `rpcb` of versions 3 and 4: one registration.
    #[derive(PartialEq, Eq)]
    Binding<'a> {
        /// Program number.
        program: u32,
        /// Its version.
        version: u32,
        /// "tcp", "udp", "tcp6" or "udp6".
        network: Text<'a>,
        /// Universal address; empty where it does not matter.
        address: Text<'a>,
        /// Who registered it.
        owner: Text<'a>,
    }
}

xdr_struct! {
    /// `rpcb_entry` of version 4's GETADDRLIST.
    #[derive(PartialEq, Eq)]
    Entry<'a> {
        /// Universal address.
        address: Text<'a>,
        /// "tcp", "udp", "tcp6" or "udp6".
        network: Text<'a>,
        /// 1: datagrams, 3: streams with an orderly end.
        semantics: u32,
        /// "inet" or "inet6".
        family: Text<'a>,
        /// "tcp" or "udp".
        protocol: Text<'a>,
    }
}

/// The universal address of a socket (RFC 5665 section 5.2.3): the address, then the two bytes of the port.
pub fn universal(address: SocketAddr) -> String {
    let [high, low] = address.port().to_be_bytes();
    let mut text = address.ip().to_string();
    // Writing to a string does not fail.
    let _infallible = write!(text, ".{high}.{low}");
    text
}

/// The reverse of [`universal`]; `None` if it is none.
pub fn parse_universal(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let (rest, low) = text.rsplit_once('.')?;
    let (address, high) = rest.rsplit_once('.')?;
    let byte =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u8>().ok())?;
    let address: IpAddr = address.parse().ok()?;
    Some(SocketAddr::new(address, u16::from_be_bytes([byte(high)?, byte(low)?])))
}

/// The arguments of a call, whatever the version: what the table looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arguments<'a> {
    /// NULL, DUMP, GETTIME, GETSTAT.
    Nothing,
    /// Version 2's SET, UNSET, GETPORT.
    Mapping(Mapping),
    /// SET, UNSET, GETADDR, GETVERSADDR, GETADDRLIST of versions 3 and 4.
    Binding(Binding<'a>),
}

impl<'a> Arguments<'a> {
    /// Reads the arguments of `procedure` of `version`; `None` if it is not served.
    pub fn decode(
        version: u32,
        procedure: u32,
        input: &mut Decoder<'a>,
    ) -> Result<Option<Arguments<'a>>, DecodeError> {
        use procedure::*;
        let rpcbind = matches!(version, RPCBIND_3 | RPCBIND_4);
        if version != PORTMAP && !rpcbind {
            return Ok(None);
        }
        Ok(match procedure {
            NULL | DUMP => Some(Arguments::Nothing),
            SET | UNSET | GET if version == PORTMAP => Some(Arguments::Mapping(Mapping::decode(input)?)),
            SET | UNSET | GET => Some(Arguments::Binding(Binding::decode(input)?)),
            GETTIME if rpcbind => Some(Arguments::Nothing),
            GETVERSADDR | GETADDRLIST if version == RPCBIND_4 => {
                Some(Arguments::Binding(Binding::decode(input)?))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoder;
    use crate::mount::List;
    use crate::xdr::Encode;

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    #[test]
    fn version_2_has_the_bytes_of_the_rfc() {
        let mapping = Mapping { program: 100_003, version: 3, protocol: TCP, port: 2049 };
        let list = List(vec![mapping]);
        let bytes = encoded(&list);
        assert_eq!(bytes, b"\0\0\0\x01\0\x01\x86\xa3\0\0\0\x03\0\0\0\x06\0\0\x08\x01\0\0\0\0");
        assert_eq!(List::<Mapping>::decode(&mut Decoder::new(&bytes)), Ok(list));
        let arguments = Arguments::decode(2, procedure::GET, &mut Decoder::new(&bytes[4..20]));
        assert_eq!(arguments, Ok(Some(Arguments::Mapping(mapping))));
        assert!(Arguments::decode(2, procedure::GET, &mut Decoder::new(&bytes[4..19])).is_err());
    }

    #[test]
    fn versions_3_and_4_have_the_bytes_of_the_rfc() {
        let binding = Binding {
            program: 100_005,
            version: 3,
            network: Opaque(b"udp"),
            address: Opaque(b"0.0.0.0.8.1"),
            owner: Opaque(b"superuser"),
        };
        let bytes = encoded(&binding);
        assert_eq!(
            bytes,
            b"\0\x01\x86\xa5\0\0\0\x03\0\0\0\x03udp\0\0\0\0\x0b0.0.0.0.8.1\0\0\0\0\x09superuser\0\0\0"
        );
        for version in [3, 4] {
            let arguments = Arguments::decode(version, procedure::SET, &mut Decoder::new(&bytes));
            assert_eq!(arguments, Ok(Some(Arguments::Binding(binding.clone()))));
        }
        let mut long = bytes[..8].to_vec();
        long.extend(257u32.to_be_bytes());
        long.resize(600, b'x');
        assert!(matches!(
            Arguments::decode(4, procedure::GET, &mut Decoder::new(&long)),
            Err(DecodeError::TooLong { length: 257, limit: 256, .. })
        ));
    }

    #[test]
    fn what_is_not_served_is_told_apart() {
        let none = &mut Decoder::new(&[]);
        assert_eq!(Arguments::decode(2, procedure::DUMP, none), Ok(Some(Arguments::Nothing)));
        assert_eq!(Arguments::decode(2, procedure::CALLIT, none), Ok(None));
        assert_eq!(Arguments::decode(2, procedure::GETTIME, none), Ok(None));
        assert_eq!(Arguments::decode(3, procedure::GETTIME, none), Ok(Some(Arguments::Nothing)));
        assert_eq!(Arguments::decode(3, procedure::GETADDRLIST, none), Ok(None));
        assert_eq!(Arguments::decode(4, procedure::INDIRECT, none), Ok(None));
        assert_eq!(Arguments::decode(5, procedure::NULL, none), Ok(None));
    }

    #[test]
    fn universal_addresses() {
        for (text, address) in [
            ("10.1.2.3.8.1", "10.1.2.3:2049"),
            ("::.0.111", "[::]:111"),
            ("fe80::1.255.255", "[fe80::1]:65535"),
        ] {
            assert_eq!(universal(address.parse().unwrap()), text);
            assert_eq!(parse_universal(text.as_bytes()), Some(address.parse().unwrap()));
        }
        for bad in
            ["", "1.2", "10.1.2.3", "10.1.2.3.256.1", "10.1.2.3.+1.1", "a.b", "10.1.2.3..1", "\u{e9}.1.2"]
        {
            assert_eq!(parse_universal(bad.as_bytes()), None, "{bad}");
        }
    }
}
