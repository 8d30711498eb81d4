//! A call as data, and its answer decoded to the last byte: for tests that compare or count answers.

use ehpc_proto::codec::{Decoder, Encoder};
use ehpc_proto::nfs3::arguments::{self, CreateHow, NodeKind};
use ehpc_proto::nfs3::{
    Procedure, StableHow, directory, fattr3, fsinfo3, nfs_fh3, nfsstat3, nfstime3, post_op_attr, post_op_fh3,
    pre_op_attr, results, sattr3, wcc_attr, wcc_data,
};
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use ehpc_tools::nfs_client::{Client, Handle, place};

/// One NFS call.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) procedure: Procedure,
    pub(super) arguments: Vec<u8>,
    /// The handles in the arguments, in their order.
    pub(super) handles: Vec<Handle>,
}

impl Encode for Call {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(&self.arguments);
    }
}

/// Attributes in a reply: wcc_data, or post_op_attr (then `before` is `None`).
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) before: Option<wcc_attr>,
    pub(super) after: Option<fattr3>,
}

/// What else a reply holds.
pub(super) enum Rest {
    Nothing,
    Access(u32),
    Target(Vec<u8>),
    Data { data: Vec<u8>, eof: bool },
    Written { count: u32, committed: StableHow, verifier: [u8; 8] },
    Listing { entries: Vec<Entry>, eof: bool },
    Stat(results::FsstatOk),
    Info(Box<fsinfo3>),
    Conf(results::PathconfOk),
    Verifier([u8; 8]),
}

/// One entry of a listing.
pub(super) struct Entry {
    pub(super) fileid: u64,
    pub(super) name: Vec<u8>,
    pub(super) cookie: u64,
    pub(super) attributes: Option<fattr3>,
    pub(super) handle: Option<Handle>,
}

/// A whole answer.
pub(super) struct Outcome {
    /// NFS3_OK is 0.
    pub(super) status: u32,
    /// The handle that LOOKUP, CREATE and the like return.
    pub(super) object: Option<Handle>,
    /// In the reply's order: the returned object first, then the objects of the arguments.
    pub(super) seen: Vec<Seen>,
    pub(super) rest: Rest,
    /// Bytes of the result after the status.
    pub(super) len: usize,
}

/// Sends a call and decodes its answer, of which nothing may be left over.
pub(super) fn ask(client: &mut Client, call: &Call) -> Outcome {
    let answer = client.nfs(call.procedure, call).unwrap();
    assert_eq!(answer.reply, ehpc_proto::rpc::Reply::Success, "{:?}", call.procedure);
    let mut input = Decoder::new(answer.body());
    let outcome = decode(call.procedure, &mut input);
    assert!(input.rest().is_empty(), "{:?}: bytes after the result", call.procedure);
    Outcome { len: answer.body().len().saturating_sub(4), ..outcome }
}

pub(super) fn decode(procedure: Procedure, input: &mut Decoder<'_>) -> Outcome {
    use Procedure::*;
    match procedure {
        Null => with(0, vec![], Rest::Nothing),
        Getattr => match results::Getattr::decode(input).unwrap() {
            Ok(attributes) => with(0, vec![Seen { before: None, after: Some(attributes) }], Rest::Nothing),
            Err((status, ())) => with(status as u32, vec![], Rest::Nothing),
        },
        Setattr | Remove | Rmdir => match results::Changed::decode(input).unwrap() {
            Ok(wcc) => with(0, vec![both(wcc)], Rest::Nothing),
            Err((status, wcc)) => with(status as u32, vec![both(wcc)], Rest::Nothing),
        },
        Create | Mkdir | Symlink | Mknod => match results::Created::decode(input).unwrap() {
            Ok(ok) => Outcome {
                object: match ok.object {
                    post_op_fh3::handle(handle) => Some(handle),
                    post_op_fh3::Void => None,
                },
                ..with(0, vec![after(ok.attributes), both(ok.dir_wcc)], Rest::Nothing)
            },
            Err((status, wcc)) => with(status as u32, vec![both(wcc)], Rest::Nothing),
        },
        Rename => match results::Rename::decode(input).unwrap() {
            Ok(wcc) => with(0, vec![both(wcc.from), both(wcc.to)], Rest::Nothing),
            Err((status, wcc)) => with(status as u32, vec![both(wcc.from), both(wcc.to)], Rest::Nothing),
        },
        Link => match results::Link::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.attributes), both(ok.dir_wcc)], Rest::Nothing),
            Err((status, wcc)) => {
                with(status as u32, vec![after(wcc.attributes), both(wcc.dir_wcc)], Rest::Nothing)
            }
        },
        _ => decode_other(procedure, input),
    }
}

