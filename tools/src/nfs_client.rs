//! A raw NFSv3 and MOUNT3 client over TCP: what a benchmark or a test wants to send, and nothing it does not.
//!
//! Calls block; many can be in flight ([`Client::queue`], [`Client::flush`], [`Client::receive`]). There is
//! no cache and nothing is sent again.

mod procedures;

use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::mount::{self, MountError, MountReply};
use ehpc_proto::nfs3::{self, MAX_IO, Procedure, arguments, fattr3, nfs_fh3, nfsstat3, post_op_attr, sattr3};
use ehpc_proto::record::{self, Assembler, RecordError};
use ehpc_proto::rpc::{AuthSys, Call, Credential, Reply};
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// A handle of an object.
pub type Handle = nfs_fh3;

/// A call that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection.
    #[error("connection to the NFS server: {0}")]
    Io(#[from] io::Error),
    /// A reply that is none.
    #[error("reply of the NFS server: {0}")]
    Decode(#[from] DecodeError),
    /// Bytes that are no records.
    #[error("reply of the NFS server: {0}")]
    Record(#[from] RecordError),
    /// The server closed the connection.
    #[error("the NFS server closed the connection")]
    Closed,
    /// An answer to something that was not asked.
    #[error("reply to transaction {got:#x}, {expected:#x} expected")]
    Transaction {
        /// The one waited for.
        expected: u32,
        /// The one that came.
        got: u32,
    },
    /// The RPC layer refused the call.
    #[error("the RPC call is refused: {0:?}")]
    Rpc(Reply),
    /// The procedure failed.
    #[error("{procedure}: {status:?}")]
    Status {
        /// Which.
        procedure: &'static str,
        /// How.
        status: nfsstat3,
    },
    /// MNT failed.
    #[error("mount of {path}: {error:?}")]
    Mount {
        /// Of what.
        path: String,
        /// How.
        error: MountError,
    },
    /// The server left out what was needed.
    #[error("{procedure} returned no {what}")]
    Missing {
        /// Which procedure.
        procedure: &'static str,
        /// The optional part.
        what: &'static str,
    },
}

impl Error {
    /// The NFS status, if that is what failed.
    pub fn status(&self) -> Option<u32> {
        match self {
            Error::Status { status, .. } => Some(*status as u32),
            _ => None,
        }
    }
}

/// The reply to a call.
#[derive(Debug)]
pub struct Answer {
    /// The transaction that is answered.
    pub xid: u32,
    /// The RPC header.
    pub reply: Reply,
    record: Vec<u8>,
    body: usize,
}

impl Answer {
    /// The bytes after the header.
    pub fn body(&self) -> &[u8] {
        &self.record[self.body..]
    }

    /// The result of a call that the RPC layer accepted.
    pub fn result<'a, T: Decode<'a>>(&'a self) -> Result<T, Error> {
        match self.reply {
            Reply::Success => Ok(T::decode(&mut Decoder::new(self.body()))?),
            refused => Err(Error::Rpc(refused)),
        }
    }
}

/// What READ returned.
#[derive(Debug)]
pub struct ReadData {
    /// The file's attributes.
    pub attributes: post_op_attr,
    /// The bytes.
    pub data: Vec<u8>,
    /// The end of the file was reached.
    pub eof: bool,
}

/// An entry of a listing.
#[derive(Debug)]
pub struct DirectoryEntry {
    /// Number of the object.
    pub fileid: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Resume after it.
    pub cookie: u64,
    /// Its handle and attributes, where READDIRPLUS gave them.
    pub handle: Option<Handle>,
    /// See `handle`.
    pub attributes: Option<fattr3>,
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    identity: Option<(u32, u32, Vec<u32>)>,
    next_xid: u32,
    outgoing: Vec<u8>,
    assembler: Assembler,
    buffer: Vec<u8>,
    start: usize,
}

impl Client {
    /// Connects, as root without groups; replies are waited for at most a minute.
    pub fn connect(address: impl ToSocketAddrs) -> Result<Client, Error> {
        Client::over(TcpStream::connect(address)?)
    }

    /// Uses a connection that is there.
    pub fn over(stream: TcpStream) -> Result<Client, Error> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Client {
            stream,
            identity: Some((0, 0, Vec::new())),
            // A random start, so that a server's reply cache does not take this client for an earlier one.
            next_xid: RandomState::new().hash_one(std::process::id()) as u32,
            outgoing: Vec::new(),
            assembler: Assembler::new(2 * MAX_IO),
            buffer: Vec::new(),
            start: 0,
        })
    }

    /// Acts as this user from now on (AUTH_SYS).
    pub fn act_as(&mut self, uid: u32, gid: u32, groups: &[u32]) {
        self.identity = Some((uid, gid, groups.to_vec()));
    }

    /// Acts as nobody from now on (AUTH_NONE).
    pub fn act_as_nobody(&mut self) {
        self.identity = None;
    }

    /// This end's address.
    pub fn local_address(&self) -> Result<SocketAddr, Error> {
        Ok(self.stream.local_addr()?)
    }

    /// The connection itself, for what is not a call.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The next call gets this transaction number.
    pub fn set_next_xid(&mut self, xid: u32) {
        self.next_xid = xid;
    }

    /// Adds a call to what [`Client::flush`] will send; returns its transaction number.
    pub fn queue(&mut self, program: u32, version: u32, procedure: u32, arguments: &impl Encode) -> u32 {
        let xid = self.next_xid;
        self.next_xid = xid.wrapping_add(1);
        let credential = match &self.identity {
            Some((uid, gid, groups)) => Credential::Sys(AuthSys::new(b"ehpc-tools", *uid, *gid, groups)),
            None => Credential::None,
        };
        let mut out = Encoder::new();
        std::mem::swap(out.buffer(), &mut self.outgoing);
        let start = out.len();
        out.u32(0);
        Call { xid, program, version, procedure, credential }.encode(&mut out);
        arguments.encode(&mut out);
        let mark = record::mark(out.len() - start - 4);
        out.buffer()[start..start + 4].copy_from_slice(&mark);
        self.outgoing = out.finish();
        xid
    }

    /// Adds an NFS call to what [`Client::flush`] will send.
    pub fn queue_nfs(&mut self, procedure: Procedure, arguments: &impl Encode) -> u32 {
        self.queue(nfs3::PROGRAM, nfs3::VERSION, procedure as u32, arguments)
    }

    /// Sends what was queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.outgoing)?;
        self.outgoing.clear();
        Ok(())
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next reply, to whatever call.
    pub fn receive(&mut self) -> Result<Answer, Error> {
        let record = self.receive_record()?;
        let mut input = Decoder::new(&record);
        let (xid, reply) = Reply::decode(&mut input)?;
        let body = record.len() - input.rest().len();
        Ok(Answer { xid, reply, record, body })
    }

    fn receive_record(&mut self) -> Result<Vec<u8>, Error> {
        loop {
            let mut input = &self.buffer[self.start..];
            let record = self.assembler.feed(&mut input)?;
            self.start = self.buffer.len() - input.len();
            if let Some(record) = record {
                return Ok(record);
            }
            self.start = 0;
            self.buffer.resize(64 * 1024, 0);
            let read = self.stream.read(&mut self.buffer);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Err(Error::Closed);
            }
        }
    }

    /// Sends one call and waits for its reply; no other may be in flight.
    pub fn call(
        &mut self,
        program: u32,
        version: u32,
        procedure: u32,
        arguments: &impl Encode,
    ) -> Result<Answer, Error> {
        let expected = self.queue(program, version, procedure, arguments);
        self.flush()?;
        let answer = self.receive()?;
        if answer.xid != expected {
            return Err(Error::Transaction { expected, got: answer.xid });
        }
        Ok(answer)
    }

    /// Sends one NFS call and waits for its reply.
    pub fn nfs(&mut self, procedure: Procedure, arguments: &impl Encode) -> Result<Answer, Error> {
        self.call(nfs3::PROGRAM, nfs3::VERSION, procedure as u32, arguments)
    }

    /// Sends one MOUNT call and waits for its reply.
    pub fn mount_call(
        &mut self,
        procedure: mount::Procedure,
        arguments: &impl Encode,
    ) -> Result<Answer, Error> {
        self.call(mount::PROGRAM, mount::VERSION, procedure as u32, arguments)
    }

    /// MNT: the handle of a directory.
    pub fn mount(&mut self, path: &str) -> Result<Handle, Error> {
        let answer =
            self.mount_call(mount::Procedure::Mnt, &Opaque::<{ mount::PATH_MAX }>(path.as_bytes()))?;
        match answer.result::<MountReply>()? {
            Ok(ok) => Ok(ok.handle),
            Err(error) => Err(Error::Mount { path: path.to_owned(), error }),
        }
    }
}

/// A name in a directory.
pub fn place<'a>(dir: &Handle, name: &'a [u8]) -> arguments::DirOp<'a> {
    arguments::DirOp { dir: dir.clone(), name: Opaque(name) }
}

/// Attributes of which only the mode is set.
pub fn mode(mode: u32) -> sattr3 {
    sattr3 { mode: nfs3::set_mode3::mode(mode), ..sattr3::default() }
}
