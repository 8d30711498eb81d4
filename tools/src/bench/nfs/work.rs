//! What the servers are asked: one [`Work`] a procedure.

use super::load::Work;
use crate::nfs_client::{Handle, mode};
use ehpc_proto::codec::Encoder;
use ehpc_proto::nfs3::{Procedure, StableHow, arguments};
use ehpc_proto::xdr::{Encode, Opaque};
use std::io::Write;

/// All bits of ACCESS.
const ACCESS_ALL: u32 = 0x3f;

/// GETATTR, ACCESS or LOOKUP of the files of a directory in turn.
pub(super) struct Metadata {
    /// Which of the three.
    pub(super) procedure: Procedure,
    /// The directory.
    pub(super) dir: Handle,
    /// Its files: name and handle.
    pub(super) files: Vec<(Vec<u8>, Handle)>,
}

impl Work for Metadata {
    fn procedure(&self) -> Procedure {
        self.procedure
    }

    fn arguments(&mut self, connection: usize, number: u64, out: &mut Encoder) -> usize {
        let (name, handle) = &self.files[(connection * 31 + number as usize) % self.files.len()];
        match self.procedure {
            Procedure::Lookup => {
                arguments::DirOp { dir: self.dir.clone(), name: Opaque(name) }.encode(out);
            }
            Procedure::Access => {
                arguments::Access { object: handle.clone(), access: ACCESS_ALL }.encode(out);
            }
            _ => handle.encode(out),
        }
        0
    }
}

/// CREATE or REMOVE of many names, each connection in its own directory.
pub(super) struct Names {
    /// Which of the two.
    pub(super) procedure: Procedure,
    /// One a connection.
    pub(super) dirs: Vec<Handle>,
}

impl Work for Names {
    fn procedure(&self) -> Procedure {
        self.procedure
    }

    fn arguments(&mut self, connection: usize, number: u64, out: &mut Encoder) -> usize {
        let mut buffer = [0u8; 24];
        let mut rest = &mut buffer[..];
        let _ = write!(rest, "file-{number:08}");
        let left = rest.len();
        let name = &buffer[..buffer.len() - left];
        let place = arguments::DirOp { dir: self.dirs[connection].clone(), name: Opaque(name) };
        if self.procedure == Procedure::Create {
            arguments::Create { place, how: arguments::CreateHow::Unchecked(mode(0o644)) }.encode(out);
        } else {
            place.encode(out);
        }
        0
    }
}

/// Where a page begins: cookie and verifier.
pub(super) type Place = (u64, [u8; 8]);

/// Whole listings of one directory, page by page. Pages are found once with a plain client.
pub(super) struct Listing {
    /// The directory.
    pub(super) dir: Handle,
    /// Cookie and verifier of every page.
    pub(super) pages: Vec<Place>,
    /// Most bytes of a page.
    pub(super) page: u32,
    /// Entries of all pages.
    pub(super) entries: usize,
}

impl Work for Listing {
    fn procedure(&self) -> Procedure {
        Procedure::Readdirplus
    }

    fn weight(&self) -> f64 {
        self.entries as f64 / self.pages.len() as f64
    }

    fn arguments(&mut self, _connection: usize, number: u64, out: &mut Encoder) -> usize {
        let (cookie, verifier) = self.pages[number as usize % self.pages.len()];
        let (dir, dir_count, max_count) = (self.dir.clone(), self.page, self.page);
        arguments::Readdirplus { dir, cookie, verifier, dir_count, max_count }.encode(out);
        0
    }
}

/// READ or WRITE (UNSTABLE) of pieces of large files.
pub(super) struct Data {
    /// READ or WRITE.
    pub(super) procedure: Procedure,
    /// The files.
    pub(super) files: Vec<Handle>,
    /// Their length.
    pub(super) length: u64,
    /// Bytes a call.
    pub(super) size: u32,
    /// In no order.
    pub(super) random: bool,
}

impl Data {
    fn offset(&self, connection: usize, number: u64) -> u64 {
        let pieces = self.length / u64::from(self.size);
        let piece = if self.random {
            mix(number.wrapping_mul(1 << 20).wrapping_add(connection as u64)) % pieces
        } else {
            // Connections of one file begin far from each other.
            (number + (connection / self.files.len()) as u64 * 29) % pieces
        };
        piece * u64::from(self.size)
    }
}

/// A number that looks random (the finalizer of splitmix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Work for Data {
    fn procedure(&self) -> Procedure {
        self.procedure
    }

    fn arguments(&mut self, connection: usize, number: u64, out: &mut Encoder) -> usize {
        let file = self.files[connection % self.files.len()].clone();
        let offset = self.offset(connection, number);
        if self.procedure == Procedure::Read {
            arguments::Read { file, offset, count: self.size }.encode(out);
            return 0;
        }
        file.encode(out);
        out.u64(offset);
        out.u32(self.size);
        StableHow::Unstable.encode(out);
        out.u32(self.size);
        self.size as usize
    }
}