fn decode_other(procedure: Procedure, input: &mut Decoder<'_>) -> Outcome {
    use Procedure::*;
    match procedure {
        Lookup => match results::Lookup::decode(input).unwrap() {
            Ok(ok) => Outcome {
                object: Some(ok.object),
                ..with(0, vec![after(ok.attributes), after(ok.dir_attributes)], Rest::Nothing)
            },
            Err(failure) => failed(failure),
        },
        Access => match results::Access::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.attributes)], Rest::Access(ok.access)),
            Err(failure) => failed(failure),
        },
        Readlink => match results::Readlink::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.attributes)], Rest::Target(ok.target.0.to_vec())),
            Err(failure) => failed(failure),
        },
        Read => match results::Read::decode(input).unwrap() {
            Ok(ok) => {
                assert_eq!(ok.count as usize, ok.data.0.len(), "READ's two counts");
                let rest = Rest::Data { data: ok.data.0.to_vec(), eof: ok.eof };
                with(0, vec![after(ok.attributes)], rest)
            }
            Err(failure) => failed(failure),
        },
        Write => match results::Write::decode(input).unwrap() {
            Ok(ok) => {
                let (count, committed, verifier) = (ok.count, ok.committed, ok.verifier);
                with(0, vec![both(ok.wcc)], Rest::Written { count, committed, verifier })
            }
            Err((status, wcc)) => with(status as u32, vec![both(wcc)], Rest::Nothing),
        },
        Commit => match results::Commit::decode(input).unwrap() {
            Ok(ok) => with(0, vec![both(ok.wcc)], Rest::Verifier(ok.verifier)),
            Err((status, wcc)) => with(status as u32, vec![both(wcc)], Rest::Nothing),
        },
        Fsstat => match results::Fsstat::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.attributes)], Rest::Stat(ok)),
            Err(failure) => failed(failure),
        },
        Fsinfo => match results::Fsinfo::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.obj_attributes)], Rest::Info(Box::new(ok))),
            Err(failure) => failed(failure),
        },
        Pathconf => match results::Pathconf::decode(input).unwrap() {
            Ok(ok) => with(0, vec![after(ok.attributes)], Rest::Conf(ok)),
            Err(failure) => failed(failure),
        },
        _ => decode_listing(procedure, input),
    }
}

fn decode_listing(procedure: Procedure, input: &mut Decoder<'_>) -> Outcome {
    let listed = if procedure == Procedure::Readdir {
        directory::Readdir::decode(input).unwrap().map(|list| {
            let entries = list.entries.iter().map(|entry| Entry {
                fileid: entry.fileid,
                name: entry.name.0.to_vec(),
                cookie: entry.cookie,
                attributes: None,
                handle: None,
            });
            (list.attributes, list.verifier, entries.collect::<Vec<_>>(), list.eof)
        })
    } else {
        directory::Readdirplus::decode(input).unwrap().map(|list| {
            let entries = list.entries.into_iter().map(|entry| Entry {
                fileid: entry.fileid,
                name: entry.name.0.to_vec(),
                cookie: entry.cookie,
                attributes: after(entry.attributes).after,
                handle: match entry.object {
                    post_op_fh3::handle(handle) => Some(handle),
                    post_op_fh3::Void => None,
                },
            });
            (list.attributes, list.verifier, entries.collect(), list.eof)
        })
    };
    match listed {
        Ok((attributes, verifier, entries, eof)) => {
            assert_eq!(verifier, [0; 8], "cookies are seek-stable: the verifier is 0");
            with(0, vec![after(attributes)], Rest::Listing { entries, eof })
        }
        Err(failure) => failed(failure),
    }
}

fn with(status: u32, seen: Vec<Seen>, rest: Rest) -> Outcome {
    Outcome { status, object: None, seen, rest, len: 0 }
}

fn failed((status, attributes): (nfsstat3, post_op_attr)) -> Outcome {
    with(status as u32, vec![after(attributes)], Rest::Nothing)
}

fn after(attributes: post_op_attr) -> Seen {
    let after = match attributes {
        post_op_attr::attributes(attributes) => Some(attributes),
        post_op_attr::Void => None,
    };
    Seen { before: None, after }
}

fn both(wcc: wcc_data) -> Seen {
    let before = match wcc.before {
        pre_op_attr::attributes(before) => Some(before),
        pre_op_attr::Void => None,
    };
    Seen { before, ..after(wcc.after) }
}

impl Call {
    fn new(procedure: Procedure, handles: &[&Handle], arguments: &impl Encode) -> Call {
        let mut out = Encoder::new();
        arguments.encode(&mut out);
        let handles = handles.iter().map(|handle| (*handle).clone()).collect();
        Call { procedure, arguments: out.finish(), handles }
    }

    /// A procedure whose only argument is a handle.
    pub(super) fn of(procedure: Procedure, object: &Handle) -> Call {
        Call::new(procedure, &[object], object)
    }

