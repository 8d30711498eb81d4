//! From what an exports file says to a table: directories opened, numbers given, ways across mounts found.

use super::{Shares, WHOLE_SHARE, describe};
use crate::host::{ObjectKey, Tree};
use crate::nfs::{self, Crossing};
use crate::observe::status::NfsExport;
use crate::settings::exports::{Exported, MountPoint, Rule};
use crate::vfs::{LocalOptions, LocalVfs, Vfs};
use ehpc_proto::replication::Kind;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File systems of the kernel's own that `crossmnt` does not export.
const NOT_FILES: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

pub(super) struct Built {
    pub(super) table: nfs::Table,
    pub(super) described: Vec<NfsExport>,
    pub(super) faults: Vec<String>,
    pub(super) others: HashMap<PathBuf, Arc<LocalVfs>>,
}

/// What holds the files of an export.
#[derive(Clone)]
enum Base {
    /// The replicated directory.
    Share,
    /// A directory outside of it.
    Other(Arc<LocalVfs>),
}

/// An exported directory that is there.
struct Place {
    /// As written.
    name: PathBuf,
    /// Without symbolic links.
    path: PathBuf,
    base: Base,
    root: ObjectKey,
    is_mount: bool,
    id: u32,
    rules: Vec<Rule>,
    sync: bool,
    fsid: Option<u64>,
    implied: bool,
    crossings: Vec<Crossing>,
}

struct Builder<'s> {
    shares: &'s Shares,
    places: Vec<Place>,
    faults: Vec<String>,
    others: HashMap<PathBuf, Arc<LocalVfs>>,
}

/// Builds the table of what is there; what is not there is said.
pub(super) fn build(shares: &Shares, exported: &[Exported]) -> Result<Built, nfs::TableError> {
    let mut builder = Builder { shares, places: Vec::new(), faults: Vec::new(), others: HashMap::new() };
    let mut exported: Vec<&Exported> = exported.iter().collect();
    // A directory comes before what lies in it: that may share its file system.
    exported.sort_by(|a, b| a.path.cmp(&b.path));
    for export in exported {
        if let Err(why) = builder.add(export) {
            let (path, site) = (export.path.display(), &export.site);
            builder.faults.push(format!("{path} is not exported: {why} ({site})"));
        }
    }
    builder.follow_mounts();
    builder.cross();
    let mut exports = Vec::new();
    let mut described = Vec::new();
    for place in builder.places {
        let backed_up = matches!(place.base, Base::Share);
        let export = shares.export(place);
        described.push(describe(&export, backed_up));
        if !backed_up {
            tracing::warn!(
                export = export.display_name(),
                "this export is NOT backed up: it is not in nfs1.export.path"
            );
        }
        exports.push(export);
    }
    described.sort_by(|a, b| a.name.cmp(&b.name));
    let table = nfs::Table::new(exports)?;
    Ok(Built { table, described, faults: builder.faults, others: builder.others })
}

impl Builder<'_> {
    fn add(&mut self, export: &Exported) -> Result<(), String> {
        let path = fs::canonicalize(&export.path).map_err(|error| error.to_string())?;
        match export.mount_point() {
            Some(MountPoint::Itself) if !is_mount(&path) => {
                return Err("it is not a mount point now".to_owned());
            }
            Some(MountPoint::At(point)) if !is_mount(point) => {
                return Err(format!("{} is not a mount point now", point.display()));
            }
            _ => {}
        }
        let is_mount = is_mount(&path);
        if let Some(rule) = export.rules.iter().find(|rule| rule.options.subtree_check)
            && !is_mount
        {
            let why = "subtree_check is honoured for the root of a file system only, where there is nothing to check";
            return Err(format!("{why}; write no_subtree_check: {}", rule.site));
        }
        let (base, root) = self.open(&path).map_err(|error| error.to_string())?;
        let whole_share = matches!(base, Base::Share) && root == *self.shares.share.tree().root_key();
        let id = match export.fsid() {
            Some(fsid) => number("fsid", fsid.to_string().as_bytes()),
            None if whole_share => WHOLE_SHARE,
            None => number("path", export.path.as_os_str().as_bytes()),
        };
        self.places.push(Place {
            name: export.path.clone(),
            path,
            base,
            root,
            is_mount,
            id,
            rules: export.rules.clone(),
            sync: export.sync(),
            fsid: export.fsid().map(crate::settings::exports::Fsid::attribute),
            implied: false,
            crossings: Vec::new(),
        });
        Ok(())
    }

    /// What holds this directory, and its key there. Directories of one file system share what is known to hold
    /// them, so that locks and open files are the same whichever way an object is reached.
    fn open(&mut self, path: &Path) -> io::Result<(Base, ObjectKey)> {
        if let Some(key) = locate(self.shares.share.tree(), path) {
            return Ok((Base::Share, key));
        }
        for vfs in self.others.values() {
            if let Some(key) = locate(vfs.tree(), path) {
                return Ok((Base::Other(Arc::clone(vfs)), key));
            }
        }
        let tree = Tree::open(path)?;
        let known = self.shares.others.lock().get(path).cloned();
        let vfs = match known {
            Some(known) if is_the_same(known.tree(), &tree) => known,
            _ => Arc::new(LocalVfs::new(Arc::new(tree), LocalOptions::default())),
        };
        self.others.insert(path.to_path_buf(), Arc::clone(&vfs));
        let root = vfs.root();
        Ok((Base::Other(vfs), root))
    }

    /// `crossmnt`: what is mounted below is exported to the same clients.
    fn follow_mounts(&mut self) {
        if !self.places.iter().any(|place| place.crosses()) {
            return;
        }
        // Sorted: an outer one is there before an inner one asks whether it may be crossed.
        for (path, kind) in mounts() {
            if NOT_FILES.contains(&kind.as_str()) || self.places.iter().any(|place| place.path == path) {
                continue;
            }
            let Some(outer) = self.nearest(&path).filter(|outer| outer.crosses()) else { continue };
            let rules: Vec<Rule> =
                outer.rules.iter().filter(|rule| rule.options.crossmnt).map(Rule::below).collect();
            let below = path.strip_prefix(&outer.path).unwrap_or(&path);
            let (name, sync) = (outer.name.join(below), outer.sync);
            let Ok((base, root)) = self.open(&path) else { continue };
            let id = number("path", name.as_os_str().as_bytes());
            self.places.push(Place {
                name,
                path,
                base,
                root,
                is_mount: true,
                id,
                rules,
                sync,
                fsid: None,
                implied: true,
                crossings: Vec::new(),
            });
        }
    }

    /// The export that a path lies in.
    fn nearest(&self, path: &Path) -> Option<&Place> {
        let around = self.places.iter().filter(|place| path.starts_with(&place.path) && place.path != path);
        around.max_by_key(|place| place.path.components().count())
    }

    /// Finds the ways from exports into what is mounted in them.
    fn cross(&mut self) {
        let mut found = Vec::new();
        for inner in self.places.iter().filter(|place| place.is_mount) {
            let (Some(above), Some(name)) = (inner.path.parent(), inner.path.file_name()) else { continue };
            let Some(outer) = self.nearest(&inner.path) else { continue };
            if !outer.crosses() && inner.rules.iter().all(|rule| rule.options.hide) {
                continue;
            }
            if let Some(dir) = locate(self.shares.vfs(&outer.base).tree(), above) {
                let way = Crossing { dir, name: OsStr::as_bytes(name).to_vec(), to: inner.id };
                found.push((outer.id, way));
            }
        }
        for (from, way) in found {
            if let Some(outer) = self.places.iter_mut().find(|place| place.id == from) {
                outer.crossings.push(way);
            }
        }
    }
}

