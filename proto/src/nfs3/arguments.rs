//! Arguments of the procedures. GETATTR, READLINK, FSSTAT, FSINFO and PATHCONF take just a handle.

use super::{MAX_IO, MAX_NAME, MAX_PATH, StableHow, ftype3, nfs_fh3, nfstime3, sattr3, specdata3};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::xdr::{Decode, Encode, Opaque, xdr_struct};

/// A name in a directory.
pub type Name<'a> = Opaque<'a, MAX_NAME>;
/// Target of a symlink.
pub type Path<'a> = Opaque<'a, MAX_PATH>;
/// Bytes of a file.
pub type Data<'a> = Opaque<'a, MAX_IO>;

xdr_struct! {
    /// diropargs3: LOOKUP, REMOVE, RMDIR, and a part of others.
    DirOp<'a> {
        /// The directory.
        dir: nfs_fh3,
        /// The name in it.
        name: Name<'a>,
    }
}

xdr_struct! {
    /// SETATTR.
    Setattr {
        /// Whose attributes.
        object: nfs_fh3,
        /// The new ones.
        attributes: sattr3,
        /// Only if ctime equals this.
        guard: Option<nfstime3>,
    }
}

xdr_struct! {
    /// ACCESS.
    Access {
        /// What is to be accessed.
        object: nfs_fh3,
        /// Bits of [`super::access`].
        access: u32,
    }
}

xdr_struct! {
    /// READ.
    Read {
        /// The file.
        file: nfs_fh3,
        /// From where.
        offset: u64,
        /// How much at most.
        count: u32,
    }
}

xdr_struct! {
    /// WRITE.
    Write<'a> {
        /// The file.
        file: nfs_fh3,
        /// To where.
        offset: u64,
        /// Bytes to write; must equal the length of `data`.
        count: u32,
        /// What must be on disk before the reply.
        stable: StableHow,
        /// The bytes.
        data: Data<'a>,
    }
}

xdr_struct! {
    /// CREATE.
    Create<'a> {
        /// Directory and name.
        place: DirOp<'a>,
        /// What if it exists.
        how: CreateHow,
    }
}

xdr_struct! {
    /// MKDIR.
    Mkdir<'a> {
        /// Directory and name.
        place: DirOp<'a>,
        /// Attributes of the new directory.
        attributes: sattr3,
    }
}

xdr_struct! {
    /// SYMLINK.
    Symlink<'a> {
        /// Directory and name.
        place: DirOp<'a>,
        /// Attributes of the new symlink.
        attributes: sattr3,
        /// Its target.
        target: Path<'a>,
    }
}

xdr_struct! {
    /// MKNOD.
    Mknod<'a> {
        /// Directory and name.
        place: DirOp<'a>,
        /// What to make.
        what: NodeKind,
    }
}

xdr_struct! {
    /// RENAME.
    Rename<'a> {
        /// The old name.
        from: DirOp<'a>,
        /// The new name.
        to: DirOp<'a>,
    }
}

xdr_struct! {
    /// LINK.
    Link<'a> {
        /// What gets another name.
        file: nfs_fh3,
        /// The name.
        place: DirOp<'a>,
    }
}

xdr_struct! {
    /// READDIR.
    Readdir {
        /// The directory.
        dir: nfs_fh3,
        /// Resume after the entry with this cookie; 0 = from the start.
        cookie: u64,
        /// Came with the cookie.
        verifier: [u8; 8],
        /// Most bytes of the result's READDIR3resok.
        count: u32,
    }
}

xdr_struct! {
    /// READDIRPLUS.
    Readdirplus {
        /// The directory.
        dir: nfs_fh3,
        /// Resume after the entry with this cookie; 0 = from the start.
        cookie: u64,
        /// Came with the cookie.
        verifier: [u8; 8],
        /// Most bytes of names, file ids and cookies.
        dir_count: u32,
        /// Most bytes of the result's READDIRPLUS3resok.
        max_count: u32,
    }
}

xdr_struct! {
    /// COMMIT.
    Commit {
        /// The file.
        file: nfs_fh3,
        /// From where.
        offset: u64,
        /// How much; 0 = to the end.
        count: u32,
    }
}

/// createhow3.
#[derive(Clone, Copy, Debug)]
pub enum CreateHow {
    /// An existing file is taken.
    Unchecked(sattr3),
    /// An existing file is an error.
    Guarded(sattr3),
    /// An existing file is an error unless it was made with this verifier.
    Exclusive([u8; 8]),
}

