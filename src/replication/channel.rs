//! A channel: whole messages over a secured connection to the paired host, for protocols that are none of this module's
//! business.

use super::dial;
use super::identity::{Identity, Peers};
use super::link::LinkDown;
use super::transport::{ALPN_DATABASE, FrameReader, FrameWriter, Sealed, Socket, TransportError};
use bytes::Bytes;
use ehpc_proto::replication::wire::{FrameKind, MAX_FRAME, Payload};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{ReadHalf, WriteHalf};
use tokio_rustls::TlsStream;
use tokio_util::sync::CancellationToken;

/// What travels in a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// Its name in the TLS handshake.
    pub alpn: &'static [u8],
    /// Kind of the frames from primary to backup.
    pub to_backup: FrameKind,
    /// Kind of the frames from backup to primary.
    pub to_primary: FrameKind,
}

/// The binary log of the database, and questions about it.
pub const DATABASE: Protocol =
    Protocol { alpn: ALPN_DATABASE, to_backup: FrameKind::ToArchive, to_primary: FrameKind::ToSource };

/// What the backup serves over channels.
pub trait Service: Send + Sync + 'static {
    /// Serves one connection of the paired primary, `peer` for logs, to its end. `stop` is cancelled when a newer
    /// connection came, or at shutdown: what has arrived is then finished, and nothing more is read.
    fn serve(
        &self,
        channel: Channel,
        peer: String,
        stop: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// One connection.
pub struct Channel {
    /// The receiving half.
    pub input: ChannelIn,
    /// The sending half.
    pub output: ChannelOut,
}

/// The receiving half of a channel.
pub struct ChannelIn {
    reader: FrameReader<ReadHalf<TlsStream<Socket>>>,
    kind: FrameKind,
}

/// The sending half of a channel.
pub struct ChannelOut {
    writer: FrameWriter<WriteHalf<TlsStream<Socket>>>,
    kind: FrameKind,
}

impl Channel {
    /// The backup's end.
    pub(super) fn accepted(stream: TlsStream<Socket>, protocol: Protocol) -> Channel {
        Channel::over(stream, protocol.to_backup, protocol.to_primary)
    }

    fn over(stream: TlsStream<Socket>, receives: FrameKind, sends: FrameKind) -> Channel {
        let (read, write) = tokio::io::split(stream);
        Channel {
            input: ChannelIn { reader: FrameReader::new(read, MAX_FRAME), kind: receives },
            output: ChannelOut { writer: FrameWriter::new(write), kind: sends },
        }
    }
}

impl ChannelIn {
    /// The next message; `None` at an orderly end. Not safe to cancel: use it in a task of its own.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        self.reader.next(self.kind).await
    }

    /// Bytes since the last call.
    pub fn take_received(&mut self) -> u64 {
        self.reader.take_received()
    }
}

impl ChannelOut {
    /// Sends a message; it is on its way after [`ChannelOut::flush`] at the latest. After an error, or when it was
    /// cancelled, nothing more is sent.
    pub async fn send(&mut self, message: Payload) -> Result<(), TransportError> {
        self.writer.write(&Sealed::channel(self.kind, message)?).await
    }

    /// Sends what is held back.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        self.writer.flush().await
    }

    /// Sends what is held back and ends the connection in an orderly way: the other side reads an end, not a fault.
    pub async fn finish(&mut self) -> Result<(), TransportError> {
        self.writer.finish().await
    }
}

/// Where to dial, and as whom.
#[derive(Clone)]
pub struct DialOptions {
    /// host:port of the backup.
    pub address: String,
    /// This host.
    pub identity: Arc<Identity>,
    /// Its paired hosts.
    pub peers: Peers,
}

/// One attempt to connect to the paired backup; safe to cancel.
pub async fn dial(options: &DialOptions, protocol: Protocol) -> Result<Channel, LinkDown> {
    let peers = options.peers.clone();
    let address = options.address.clone();
    let paired = super::transport::off_runtime(move || dial::paired(&address, &peers)).await;
    let peer = paired.map_err(|e| LinkDown::Lost { reason: e.to_string() })??;
    let stream = dial::secured(&options.address, &options.identity, &peer, protocol.alpn).await?;
    Ok(Channel::over(stream.into(), protocol.to_primary, protocol.to_backup))
}
