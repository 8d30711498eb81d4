//! READDIR, READDIRPLUS. Cookies are the file system's own; the verifier is always 0.

use super::super::convert;
use super::{Context, Outcome, Place, answer};
use crate::host::ObjectKey;
use crate::vfs::DirEntry;
use ehpc_proto::codec::Encoder;
use ehpc_proto::nfs3::directory::ListingWriter;
use ehpc_proto::nfs3::{MAX_IO, arguments, nfs_fh3, nfsstat3, post_op_attr};

/// Where a listing resumes, and how much of it is wanted.
struct Page {
    cookie: u64,
    verifier: [u8; 8],
    max: u32,
    dir_max: usize,
    plus: bool,
}

impl Context<'_> {
    pub(super) fn readdir(&self, args: &arguments::Readdir, out: &mut Encoder) -> Outcome {
        let page = Page {
            cookie: args.cookie,
            verifier: args.verifier,
            max: args.count,
            dir_max: usize::MAX,
            plus: false,
        };
        self.list(&args.dir, &page, out)
    }

    pub(super) fn readdirplus(&self, args: &arguments::Readdirplus, out: &mut Encoder) -> Outcome {
        // Some clients leave dir_count 0: then max_count alone decides.
        let dir_max = if args.dir_count == 0 { usize::MAX } else { args.dir_count as usize };
        let page =
            Page { cookie: args.cookie, verifier: args.verifier, max: args.max_count, dir_max, plus: true };
        if !self.grant.readdirplus {
            let failure = match self.object_or_void(&args.dir) {
                Ok(dir) => (nfsstat3::NFS3ERR_NOTSUPP, self.post_op(&dir)),
                Err(failure) => failure,
            };
            return answer::<(), _>(Err(failure), out);
        }
        self.list(&args.dir, &page, out)
    }

    fn list(&self, dir: &nfs_fh3, page: &Page, out: &mut Encoder) -> Outcome {
        let dir = match self.object_or_void(dir) {
            Ok(dir) => dir,
            Err(failure) => return answer::<(), _>(Err(failure), out),
        };
        match self.fill(&dir, page) {
            Ok(None) => Outcome { blocks: true, ..Outcome::default() },
            Ok(Some((writer, eof))) => {
                writer.finish(self.post_op(&dir), eof, out);
                Outcome::default()
            }
            Err(status) => {
                let failure: (nfsstat3, post_op_attr) = (status, self.post_op(&dir));
                answer::<(), _>(Err(failure), out)
            }
        }
    }

    fn fill(&self, dir: &ObjectKey, page: &Page) -> Result<Option<(ListingWriter, bool)>, nfsstat3> {
        if page.cookie != 0 && page.verifier != [0; 8] {
            return Err(nfsstat3::NFS3ERR_BAD_COOKIE);
        }
        let max = (page.max as usize).min(MAX_IO);
        if max < ListingWriter::EMPTY {
            return Err(nfsstat3::NFS3ERR_TOOSMALL);
        }
        let mut writer = ListingWriter::new(max, page.dir_max);
        // What is above the export's root is nobody's business. Asked for here: the file system is in the middle
        // of an operation under the caller's ids when it calls back.
        let above = if dir == self.root {
            self.vfs.getattr(self.caller, dir).ok().map(|attributes| attributes.fileid)
        } else {
            None
        };
        let mut full = false;
        let mut each = |entry: DirEntry<'_>| {
            full = !self.add(&mut writer, confined(entry, above), page.plus);
            !full
        };
        let eof = if self.place == Place::Engine {
            match self.vfs.readdir_quickly(self.caller, dir, page.cookie, page.plus, &mut each) {
                Some(eof) => eof,
                None => return Ok(None),
            }
        } else {
            self.vfs.readdir(self.caller, dir, page.cookie, page.plus, &mut each)
        };
        let eof = eof.map_err(convert::status)?;
        if full && writer.written() == 0 {
            return Err(nfsstat3::NFS3ERR_TOOSMALL);
        }
        Ok(Some((writer, eof && !full)))
    }

    fn add(&self, writer: &mut ListingWriter, entry: DirEntry<'_>, plus: bool) -> bool {
        if !plus {
            return writer.entry(entry.fileid, entry.name, entry.cookie);
        }
        let named = (entry.fileid, entry.name, entry.cookie);
        let made = || match entry.node {
            Some(node) => (convert::post_op(node.attributes), Some(self.handles.encode(&node.key))),
            None => (post_op_attr::Void, None),
        };
        if let Some(memo) = entry.memo {
            // Another export may show the same directory, with other handles.
            let tag = self.handles.export().to_be_bytes();
            let encoded = memo.get_or_init(|| {
                let mut out = Encoder::with_capacity(256);
                out.bytes(&tag);
                let (attributes, handle) = made();
                ListingWriter::encode_plus(named, attributes, handle, &mut out);
                out.finish().into_boxed_slice()
            });
            if let Some(encoded) = encoded.strip_prefix(&tag) {
                return writer.entry_encoded(entry.name, encoded);
            }
        }
        let (attributes, handle) = made();
        writer.entry_plus(named, attributes, handle)
    }
}

/// An entry as the export shows it: ".." leads nowhere, and in the root has the root's own number, `above`.
fn confined(entry: DirEntry<'_>, above: Option<u64>) -> DirEntry<'_> {
    if entry.name == b".." {
        DirEntry { fileid: above.unwrap_or(entry.fileid), node: None, memo: None, ..entry }
    } else {
        entry
    }
}