impl Place {
    fn crosses(&self) -> bool {
        self.rules.iter().any(|rule| rule.options.crossmnt)
    }
}

impl Shares {
    fn vfs<'a>(&'a self, base: &'a Base) -> &'a LocalVfs {
        match base {
            Base::Share => &self.share,
            Base::Other(vfs) => vfs,
        }
    }

    fn export(&self, place: Place) -> nfs::Export {
        let options = LocalOptions {
            sync: place.sync,
            read_only: false,
            fsid: place.fsid,
            show_mount_points: !place.crossings.is_empty(),
        };
        let vfs: Arc<dyn Vfs> = match &place.base {
            Base::Share => self.replicated(options),
            Base::Other(vfs) => Arc::new(vfs.view(options)),
        };
        nfs::Export {
            id: place.id,
            name: place.name.as_os_str().as_bytes().to_vec(),
            vfs,
            root: place.root,
            rules: place.rules,
            crossings: place.crossings,
            implied: place.implied,
        }
    }
}

/// A number for an export that is the same after every start. Two exports that meet by chance (one in four
/// billion) are refused by the table.
fn number(what: &str, of: &[u8]) -> u32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(what.as_bytes()).update(b"\0").update(of);
    let bytes = *hasher.finalize().as_bytes();
    let [a, b, c, d, ..] = bytes;
    u32::from_be_bytes([a, b, c, d]).max(WHOLE_SHARE + 1)
}

/// The key of a directory that lies in the tree, on its file system.
fn locate(tree: &Tree, path: &Path) -> Option<ObjectKey> {
    let below = path.strip_prefix(tree.root_path()).ok()?;
    let mut key = tree.root_key().clone();
    let mut at = tree.open_path(&key).ok()?;
    for name in below {
        let (next, found) = tree.lookup_open(at.as_fd(), name.as_bytes()).ok()??;
        if found.stat.mount_root || found.stat.kind != Kind::Directory {
            return None;
        }
        (at, key) = (next, found.key);
    }
    Some(key)
}

/// Is the root of both the same directory of the same file system?
fn is_the_same(a: &Tree, b: &Tree) -> bool {
    (a.root_key(), a.device(), a.filesystem_id()) == (b.root_key(), b.device(), b.filesystem_id())
}

/// Is something mounted here?
pub(in crate::cli) fn is_mount(path: &Path) -> bool {
    let open = fs::File::open(path);
    open.is_ok_and(|open| Tree::stat(open.as_fd()).is_ok_and(|stat| stat.mount_root))
}

/// Mount points of this process and the kind of what is mounted there, sorted, the topmost of several.
fn mounts() -> Vec<(PathBuf, String)> {
    let table = crate::host::mounts::table().unwrap_or_default();
    let mut found: Vec<(PathBuf, String)> =
        table.into_iter().map(|mount| (mount.point, mount.kind)).rev().collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found.dedup_by(|a, b| a.0 == b.0);
    found
}
