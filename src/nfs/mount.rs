//! MOUNT3: from a path to the first file handle, and who has mounted what.

use super::handle::Handles;
use super::names::{Purpose, check};
use super::procedures::Outcome;
use crate::host::ObjectKey;
use crate::vfs::{Caller, Vfs, VfsError};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::mount::{
    DirPath, ExportEntry, List, MountEntry, MountError, MountOk, MountReply, PATH_MAX, Procedure,
};
use ehpc_proto::replication::Kind;
use ehpc_proto::rpc::AUTH_SYS;
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Most lines that the table of mounts holds; it informs people and decides nothing.
const MAX_MOUNTS: usize = 512;

/// Who has mounted what, by the clients' own word.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    table: Mutex<BTreeSet<(IpAddr, Vec<u8>)>>,
}

impl Mounts {
    fn add(&self, client: IpAddr, path: &[u8]) {
        let mut table = self.table.lock();
        if table.len() < MAX_MOUNTS {
            table.insert((client, path.to_vec()));
        }
    }

    fn remove(&self, client: IpAddr, path: &[u8]) {
        self.table.lock().remove(&(client, path.to_vec()));
    }

    fn remove_all(&self, client: IpAddr) {
        self.table.lock().retain(|(address, _)| *address != client);
    }

    /// (address, directory), sorted.
    pub(super) fn list(&self) -> Vec<(String, Vec<u8>)> {
        self.table.lock().iter().map(|(address, path)| (address.to_string(), path.clone())).collect()
    }
}

/// What a MOUNT procedure works with.
pub(super) struct MountContext<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) caller: &'a Caller,
    pub(super) handles: &'a Handles,
    pub(super) export: &'a str,
    pub(super) mounts: &'a Mounts,
    pub(super) client: IpAddr,
}

impl MountContext<'_> {
    /// Does `procedure`: reads its arguments, writes its result.
    pub(super) fn run(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<Outcome, DecodeError> {
        let mut outcome = Outcome::default();
        match procedure {
            Procedure::Null => {}
            Procedure::Mnt => {
                let path = DirPath::decode(input)?.0;
                let reply: MountReply = self.mnt(path);
                outcome.failed = reply.is_err();
                reply.encode(out);
            }
            Procedure::Dump => {
                let mounts = self.mounts.list();
                let lines = mounts.iter().map(|(host, path)| MountEntry {
                    host: Opaque(host.as_bytes()),
                    directory: Opaque(path),
                });
                List(lines.collect()).encode(out);
            }
            Procedure::Umnt => self.mounts.remove(self.client, DirPath::decode(input)?.0),
            Procedure::UmntAll => self.mounts.remove_all(self.client),
            Procedure::Export => {
                let name = self.export.as_bytes();
                let directory = Opaque(&name[..name.len().min(PATH_MAX)]);
                List(vec![ExportEntry { directory, groups: List(Vec::new()) }]).encode(out);
            }
        }
        Ok(outcome)
    }

    fn mnt(&self, path: &[u8]) -> MountReply {
        let key = self.walk(path)?;
        self.mounts.add(self.client, path);
        Ok(MountOk { handle: self.handles.encode(&key), flavours: vec![AUTH_SYS] })
    }

    /// The directory of a path: the export, or one below it, found under the caller's ids.
    fn walk(&self, path: &[u8]) -> Result<ObjectKey, MountError> {
        if path.contains(&0) {
            return Err(MountError::Inval);
        }
        if !path.starts_with(b"/") {
            return Err(MountError::NoEnt);
        }
        let mut names = components(path);
        for expected in components(self.export.as_bytes()) {
            if names.next() != Some(expected) {
                return Err(MountError::NoEnt);
            }
        }
        let mut key = self.vfs.root();
        for name in names {
            if name == b".." {
                return Err(MountError::Access);
            }
            check(name, Purpose::Lookup).map_err(|_| MountError::NameTooLong)?;
            key = self.vfs.lookup(self.caller, &key, name).0.map_err(mount_error)?.key;
        }
        let attributes = self.vfs.getattr(self.caller, &key).map_err(mount_error)?;
        if attributes.kind == Kind::Directory { Ok(key) } else { Err(MountError::NotDir) }
    }
}

/// The names of a path, without the empty ones and ".".
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn mount_error(error: VfsError) -> MountError {
    match error {
        VfsError::Perm => MountError::Perm,
        VfsError::NoEnt | VfsError::Stale => MountError::NoEnt,
        VfsError::Access => MountError::Access,
        VfsError::NotDir => MountError::NotDir,
        VfsError::Inval => MountError::Inval,
        VfsError::NameTooLong => MountError::NameTooLong,
        VfsError::NotSupp => MountError::NotSupp,
        VfsError::Io | VfsError::Nxio => MountError::Io,
        _ => MountError::ServerFault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_cleared_by_client() {
        let mounts = Mounts::default();
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        mounts.add(b, b"/share");
        for number in 0..2 * MAX_MOUNTS {
            mounts.add(a, number.to_string().as_bytes());
        }
        assert_eq!(mounts.list().len(), MAX_MOUNTS);
        mounts.remove_all(a);
        assert_eq!(mounts.list(), [("10.0.0.2".to_owned(), b"/share".to_vec())]);
        mounts.remove(b, b"/share");
        assert!(mounts.list().is_empty());
    }

    #[test]
    fn paths_are_split_into_names() {
        let names = |path: &'static str| components(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(names("//share/./a/"), [&b"share"[..], b"a"]);
        assert!(names("/").is_empty());
    }
}
