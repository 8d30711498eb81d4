//! One RPC call to somebody else's server: over UDP, TCP or a local socket.

use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::portmap::{self, Binding, Mapping, parse_universal, procedure};
use ehpc_proto::record::{Assembler, RecordError, mark};
use ehpc_proto::rpc::{AuthSys, Call, Credential, Reply};
use ehpc_proto::xdr::{Decode, Encode, Opaque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket, UnixStream};
use tokio::time::timeout;

/// Longest reply that is read.
const MAX_REPLY: usize = 64 * 1024;
/// A datagram that is not answered is sent again after this time.
const RESEND: Duration = Duration::from_secs(1);

/// Whom to call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::nfs) enum Peer {
    /// Over UDP, from this address of ours if it matters.
    Udp(SocketAddr, Option<IpAddr>),
    /// Over TCP, from this address of ours if it matters.
    Tcp(SocketAddr, Option<IpAddr>),
    /// A local socket.
    Unix(PathBuf),
}

/// What to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::nfs) struct Function {
    pub(in crate::nfs) program: u32,
    pub(in crate::nfs) version: u32,
    pub(in crate::nfs) procedure: u32,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CallFailed {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The answer is none.
    #[error("a reply that cannot be read: {0}")]
    Reply(#[from] DecodeError),
    /// The stream is none.
    #[error("a reply that cannot be read: {0}")]
    Record(#[from] RecordError),
    /// The server said no.
    #[error("the call is refused: {0:?}")]
    Refused(Reply),
    /// The program is not registered there.
    #[error("program {program} version {version} is not registered with the port mapper of {host}")]
    NotRegistered {
        /// Program number.
        program: u32,
        /// Its version.
        version: u32,
        /// Whose port mapper.
        host: IpAddr,
    },
}

/// Calls `function` as root; the bytes of its result.
pub(in crate::nfs) async fn call(
    peer: &Peer,
    function: Function,
    arguments: &impl Encode,
    patience: Duration,
) -> Result<Vec<u8>, CallFailed> {
    call_as(peer, 0, function, arguments, patience).await
}

/// Calls `function` as the user and group of this number.
pub(in crate::nfs) async fn call_as(
    peer: &Peer,
    id: u32,
    function: Function,
    arguments: &impl Encode,
    patience: Duration,
) -> Result<Vec<u8>, CallFailed> {
    let xid: u32 = rand::random();
    let mut out = Encoder::with_capacity(256);
    out.u32(0);
    let Function { program, version, procedure } = function;
    // What the BSD and Linux servers expect of one another: AUTH_SYS, with a name.
    let credential = Credential::Sys(AuthSys::new(b"ehpc-store", id, id, &[]));
    Call { xid, program, version, procedure, credential }.encode(&mut out);
    arguments.encode(&mut out);
    let mut message = out.finish();
    let length = mark(message.len() - 4);
    message[..4].copy_from_slice(&length);
    let exchanged = async {
        match peer {
            Peer::Udp(to, from) => datagram(*to, *from, xid, &message[4..]).await,
            Peer::Tcp(to, from) => {
                let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                if let Some(from) = usable(*from, *to) {
                    socket.bind(SocketAddr::new(from, 0))?;
                }
                stream(socket.connect(*to).await?, xid, &message).await
            }
            Peer::Unix(path) => stream(UnixStream::connect(path).await?, xid, &message).await,
        }
    };
    let (reply, body) = timeout(patience, exchanged).await.map_err(|_| CallFailed::Silent(patience))??;
    match reply {
        Reply::Success => Ok(body),
        refused => Err(CallFailed::Refused(refused)),
    }
}

/// Our address, if a socket to `to` can have it.
fn usable(from: Option<IpAddr>, to: SocketAddr) -> Option<IpAddr> {
    from.filter(|from| from.is_ipv4() == to.is_ipv4() && !from.is_unspecified())
}

/// The header and the result, if the message answers `xid`.
fn read_reply(message: &[u8], xid: u32) -> Result<Option<(Reply, Vec<u8>)>, DecodeError> {
    let mut input = Decoder::new(message);
    let (answered, reply) = Reply::decode(&mut input)?;
    Ok((answered == xid).then(|| (reply, input.rest().to_vec())))
}

async fn datagram(
    to: SocketAddr,
    from: Option<IpAddr>,
    xid: u32,
    message: &[u8],
) -> Result<(Reply, Vec<u8>), CallFailed> {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(usable(from, to).unwrap_or(any), 0)).await?;
    // Only what comes from there is received, and "nobody listens" is told.
    socket.connect(to).await?;
    let mut buffer = vec![0; MAX_REPLY];
    loop {
        socket.send(message).await?;
        let answered = async {
            loop {
                let len = socket.recv(&mut buffer).await?;
                // Garbage and late answers to others are not ours to complain about.
                if let Ok(Some(answer)) = read_reply(&buffer[..len], xid) {
                    return Ok::<_, CallFailed>(answer);
                }
            }
        };
        if let Ok(answer) = timeout(RESEND, answered).await {
            return answer;
        }
    }
}

async fn stream(
    mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin,
    xid: u32,
    record: &[u8],
) -> Result<(Reply, Vec<u8>), CallFailed> {
    stream.write_all(record).await?;
    let mut assembler = Assembler::new(MAX_REPLY);
    let mut buffer = [0; 4096];
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut input = &buffer[..len];
        while let Some(record) = assembler.feed(&mut input)? {
            if let Some(answer) = read_reply(&record, xid)? {
                return Ok(answer);
            }
        }
    }
}

/// The port of a program on another host, by its port mapper (at port 111): portmap over IPv4, rpcbind over IPv6.
pub(in crate::nfs) async fn port_of(
    mapper: SocketAddr,
    from: Option<IpAddr>,
    program: u32,
    version: u32,
    over_tcp: bool,
    patience: Duration,
) -> Result<u16, CallFailed> {
    let peer = if over_tcp { Peer::Tcp(mapper, from) } else { Peer::Udp(mapper, from) };
    let get = |version| Function { program: portmap::PROGRAM, version, procedure: procedure::GET };
    let port = if mapper.is_ipv4() {
        let protocol = if over_tcp { portmap::TCP } else { portmap::UDP };
        let wanted = Mapping { program, version, protocol, port: 0 };
        let result = call(&peer, get(portmap::PORTMAP), &wanted, patience).await?;
        u16::try_from(u32::decode(&mut Decoder::new(&result))?).unwrap_or(0)
    } else {
        let network: &[u8] = if over_tcp { b"tcp6" } else { b"udp6" };
        let wanted =
            Binding { program, version, network: Opaque(network), address: Opaque(b""), owner: Opaque(b"") };
        let result = call(&peer, get(portmap::RPCBIND_4), &wanted, patience).await?;
        let address = portmap::Text::decode(&mut Decoder::new(&result))?;
        parse_universal(address.0).map_or(0, |address| address.port())
    };
    match port {
        0 => Err(CallFailed::NotRegistered { program, version, host: mapper.ip() }),
        port => Ok(port),
    }
}
