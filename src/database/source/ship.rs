//! What comes out of a server's event stream: what is shipped, in order, and why it ends. Pure.

use bytes::Bytes;
use ehpc_proto::binlog::{EventHeader, Group, GroupFault, ScanFault};
use ehpc_proto::mysql::response::ServerError;

/// What to ship.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ship {
    /// A file begins; its bytes follow from 0 on.
    Begin {
        /// Its name.
        file: String,
        /// Header of its format description.
        first_event: [u8; EventHeader::LEN],
    },
    /// Bytes of the file.
    Bytes {
        /// Where they belong.
        offset: u64,
        /// At most [`MAX_PIECE`].
        bytes: Bytes,
    },
    /// The server waits for the acknowledgement of everything up to here.
    AckWanted {
        /// End of an event in the file.
        end: u64,
    },
    /// What the server commits as one is complete.
    Group(Group),
    /// The file is complete; the server goes on in another one.
    Rotated {
        /// Length of the complete file.
        len: u64,
        /// Name of the next.
        next: String,
    },
    /// The server has nothing more to send at the moment.
    Alive,
}

/// Why a stream ends.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StreamFault {
    #[error("{0}")]
    Server(ServerError),
    #[error("the server ended the stream (it shuts down)")]
    Ended,
    #[error(
        "the server encrypts its binary logs (encrypt_binlog), so that they cannot be kept byte for byte"
    )]
    Encrypted,
    #[error("the event at {offset} of {file} is damaged: {what}")]
    Event { file: String, offset: u64, what: &'static str },
    #[error("{file}: {fault}")]
    Scan { file: String, fault: ScanFault },
    #[error("{file}: {fault}")]
    Group { file: String, fault: GroupFault },
    #[error("{file} on the server is not the file of that name in the archive: another server made it")]
    AnotherServer { file: String },
    #[error("{file} on the server has {len} bytes, which is less than the archive has of it")]
    Shorter { file: String, len: u64 },
    #[error("the server sends `{found}` instead of {file}")]
    AnotherFile { file: String, found: String },
    #[error("the server's stream is damaged: {0}")]
    Damaged(&'static str),
}
