//! MOUNT version 3 (RFC 1813 appendix I).

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{Decode, Encode, Opaque, xdr_struct};
use nfsserve::nfs::nfs_fh3;

/// Program number.
pub const PROGRAM: u32 = 100_005;
/// The one version that is served.
pub const VERSION: u32 = 3;
/// Longest path (MNTPATHLEN).
pub const PATH_MAX: usize = 1024;
/// Longest host name (MNTNAMLEN).
pub const NAME_MAX: usize = 255;

/// Argument of MNT and UMNT.
pub type DirPath<'a> = Opaque<'a, PATH_MAX>;
/// A host's name.
pub type HostName<'a> = Opaque<'a, NAME_MAX>;

/// Procedures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Procedure {
    Null = 0,
    Mnt = 1,
    Dump = 2,
    Umnt = 3,
    UmntAll = 4,
    Export = 5,
}

impl Procedure {
    /// Every procedure, by number.
    pub const ALL: [Procedure; 6] = [
        Procedure::Null,
        Procedure::Mnt,
        Procedure::Dump,
        Procedure::Umnt,
        Procedure::UmntAll,
        Procedure::Export,
    ];

    /// The procedure of this number.
    pub fn from_number(number: u32) -> Option<Procedure> {
        Procedure::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// As in the RFC, lower case.
    pub fn name(self) -> &'static str {
        ["null", "mnt", "dump", "umnt", "umntall", "export"][self as usize]
    }
}

/// mountstat3, without MNT3_OK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum MountError {
    Perm = 1,
    NoEnt = 2,
    Io = 5,
    Access = 13,
    NotDir = 20,
    Inval = 22,
    NameTooLong = 63,
    NotSupp = 10_004,
    ServerFault = 10_006,
}

const ERRORS: [MountError; 9] = [
    MountError::Perm,
    MountError::NoEnt,
    MountError::Io,
    MountError::Access,
    MountError::NotDir,
    MountError::Inval,
    MountError::NameTooLong,
    MountError::NotSupp,
    MountError::ServerFault,
];

/// Most authentication flavours in a reply.
const MAX_FLAVOURS: usize = 64;

/// What MNT returns when it succeeds.
#[derive(Clone, Debug)]
pub struct MountOk {
    /// Handle of the directory.
    pub handle: nfs_fh3,
    /// Authentication flavours that the server takes, best first.
    pub flavours: Vec<u32>,
}

/// The result of MNT.
pub type MountReply = Result<MountOk, MountError>;

impl Encode for MountReply {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Ok(ok) => {
                out.u32(0);
                ok.handle.encode(out);
                out.u32(ok.flavours.len() as u32);
                ok.flavours.iter().for_each(|flavour| out.u32(*flavour));
            }
            Err(error) => out.u32(*error as u32),
        }
    }
}

impl<'a> Decode<'a> for MountReply {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let status = input.u32()?;
        if status == 0 {
            let handle = nfs_fh3::decode(input)?;
            let count = input.length("list of flavours", MAX_FLAVOURS)?;
            let flavours = (0..count).map(|_| input.u32()).collect::<Result<_, _>>()?;
            return Ok(Ok(MountOk { handle, flavours }));
        }
        match ERRORS.into_iter().find(|error| *error as u32 == status) {
            Some(error) => Ok(Err(error)),
            None => Err(DecodeError::Invalid { what: "mountstat3", value: u64::from(status) }),
        }
    }
}

/// An XDR linked list: each element after a TRUE, then FALSE.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List<T>(pub Vec<T>);

impl<T: Encode> Encode for List<T> {
    fn encode(&self, out: &mut Encoder) {
        for element in &self.0 {
            out.u32(1);
            element.encode(out);
        }
        out.u32(0);
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for List<T> {
    /// Bounded by the input: every element takes at least the four bytes of its TRUE.
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let mut elements = Vec::new();
        while let Some(element) = Option::<T>::decode(input)? {
            elements.push(element);
        }
        Ok(List(elements))
    }
}

xdr_struct! {
    /// One line of DUMP: who has mounted what.
    #[derive(PartialEq, Eq)]
    MountEntry<'a> {
        /// The client.
        host: HostName<'a>,
        /// What it has mounted.
        directory: DirPath<'a>,
    }
}

xdr_struct! {
    /// One line of EXPORT.
    #[derive(PartialEq, Eq)]
    ExportEntry<'a> {
        /// The name to mount.
        directory: DirPath<'a>,
        /// Who may; empty = everybody.
        groups: List<HostName<'a>>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    #[test]
    fn numbers_and_names_of_procedures() {
        assert_eq!(Procedure::from_number(1), Some(Procedure::Mnt));
        assert_eq!(Procedure::from_number(5).map(Procedure::name), Some("export"));
        assert_eq!(Procedure::from_number(6), None);
    }

    #[test]
    fn mnt_reply_bytes() {
        let reply: MountReply = Ok(MountOk { handle: nfs_fh3 { data: vec![1, 2, 3, 4] }, flavours: vec![1] });
        let bytes = encoded(&reply);
        assert_eq!(bytes, b"\0\0\0\0\0\0\0\x04\x01\x02\x03\x04\0\0\0\x01\0\0\0\x01");
        let back = MountReply::decode(&mut Decoder::new(&bytes)).unwrap().unwrap();
        assert_eq!((back.handle.data, back.flavours), (vec![1, 2, 3, 4], vec![1]));
        let error: MountReply = Err(MountError::NotDir);
        assert_eq!(encoded(&error), [0, 0, 0, 20]);
        assert!(matches!(MountReply::decode(&mut Decoder::new(&[0, 0, 0, 20])), Ok(Err(MountError::NotDir))));
        assert!(MountReply::decode(&mut Decoder::new(&[0, 0, 0, 21])).is_err());
    }

    #[test]
    fn lists() {
        let dump = List(vec![MountEntry { host: Opaque(b"a"), directory: Opaque(b"/s") }]);
        let bytes = encoded(&dump);
        assert_eq!(bytes, b"\0\0\0\x01\0\0\0\x01a\0\0\0\0\0\0\x02/s\0\0\0\0\0\0");
        assert_eq!(List::<MountEntry<'_>>::decode(&mut Decoder::new(&bytes)), Ok(dump));
        let exports = List(vec![ExportEntry { directory: Opaque(b"/s"), groups: List(Vec::new()) }]);
        let bytes = encoded(&exports);
        assert_eq!(List::<ExportEntry<'_>>::decode(&mut Decoder::new(&bytes)), Ok(exports));
        assert!(List::<ExportEntry<'_>>::decode(&mut Decoder::new(&bytes[..8])).is_err());
    }

    #[test]
    fn a_path_over_its_limit_is_refused() {
        let mut bytes = 1025u32.to_be_bytes().to_vec();
        bytes.resize(4 + 1028, b'a');
        assert!(matches!(
            DirPath::decode(&mut Decoder::new(&bytes)),
            Err(DecodeError::TooLong { length: 1025, limit: 1024, .. })
        ));
    }
}