    /// LOOKUP, REMOVE, RMDIR.
    pub(super) fn name(procedure: Procedure, dir: &Handle, name: &[u8]) -> Call {
        Call::new(procedure, &[dir], &place(dir, name))
    }

    pub(super) fn setattr(object: &Handle, attributes: sattr3, guard: Option<nfstime3>) -> Call {
        let args = arguments::Setattr { object: object.clone(), attributes, guard };
        Call::new(Procedure::Setattr, &[object], &args)
    }

    pub(super) fn access(object: &Handle, access: u32) -> Call {
        Call::new(Procedure::Access, &[object], &arguments::Access { object: object.clone(), access })
    }

    pub(super) fn read(file: &Handle, offset: u64, count: u32) -> Call {
        Call::new(Procedure::Read, &[file], &arguments::Read { file: file.clone(), offset, count })
    }

    pub(super) fn write(file: &Handle, offset: u64, data: &[u8], stable: StableHow) -> Call {
        let count = data.len() as u32;
        let args = arguments::Write { file: file.clone(), offset, count, stable, data: Opaque(data) };
        Call::new(Procedure::Write, &[file], &args)
    }

    pub(super) fn create(dir: &Handle, name: &[u8], how: CreateHow) -> Call {
        Call::new(Procedure::Create, &[dir], &arguments::Create { place: place(dir, name), how })
    }

    pub(super) fn mkdir(dir: &Handle, name: &[u8], attributes: sattr3) -> Call {
        Call::new(Procedure::Mkdir, &[dir], &arguments::Mkdir { place: place(dir, name), attributes })
    }

    pub(super) fn symlink(dir: &Handle, name: &[u8], target: &[u8], attributes: sattr3) -> Call {
        let args = arguments::Symlink { place: place(dir, name), attributes, target: Opaque(target) };
        Call::new(Procedure::Symlink, &[dir], &args)
    }

    pub(super) fn mknod(dir: &Handle, name: &[u8], what: NodeKind) -> Call {
        Call::new(Procedure::Mknod, &[dir], &arguments::Mknod { place: place(dir, name), what })
    }

    pub(super) fn rename(from: (&Handle, &[u8]), to: (&Handle, &[u8])) -> Call {
        let args = arguments::Rename { from: place(from.0, from.1), to: place(to.0, to.1) };
        Call::new(Procedure::Rename, &[from.0, to.0], &args)
    }

    pub(super) fn link(file: &Handle, dir: &Handle, name: &[u8]) -> Call {
        let args = arguments::Link { file: file.clone(), place: place(dir, name) };
        Call::new(Procedure::Link, &[file, dir], &args)
    }

    pub(super) fn readdir(dir: &Handle, cookie: u64, count: u32) -> Call {
        Call::readdir_with(dir, cookie, [0; 8], count)
    }

    pub(super) fn readdir_with(dir: &Handle, cookie: u64, verifier: [u8; 8], count: u32) -> Call {
        let args = arguments::Readdir { dir: dir.clone(), cookie, verifier, count };
        Call::new(Procedure::Readdir, &[dir], &args)
    }

    pub(super) fn readdirplus(dir: &Handle, cookie: u64, dir_count: u32, max_count: u32) -> Call {
        Call::readdirplus_with(dir, cookie, [0; 8], (dir_count, max_count))
    }

    pub(super) fn readdirplus_with(
        dir: &Handle,
        cookie: u64,
        verifier: [u8; 8],
        (dir_count, max_count): (u32, u32),
    ) -> Call {
        let args = arguments::Readdirplus { dir: dir.clone(), cookie, verifier, dir_count, max_count };
        Call::new(Procedure::Readdirplus, &[dir], &args)
    }

    pub(super) fn commit(file: &Handle, offset: u64, count: u32) -> Call {
        Call::new(Procedure::Commit, &[file], &arguments::Commit { file: file.clone(), offset, count })
    }
}

/// A handle that no server has given.
pub(super) fn forged() -> Handle {
    nfs_fh3 { data: vec![0x45; 27] }
}

/// What is compared of attributes: everything but the time of access, which reading
/// changes, and the space used, which the file system decides when it likes.
pub(super) fn view(of: &fattr3) -> String {
    let time = |time: nfstime3| (time.seconds, time.nseconds);
    format!(
        "{:?} mode {:o} nlink {} owner {}:{} size {} rdev {}:{} fsid {} fileid {} mtime {:?} ctime {:?}",
        of.ftype as u32,
        of.mode,
        of.nlink,
        of.uid,
        of.gid,
        of.size,
        of.rdev.specdata1,
        of.rdev.specdata2,
        of.fsid,
        of.fileid,
        time(of.mtime),
        time(of.ctime)
    )
}