impl Encode for CreateHow {
    fn encode(&self, out: &mut Encoder) {
        match self {
            CreateHow::Unchecked(attributes) => {
                out.u32(0);
                attributes.encode(out);
            }
            CreateHow::Guarded(attributes) => {
                out.u32(1);
                attributes.encode(out);
            }
            CreateHow::Exclusive(verifier) => {
                out.u32(2);
                verifier.encode(out);
            }
        }
    }
}

impl<'a> Decode<'a> for CreateHow {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        match input.u32()? {
            0 => Ok(CreateHow::Unchecked(Decode::decode(input)?)),
            1 => Ok(CreateHow::Guarded(Decode::decode(input)?)),
            2 => Ok(CreateHow::Exclusive(Decode::decode(input)?)),
            value => Err(DecodeError::Invalid { what: "createmode3", value: u64::from(value) }),
        }
    }
}

/// mknoddata3.
#[derive(Clone, Copy, Debug)]
pub enum NodeKind {
    /// A device, character or block.
    Device {
        /// Block, else character.
        block: bool,
        /// Attributes.
        attributes: sattr3,
        /// Major and minor number.
        device: specdata3,
    },
    /// A socket or a named pipe.
    Special {
        /// Socket, else pipe.
        socket: bool,
        /// Attributes.
        attributes: sattr3,
    },
    /// What MKNOD does not make (regular file, directory, symlink): answered with NFS3ERR_BADTYPE.
    Other(ftype3),
}

impl Encode for NodeKind {
    fn encode(&self, out: &mut Encoder) {
        match self {
            NodeKind::Device { block, attributes, device } => {
                (if *block { ftype3::NF3BLK } else { ftype3::NF3CHR }).encode(out);
                attributes.encode(out);
                device.encode(out);
            }
            NodeKind::Special { socket, attributes } => {
                (if *socket { ftype3::NF3SOCK } else { ftype3::NF3FIFO }).encode(out);
                attributes.encode(out);
            }
            NodeKind::Other(kind) => kind.encode(out),
        }
    }
}

