//! What kind of work each procedure is, which decides where it may be done.

use crate::vfs::{Stability, Work};
use ehpc_proto::codec::Decoder;
use ehpc_proto::nfs3::arguments::{self, CreateHow};
use ehpc_proto::nfs3::{Procedure, StableHow};
use ehpc_proto::xdr::Decode;

/// What kind of work a call is; `None`: the arguments are none.
pub(super) fn of(procedure: Procedure, arguments: &[u8]) -> Option<Work> {
    let mut input = Decoder::new(arguments);
    Some(match procedure {
        Procedure::Null => return None,
        Procedure::Getattr
        | Procedure::Lookup
        | Procedure::Access
        | Procedure::Readlink
        | Procedure::Fsstat
        | Procedure::Fsinfo
        | Procedure::Pathconf => Work::Look,
        Procedure::Read => Work::Read,
        Procedure::Write => match arguments::Write::decode(&mut input).ok()?.stable {
            StableHow::Unstable => Work::Write(Stability::Unstable),
            StableHow::DataSync => Work::Write(Stability::DataSync),
            StableHow::FileSync => Work::Write(Stability::FileSync),
        },
        Procedure::Create => match arguments::Create::decode(&mut input).ok()?.how {
            CreateHow::Exclusive(_) => Work::Flush,
            CreateHow::Unchecked(_) | CreateHow::Guarded(_) => Work::Change,
        },
        Procedure::Setattr
        | Procedure::Mkdir
        | Procedure::Symlink
        | Procedure::Mknod
        | Procedure::Remove
        | Procedure::Rmdir
        | Procedure::Rename
        | Procedure::Link => Work::Change,
        Procedure::Readdir | Procedure::Readdirplus => Work::List,
        Procedure::Commit => Work::Flush,
    })
}
