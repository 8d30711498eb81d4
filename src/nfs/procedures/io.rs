//! READ, WRITE, COMMIT.

use super::super::convert;
use super::{Context, Outcome, Place, answer};
use crate::host::ObjectKey;
use crate::observe::metrics;
use crate::vfs::{Mutation, ReadDone, Stability, VfsError, WriteDone};
use ehpc_proto::codec::Encoder;
use ehpc_proto::nfs3::{MAX_IO, StableHow, arguments, nfsstat3, results, wcc_data};
use ehpc_proto::xdr::{Encode, padding};

/// NFS3_OK, attributes that are there, count, eof, length: what precedes the data of READ.
const READ_HEAD: usize = 4 + 88 + 4 + 4 + 4;
/// `post_op_attr` with and without attributes.
const WITH_ATTRIBUTES: usize = 88;
const WITHOUT_ATTRIBUTES: usize = 4;

impl Context<'_> {
    /// The data goes from the file system into the reply without another copy.
    pub(super) fn read(&self, args: &arguments::Read, out: &mut Encoder) -> Outcome {
        let object = match self.object_or_void(&args.file) {
            Ok(object) => object,
            Err(failure) => return answer::<(), _>(Err(failure), out),
        };
        // The kernel refuses a range that ends past its largest offset.
        let room = (i64::MAX as u64).saturating_sub(args.offset);
        let count = args.count.min(MAX_IO as u32).min(u32::try_from(room).unwrap_or(u32::MAX));
        let start = out.len();
        out.buffer().reserve(READ_HEAD + count as usize + 4);
        out.bytes(&[0; READ_HEAD]);
        let done = if room == 0 {
            self.past_every_end(&object)
        } else if self.place == Place::Engine {
            match self.vfs.read_quickly(self.caller, &object, args.offset, count, out.buffer()) {
                Some(done) => done,
                None => return Outcome { blocks: true, ..Outcome::default() },
            }
        } else {
            self.vfs.read(self.caller, &object, args.offset, count, out.buffer())
        };
        match done {
            Ok(done) => {
                let read = out.len() - start - READ_HEAD;
                metrics::NFS_READ_BYTES.add(read as u64);
                finish_read(out, start, &done);
                Outcome { read: u32::try_from(read).unwrap_or(u32::MAX), ..Outcome::default() }
            }
            Err(error) => {
                out.truncate(start);
                answer::<(), _>(Err((convert::content_status(error), self.post_op(&object))), out)
            }
        }
    }

    /// No file reaches this offset: nothing to read, if the caller may read at all.
    fn past_every_end(&self, object: &ObjectKey) -> Result<ReadDone, VfsError> {
        let mut nothing = Vec::new();
        let done = self.vfs.read(self.caller, object, 0, 0, &mut nothing)?;
        Ok(ReadDone { bytes: 0, eof: true, attributes: done.attributes })
    }

    pub(super) fn write(&self, args: &arguments::Write<'_>, out: &mut Encoder) -> Outcome {
        let reply = self.write_reply(args);
        let kept = matches!(&reply, Ok(ok) if ok.committed != StableHow::Unstable);
        let written = reply.as_ref().map_or(0, |ok| ok.count);
        let outcome = answer(reply, out);
        Outcome { changed: kept, written, ..outcome }
    }

    fn write_reply(&self, args: &arguments::Write<'_>) -> results::Write {
        let object = self.changeable(&args.file)?;
        let data = args.data.0;
        if data.len() != args.count as usize {
            return Err((nfsstat3::NFS3ERR_INVAL, self.untouched(&object)));
        }
        let largest = self.vfs.limits().max_file_size.min(i64::MAX as u64);
        if args.offset.checked_add(data.len() as u64).is_none_or(|end| end > largest) {
            return Err((nfsstat3::NFS3ERR_FBIG, self.untouched(&object)));
        }
        let stable = match args.stable {
            StableHow::Unstable => Stability::Unstable,
            StableHow::DataSync => Stability::DataSync,
            StableHow::FileSync => Stability::FileSync,
        };
        // Taken before the write: a loss during it must not be covered by a newer verifier.
        let verifier = self.vfs.write_verifier();
        let done = self.vfs.write(self.caller, &object, args.offset, data, stable);
        self.write_result(&done, &object, verifier)
    }

    pub(super) fn commit(&self, args: &arguments::Commit) -> results::Commit {
        let object = match self.object(&args.file) {
            Ok(object) => object,
            Err(status) => return Err((status, wcc_data::default())),
        };
        let done = self.vfs.commit(self.caller, &object, args.offset, args.count);
        let wcc = self.wcc(&done.wcc, &object);
        match done.result {
            Ok(()) => Ok(results::CommitOk { wcc, verifier: self.vfs.write_verifier() }),
            Err(error) => Err((convert::status(error), wcc)),
        }
    }

    fn write_result(
        &self,
        done: &Mutation<WriteDone>,
        object: &ObjectKey,
        verifier: [u8; 8],
    ) -> results::Write {
        let wcc = self.wcc(&done.wcc, object);
        match &done.result {
            Ok(written) => {
                metrics::NFS_WRITTEN_BYTES.add(u64::from(written.count));
                let committed = match written.committed {
                    Stability::Unstable => StableHow::Unstable,
                    Stability::DataSync => StableHow::DataSync,
                    Stability::FileSync => StableHow::FileSync,
                };
                Ok(results::WriteOk { wcc, count: written.count, committed, verifier })
            }
            Err(error) => Err((convert::content_status(*error), wcc)),
        }
    }
}

/// Fills in the head that was left free before the data, and pads the data.
fn finish_read(out: &mut Encoder, start: usize, done: &ReadDone) {
    let data = out.len() - start - READ_HEAD;
    out.bytes(&[0; 3][..padding(data)]);
    let mut head = Encoder::with_capacity(READ_HEAD);
    head.u32(0);
    convert::post_op(done.attributes).encode(&mut head);
    head.u32(data as u32);
    done.eof.encode(&mut head);
    head.u32(data as u32);
    if done.attributes.is_none() {
        // Rare: the head is shorter than the room that was left for it.
        out.buffer().drain(start..start + WITH_ATTRIBUTES - WITHOUT_ATTRIBUTES);
    }
    let head = head.as_slice();
    out.buffer()[start..start + head.len()].copy_from_slice(head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehpc_proto::codec::Decoder;
    use ehpc_proto::nfs3::post_op_attr;
    use ehpc_proto::xdr::Decode;

    #[test]
    fn a_read_without_attributes_is_well_formed() {
        let mut out = Encoder::new();
        out.u32(9);
        out.bytes(&[0; READ_HEAD]);
        out.bytes(b"abcde");
        finish_read(&mut out, 4, &ReadDone { bytes: 5, eof: true, attributes: None });
        let mut input = Decoder::new(&out.as_slice()[4..]);
        let ok = results::Read::decode(&mut input).unwrap().unwrap();
        assert!(input.rest().is_empty());
        assert_eq!((ok.count, ok.eof, ok.data.0), (5, true, &b"abcde"[..]));
        assert!(matches!(ok.attributes, post_op_attr::Void));
    }
}
