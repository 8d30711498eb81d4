//! What the rows of the table work on: a served directory with one object of each sort.

use super::super::hooked::Hooked;
use super::super::wire::{Call, forged};
use super::super::{Fixture, local, options};
use super::cause::Cause;
use crate::vfs::VfsError;
use ehpc_proto::nfs3::arguments::{CreateHow, NodeKind};
use ehpc_proto::nfs3::{Procedure, StableHow, sattr3};
use ehpc_tools::mount::Mount;
use ehpc_tools::nfs_client::{Client, Handle, mode};
use parking_lot::Mutex;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::sync::Arc;

/// Somebody who owns nothing but `mine`.
const STRANGER: u32 = 77_001;

type Fault = Arc<Mutex<Option<(&'static str, VfsError)>>>;

pub(in crate::nfs::tests) struct World {
    pub(in crate::nfs::tests) client: Client,
    /// Root, on a connection of its own.
    pub(in crate::nfs::tests) onlooker: Client,
    /// Mode 755, root's: holds the others.
    pub(super) dir: Handle,
    /// "file", mode 644.
    pub(super) file: Handle,
    /// "closed", mode 600.
    closed_file: Handle,
    /// "mine", the stranger's.
    mine: Handle,
    /// "link".
    pub(super) link: Handle,
    /// "empty", a directory; "filled" is one that is not.
    pub(super) empty: Handle,
    /// "private": a directory of mode 700, holding "file".
    private: Handle,
    /// "sticky": everybody's directory of mode 1777, holding root's "theirs".
    pub(super) sticky: Handle,
    dead_file: Handle,
    dead_dir: Handle,
    fault: Fault,
    fixture: Fixture,
    _mount: Option<(Mount, tempfile::TempDir)>,
}

impl World {
    pub(in crate::nfs::tests) fn new(cause: &Cause) -> World {
        let fault = Fault::default();
        let armed = Arc::clone(&fault);
        let full = matches!(cause, Cause::FullDisk);
        let mount = full.then(|| {
            let dir = tempfile::tempdir().unwrap();
            (Mount::new("tmpfs", "none", dir.path(), "size=64k,nr_inodes=24"), dir)
        });
        let tiny = mount.as_ref().map(|(_, dir)| dir.path().to_owned());
        let fixture = Fixture::with(
            options(),
            |export| export.rules[0].options.read_only = matches!(cause, Cause::ReadOnly),
            |vfs| {
                let vfs = tiny.as_ref().map_or(vfs, |path| local(path));
                Hooked::failing(vfs, move |operation| {
                    armed.lock().filter(|(armed, _)| *armed == operation).map(|(_, error)| error)
                })
            },
        );
        let base = tiny.unwrap_or_else(|| fixture.dir.path().to_owned());
        furnish(&base);
        let (mut onlooker, root) = fixture.mounted();
        let (dir, _) = onlooker.lookup(&root, b"dir").unwrap();
        let mut find = |name: &[u8]| onlooker.lookup(&dir, name).unwrap().0;
        let world = World {
            client: fixture.client(),
            file: find(b"file"),
            closed_file: find(b"closed"),
            mine: find(b"mine"),
            link: find(b"link"),
            empty: find(b"empty"),
            private: find(b"private"),
            sticky: find(b"sticky"),
            dead_file: find(b"dead-file"),
            dead_dir: find(b"dead-dir"),
            dir,
            onlooker,
            fault,
            fixture,
            _mount: mount,
        };
        fs::remove_file(base.join("dir/dead-file")).unwrap();
        fs::remove_dir(base.join("dir/dead-dir")).unwrap();
        if full {
            fill(&base);
        }
        world
    }

    pub(in crate::nfs::tests) fn another_client(&self) -> Client {
        self.fixture.client()
    }

    pub(super) fn act_as_stranger(&mut self) {
        self.client.act_as(STRANGER, STRANGER, &[]);
    }

    /// The file system will refuse what this procedure asks of it.
    pub(super) fn arm(&mut self, procedure: Procedure, cause: &Cause) {
        if let Cause::Fault(error, _) = cause {
            *self.fault.lock() = Some((operation(procedure), *error));
        }
    }

    pub(super) fn disarm(&mut self) {
        *self.fault.lock() = None;
    }

    /// The calls that provoke what a row says.
    pub(in crate::nfs::tests) fn calls(&mut self, procedure: Procedure, cause: &Cause) -> Vec<Call> {
        let plain = Parts::of(self, procedure);
        let as_it_should_be = plain.call(procedure).arguments;
        let (file, directory) = (self.file.clone(), self.dead_dir.clone());
        let dead_file = self.dead_file.clone();
        let variants = match cause {
            Cause::By(call) => return vec![call(self)],
            Cause::Plain | Cause::ReadOnly | Cause::FullDisk | Cause::Fault(..) | Cause::Never(_) => {
                return vec![plain.call(procedure)];
            }
            Cause::Stranger => {
                self.act_as_stranger();
                return vec![self.forbidden(procedure, plain).call(procedure)];
            }
            Cause::Dead => plain.each_handle(|is_dir| if is_dir { &directory } else { &dead_file }.clone()),
            Cause::Forged => plain.each_handle(|_| forged()),
            Cause::NoDirectory => plain.each_directory(&file),
            Cause::LongName => plain.each_name(&[b'x'; 256]),
            Cause::NoSuchName => vec![Parts { old: b"none".to_vec(), ..plain }],
            Cause::Taken => vec![Parts { new: b"file".to_vec(), ..plain }],
        };
        let mut calls: Vec<Call> = variants.into_iter().map(|parts| parts.call(procedure)).collect();
        // What was replaced may be no part of this procedure's arguments.
        calls.retain(|call| call.arguments != as_it_should_be);
        calls.dedup_by(|a, b| a.arguments == b.arguments);
        assert!(!calls.is_empty(), "{procedure:?} has nothing that {cause:?} concerns");
        calls
    }

    /// What the modes do not allow the stranger.
    fn forbidden(&self, procedure: Procedure, plain: Parts) -> Parts {
        match procedure {
            Procedure::Lookup | Procedure::Readdir | Procedure::Readdirplus => {
                Parts { dir: self.private.clone(), ..plain }
            }
            Procedure::Read => Parts { object: self.closed_file.clone(), ..plain },
            Procedure::Setattr => Parts { truncate: true, ..plain },
            // Links to what is not one's own may be forbidden in general.
            Procedure::Link => Parts { object: self.mine.clone(), ..plain },
            _ => plain,
        }
    }
}

fn furnish(base: &std::path::Path) {
    let dir = base.join("dir");
    let with_mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (name, mode) in [
        ("", 0o755),
        ("empty", 0o755),
        ("filled", 0o755),
        ("private", 0o700),
        ("sticky", 0o1777),
        ("dead-dir", 0o755),
    ] {
        fs::create_dir(dir.join(name)).unwrap();
        with_mode(&dir.join(name), mode);
    }
    for (name, mode) in [("file", 0o644), ("closed", 0o600), ("mine", 0o644), ("dead-file", 0o644)] {
        fs::write(dir.join(name), b"hello").unwrap();
        with_mode(&dir.join(name), mode);
    }
    for name in ["filled/file", "private/file", "sticky/theirs"] {
        fs::hard_link(dir.join("file"), dir.join(name)).unwrap();
    }
    symlink("target", dir.join("link")).unwrap();
    chown(dir.join("mine"), Some(STRANGER), Some(STRANGER)).unwrap();
}

/// Takes the last inodes and blocks.
fn fill(base: &std::path::Path) {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().append(true).open(base.join("dir/mine")).unwrap();
    while file.write_all(&[1; 512]).is_ok() {}
    for number in 0.. {
        if fs::File::create(base.join(format!("fill-{number}"))).is_err() {
            assert!(number < 64, "the tmpfs is not as small as it should be");
            break;
        }
    }
}

/// The operation of the file system that a procedure stands or falls with.
pub(super) fn operation(procedure: Procedure) -> &'static str {
    match procedure {
        Procedure::Fsinfo | Procedure::Pathconf => "getattr",
        Procedure::Readdirplus => "readdir",
        other => other.name(),
    }
}

