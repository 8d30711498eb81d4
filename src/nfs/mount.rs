//! MOUNT3: from a path to the first file handle, and who has mounted what.

use super::exports::{Export, Table, Who};
use super::handle::{HandleKey, Handles};
use super::names::{Purpose, check};
use crate::host::ObjectKey;
use crate::settings::exports::{Client, Rule};
use crate::vfs::{Caller, VfsError};
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::mount::{
    DirPath, ExportEntry, HostName, List, MountEntry, MountError, MountOk, MountReply, NAME_MAX, PATH_MAX,
    Procedure,
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
    pub(super) exports: &'a Table,
    pub(super) key: &'a HandleKey,
    pub(super) mounts: &'a Mounts,
    pub(super) who: Who<'a>,
}

impl MountContext<'_> {
    /// Does `procedure`: reads its arguments, writes its result. True: it is an error.
    pub(super) fn run(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<bool, DecodeError> {
        let mut failed = false;
        match procedure {
            Procedure::Null => {}
            Procedure::Mnt => {
                let path = DirPath::decode(input)?.0;
                let reply: MountReply = self.mnt(path);
                failed = reply.is_err();
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
            Procedure::Umnt => self.mounts.remove(self.who.peer.ip(), DirPath::decode(input)?.0),
            Procedure::UmntAll => self.mounts.remove_all(self.who.peer.ip()),
            Procedure::Export => self.export(out),
        }
        Ok(failed)
    }

    /// The exports and who may mount them, to anybody who asks.
    fn export(&self, out: &mut Encoder) {
        let all: Vec<(&[u8], Vec<String>)> = self
            .exports
            .exports()
            .iter()
            .filter(|export| !export.implied)
            .map(|export| (&export.name[..], groups(&export.rules)))
            .collect();
        let lines = all.iter().map(|(name, groups)| ExportEntry {
            directory: Opaque(bounded(name, PATH_MAX)),
            groups: List(groups.iter().map(|group| group_name(group)).collect()),
        });
        List(lines.collect()).encode(out);
    }

    fn mnt(&self, path: &[u8]) -> MountReply {
        if path.contains(&0) {
            return Err(MountError::Inval);
        }
        if !path.starts_with(b"/") {
            return Err(MountError::NoEnt);
        }
        // A client that the deepest export does not know may still use one that holds it.
        let mut refused = MountError::NoEnt;
        for (export, names) in self.exports.holding(path) {
            match self.exports.admit(export, &self.who) {
                Ok(_) => {
                    let handle = Handles::new(self.key, export.id).encode(&walk(
                        export,
                        &names,
                        &self.who.claim.unsquashed(),
                    )?);
                    self.mounts.add(self.who.peer.ip(), path);
                    return Ok(MountOk { handle, flavours: vec![AUTH_SYS] });
                }
                Err(refusal) => refused = refusal.mount_error(),
            }
        }
        Err(refused)
    }
}

/// The directory that `names` lead to from the export's root. Root is not squashed on this way: an automounter
/// mounts the homes of users, which root of a client may not search. A handle permits nothing; what is done with
/// it is done under the squashed ids.
fn walk(export: &Export, names: &[&[u8]], caller: &Caller) -> Result<ObjectKey, MountError> {
    let mut key = export.root.clone();
    for &name in names {
        if name == b".." {
            return Err(MountError::Access);
        }
        check(name, Purpose::Lookup).map_err(|_| MountError::NameTooLong)?;
        key = export.vfs.lookup(caller, &key, name).0.map_err(mount_error)?.key;
    }
    let attributes = export.vfs.getattr(caller, &key).map_err(mount_error)?;
    if attributes.kind == Kind::Directory { Ok(key) } else { Err(MountError::NotDir) }
}

/// Who may mount, as EXPORT tells it: nobody is named where everybody may.
fn groups(rules: &[Rule]) -> Vec<String> {
    if rules.iter().any(|rule| rule.client == Client::Everybody) {
        return Vec::new();
    }
    rules.iter().map(|rule| rule.client.to_string()).collect()
}

fn group_name(group: &str) -> HostName<'_> {
    Opaque(bounded(group.as_bytes(), NAME_MAX))
}

fn bounded(text: &[u8], most: usize) -> &[u8] {
    text.get(..most).unwrap_or(text)
}

/// The names of a path, without the empty ones and ".".
pub(super) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
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
