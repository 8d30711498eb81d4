//! NFS version 3 (RFC 1813): arguments and results of all 22 procedures, both directions.

pub mod arguments;
pub mod directory;
pub mod results;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{Decode, Encode};
pub use nfsserve::nfs::{
    FSF_CANSETTIME, FSF_HOMOGENEOUS, FSF_LINK, FSF_SYMLINK, PROGRAM, VERSION, fattr3, fsinfo3, ftype3,
    nfs_fh3, nfsstat3, nfstime3, post_op_attr, post_op_fh3, pre_op_attr, sattr3, set_atime, set_gid3,
    set_mode3, set_mtime, set_size3, set_uid3, specdata3, wcc_attr, wcc_data,
};

/// Most bytes of one READ or WRITE.
pub const MAX_IO: usize = 1024 * 1024;
/// Longest name that is decoded; what exceeds the file system's own limit is answered, not refused.
pub const MAX_NAME: usize = 4096;
/// Longest symlink target that is decoded.
pub const MAX_PATH: usize = 4096;

/// ACCESS3 bits.
pub mod access {
    /// Read data or list a directory.
    pub const READ: u32 = 0x01;
    /// Look up a name in a directory.
    pub const LOOKUP: u32 = 0x02;
    /// Rewrite data or change a directory's entries.
    pub const MODIFY: u32 = 0x04;
    /// Write new data or add entries.
    pub const EXTEND: u32 = 0x08;
    /// Delete an entry.
    pub const DELETE: u32 = 0x10;
    /// Execute a file.
    pub const EXECUTE: u32 = 0x20;
    /// Every bit that is defined.
    pub const ALL: u32 = 0x3f;
}

macro_rules! procedures {
    ($($variant:ident = $number:literal $name:literal,)*) => {
        /// The procedures.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u32)]
        #[allow(missing_docs)]
        pub enum Procedure { $($variant = $number,)* }

        impl Procedure {
            /// Every procedure, by number.
            pub const ALL: [Procedure; 22] = [$(Procedure::$variant,)*];

            /// As in the RFC, lower case.
            pub fn name(self) -> &'static str {
                match self { $(Procedure::$variant => $name,)* }
            }
        }
    };
}

procedures! {
    Null = 0 "null",
    Getattr = 1 "getattr",
    Setattr = 2 "setattr",
    Lookup = 3 "lookup",
    Access = 4 "access",
    Readlink = 5 "readlink",
    Read = 6 "read",
    Write = 7 "write",
    Create = 8 "create",
    Mkdir = 9 "mkdir",
    Symlink = 10 "symlink",
    Mknod = 11 "mknod",
    Remove = 12 "remove",
    Rmdir = 13 "rmdir",
    Rename = 14 "rename",
    Link = 15 "link",
    Readdir = 16 "readdir",
    Readdirplus = 17 "readdirplus",
    Fsstat = 18 "fsstat",
    Fsinfo = 19 "fsinfo",
    Pathconf = 20 "pathconf",
    Commit = 21 "commit",
}

impl Procedure {
    /// The procedure of this number.
    pub fn from_number(number: u32) -> Option<Procedure> {
        Procedure::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Must not be done twice when a call is sent again: its reply is kept.
    pub fn is_replayed(self) -> bool {
        use Procedure::*;
        matches!(self, Setattr | Write | Create | Mkdir | Symlink | Mknod | Remove | Rmdir | Rename | Link)
    }
}

/// stable_how.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum StableHow {
    Unstable = 0,
    DataSync = 1,
    FileSync = 2,
}

impl Encode for StableHow {
    fn encode(&self, out: &mut Encoder) {
        out.u32(*self as u32);
    }
}

impl<'a> Decode<'a> for StableHow {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match input.u32()? {
            0 => Ok(StableHow::Unstable),
            1 => Ok(StableHow::DataSync),
            2 => Ok(StableHow::FileSync),
            value => Err(DecodeError::Invalid { what: "stable_how", value: u64::from(value) }),
        }
    }
}

/// A result: what follows NFS3_OK, or a status and what follows that.
pub type Reply<O, F> = Result<O, (nfsstat3, F)>;

impl<O: Encode, F: Encode> Encode for Reply<O, F> {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Ok(ok) => {
                out.u32(0);
                ok.encode(out);
            }
            Err((status, rest)) => {
                status.encode(out);
                rest.encode(out);
            }
        }
    }
}

impl<'a, O: Decode<'a>, F: Decode<'a>> Decode<'a> for Reply<O, F> {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match nfsstat3::decode(input)? {
            nfsstat3::NFS3_OK => Ok(Ok(O::decode(input)?)),
            status => Ok(Err((status, F::decode(input)?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procedures_are_numbered_as_in_the_rfc() {
        for (number, procedure) in (0u32..).zip(Procedure::ALL) {
            assert_eq!(procedure as u32, number);
            assert_eq!(Procedure::from_number(number), Some(procedure));
        }
        assert_eq!(Procedure::from_number(22), None);
        assert_eq!(Procedure::Commit.name(), "commit");
    }

    #[test]
    fn only_what_changes_something_is_replayed() {
        assert!(Procedure::Rename.is_replayed());
        assert!(!Procedure::Read.is_replayed());
        assert_eq!(Procedure::ALL.into_iter().filter(|p| p.is_replayed()).count(), 10);
    }
}