/// Procedures for which a directory is just another object that is no regular file.
pub(super) fn takes_regular_files(procedure: Procedure) -> bool {
    use Procedure::{Link, Read, Setattr, Write};
    matches!(procedure, Read | Write | Setattr | Link)
}

/// What a call is made of.
#[derive(Clone)]
struct Parts {
    /// The object of procedures that take one; LINK's file.
    object: Handle,
    /// The directory of the name; of RENAME's old name.
    dir: Handle,
    /// RENAME's other directory.
    other: Handle,
    /// A name that is there.
    old: Vec<u8>,
    /// A name that is not.
    new: Vec<u8>,
    /// SETATTR sets the size, not the mode.
    truncate: bool,
}

impl Parts {
    fn of(world: &World, procedure: Procedure) -> Parts {
        let old: &[u8] = if procedure == Procedure::Rmdir { b"empty" } else { b"file" };
        Parts {
            object: if procedure == Procedure::Readlink { &world.link } else { &world.file }.clone(),
            dir: world.dir.clone(),
            other: world.empty.clone(),
            old: old.to_vec(),
            new: b"new".to_vec(),
            truncate: false,
        }
    }

    /// With all handles replaced, then each in turn.
    fn each_handle(&self, by: impl Fn(bool) -> Handle) -> Vec<Parts> {
        vec![
            Parts { object: by(false), dir: by(true), ..self.clone() },
            Parts { object: by(false), ..self.clone() },
            Parts { dir: by(true), ..self.clone() },
            Parts { other: by(true), ..self.clone() },
        ]
    }

