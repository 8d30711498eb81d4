//! The connection under the NFS client crate: every wait has an end, and no reply makes it allocate more than it may.

use nfs3_client::io::{AsyncRead, AsyncWrite};
use nfs3_client::net::Connector;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longest record that a reply may announce: a READ of 1 MiB and its head.
const MAX_RECORD: u32 = 2 << 20;
/// A server that says nothing for this long is taken for gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects as the crate asks.
pub(super) struct Bounded;

/// A connection.
#[derive(Debug)]
pub(super) struct Wire(TcpStream);

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the NFS server does not answer")),
    }
}

impl Connector for Bounded {
    type Connection = Wire;

    async fn connect(&self, address: SocketAddr) -> io::Result<Wire> {
        let stream = in_time(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Wire(stream))
    }

    async fn connect_with_port(&self, address: SocketAddr, port: u16) -> io::Result<Wire> {
        let (socket, any): (TcpSocket, IpAddr) = match address {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, IpAddr::from([0; 4])),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, IpAddr::from([0; 16])),
        };
        socket.bind(SocketAddr::new(any, port))?;
        let stream = in_time(socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Wire(stream))
    }
}

impl AsyncRead for Wire {
    async fn async_read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match in_time(self.0.read(into)).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the NFS server closed the connection")),
            n => Ok(n),
        }
    }

    /// The crate reads a record's mark (RFC 5531 section 11) as four bytes of their own, then allocates what it says:
    /// here is the place to look at it first.
    async fn async_read_exact(&mut self, into: &mut [u8]) -> io::Result<()> {
        in_time(self.0.read_exact(into)).await?;
        if let Ok(mark) = <[u8; 4]>::try_from(&*into)
            && u32::from_be_bytes(mark) & 0x7fff_ffff > MAX_RECORD
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the NFS server's answer is too long"));
        }
        Ok(())
    }
}

impl AsyncWrite for Wire {
    async fn async_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        in_time(self.0.write(bytes)).await
    }
}