impl<'a> Decode<'a> for NodeKind {
    fn decode(input: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let kind = ftype3::decode(input)?;
        Ok(match kind {
            ftype3::NF3BLK | ftype3::NF3CHR => NodeKind::Device {
                block: matches!(kind, ftype3::NF3BLK),
                attributes: Decode::decode(input)?,
                device: Decode::decode(input)?,
            },
            ftype3::NF3SOCK | ftype3::NF3FIFO => NodeKind::Special {
                socket: matches!(kind, ftype3::NF3SOCK),
                attributes: Decode::decode(input)?,
            },
            other => NodeKind::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nfs3::{set_atime, set_mode3, set_mtime, set_size3};

    fn encoded(value: &impl Encode) -> Vec<u8> {
        let mut out = Encoder::new();
        value.encode(&mut out);
        out.finish()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    fn handle() -> nfs_fh3 {
        nfs_fh3 { data: vec![1, 2, 3, 4] }
    }

    const HANDLE: [u32; 2] = [4, 0x0102_0304];
    /// "ab" and its padding
    const NAME: [u32; 2] = [2, 0x6162_0000];

    fn place() -> DirOp<'static> {
        DirOp { dir: handle(), name: Opaque(b"ab") }
    }

    /// The bytes are as expected, and decoding them gives a value with the same bytes.
    fn golden<'a, T: Encode + Decode<'a>>(value: &T, expected: &'a [u8]) {
        assert_eq!(encoded(value), expected);
        let mut input = Decoder::new(expected);
        let back = T::decode(&mut input).expect("decodes");
        assert!(input.rest().is_empty());
        assert_eq!(encoded(&back), expected);
        for cut in 0..expected.len() {
            assert!(T::decode(&mut Decoder::new(&expected[..cut])).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn names_handles_and_numbers() {
        golden(&place(), &words(&[&HANDLE[..], &NAME].concat()));
        golden(&Access { object: handle(), access: 0x3f }, &words(&[4, 0x0102_0304, 0x3f]));
        golden(&Read { file: handle(), offset: 1 << 32, count: 9 }, &words(&[4, 0x0102_0304, 1, 0, 9]));
        golden(&Commit { file: handle(), offset: 7, count: 0 }, &words(&[4, 0x0102_0304, 0, 7, 0]));
        golden(
            &Readdir { dir: handle(), cookie: 5, verifier: [0, 0, 0, 0, 0, 0, 0, 1], count: 512 },
            &words(&[4, 0x0102_0304, 0, 5, 0, 1, 512]),
        );
        golden(
            &Readdirplus { dir: handle(), cookie: 5, verifier: [0; 8], dir_count: 512, max_count: 4096 },
            &words(&[4, 0x0102_0304, 0, 5, 0, 0, 512, 4096]),
        );
        golden(
            &Rename { from: place(), to: place() },
            &words(&[&HANDLE[..], &NAME, &HANDLE, &NAME].concat()),
        );
        golden(&Link { file: handle(), place: place() }, &words(&[&HANDLE[..], &HANDLE, &NAME].concat()));
    }

    #[test]
    fn write_carries_its_data() {
        let write = Write {
            file: handle(),
            offset: 3,
            count: 5,
            stable: StableHow::FileSync,
            data: Opaque(b"hello"),
        };
        let mut expected = words(&[4, 0x0102_0304, 0, 3, 5, 2, 5]);
        expected.extend_from_slice(b"hello\0\0\0");
        golden(&write, &expected);
        let mut bad = expected.clone();
        bad[23] = 3; // stable_how
        assert!(matches!(
            Write::decode(&mut Decoder::new(&bad)),
            Err(DecodeError::Invalid { what: "stable_how", value: 3 })
        ));
    }

    #[test]
    fn setattr_and_its_guard() {
        let attributes = sattr3 {
            mode: set_mode3::mode(0o644),
            size: set_size3::size(9),
            atime: set_atime::SET_TO_SERVER_TIME,
            mtime: set_mtime::SET_TO_CLIENT_TIME(nfstime3 { seconds: 1, nseconds: 2 }),
            ..sattr3::default()
        };
        let body = [1, 0o644, 0, 0, 1, 0, 9, 1, 2, 1, 2];
        let guard = Some(nfstime3 { seconds: 5, nseconds: 6 });
        golden(
            &Setattr { object: handle(), attributes, guard },
            &words(&[&HANDLE[..], &body, &[1, 5, 6]].concat()),
        );
        golden(&Mkdir { place: place(), attributes }, &words(&[&HANDLE[..], &NAME, &body].concat()));
        golden(
            &Symlink { place: place(), attributes: sattr3::default(), target: Opaque(b"ab") },
            &words(&[&HANDLE[..], &NAME, &[0; 6], &NAME].concat()),
        );
    }

    #[test]
    fn the_three_ways_to_create() {
        let head = [&HANDLE[..], &NAME].concat();
        for (how, rest) in [
            (CreateHow::Unchecked(sattr3::default()), vec![0, 0, 0, 0, 0, 0, 0]),
            (CreateHow::Guarded(sattr3::default()), vec![1, 0, 0, 0, 0, 0, 0]),
            (CreateHow::Exclusive([0, 0, 0, 1, 0, 0, 0, 2]), vec![2, 1, 2]),
        ] {
            golden(&Create { place: place(), how }, &words(&[&head[..], &rest].concat()));
        }
        assert!(CreateHow::decode(&mut Decoder::new(&words(&[3]))).is_err());
    }

    #[test]
    fn nodes_of_every_kind() {
        let attributes = sattr3::default();
        let head = [&HANDLE[..], &NAME].concat();
        let device = specdata3 { specdata1: 8, specdata2: 1 };
        for (what, rest) in [
            (NodeKind::Device { block: true, attributes, device }, vec![3, 0, 0, 0, 0, 0, 0, 8, 1]),
            (NodeKind::Device { block: false, attributes, device }, vec![4, 0, 0, 0, 0, 0, 0, 8, 1]),
            (NodeKind::Special { socket: true, attributes }, vec![6, 0, 0, 0, 0, 0, 0]),
            (NodeKind::Special { socket: false, attributes }, vec![7, 0, 0, 0, 0, 0, 0]),
            (NodeKind::Other(ftype3::NF3DIR), vec![2]),
        ] {
            golden(&Mknod { place: place(), what }, &words(&[&head[..], &rest].concat()));
        }
        assert!(NodeKind::decode(&mut Decoder::new(&words(&[8]))).is_err());
    }
}