    fn each_directory(&self, by: &Handle) -> Vec<Parts> {
        vec![Parts { dir: by.clone(), ..self.clone() }, Parts { other: by.clone(), ..self.clone() }]
    }

    fn each_name(&self, by: &[u8]) -> Vec<Parts> {
        vec![Parts { old: by.to_vec(), ..self.clone() }, Parts { new: by.to_vec(), ..self.clone() }]
    }

    fn call(&self, procedure: Procedure) -> Call {
        use Procedure::*;
        let Parts { object, dir, other, old, new, .. } = self;
        match procedure {
            Null => Call { procedure, arguments: Vec::new(), handles: Vec::new() },
            Getattr | Readlink | Fsstat | Fsinfo | Pathconf => Call::of(procedure, object),
            Setattr if self.truncate => {
                let size = ehpc_proto::nfs3::set_size3::size(0);
                Call::setattr(object, sattr3 { size, ..sattr3::default() }, None)
            }
            Setattr => Call::setattr(object, mode(0o600), None),
            Lookup | Remove | Rmdir => Call::name(procedure, dir, old),
            Access => Call::access(object, 0x3f),
            Read => Call::read(object, 0, 10),
            Write => Call::write(object, 1 << 20, &[7; 4096], StableHow::FileSync),
            Create => Call::create(dir, new, CreateHow::Guarded(mode(0o644))),
            Mkdir => Call::mkdir(dir, new, mode(0o755)),
            Symlink => Call::symlink(dir, new, b"target", sattr3::default()),
            Mknod => Call::mknod(dir, new, NodeKind::Special { socket: false, attributes: mode(0o644) }),
            Rename => Call::rename((dir, old), (other, new)),
            Link => Call::link(object, dir, new),
            Readdir => Call::readdir(dir, 0, 4096),
            Readdirplus => Call::readdirplus(dir, 0, 4096, 4096),
            Commit => Call::commit(object, 0, 0),
        }
    }
}
