//! TLS 1.3 with pinned keys on both ends, and frames over it.

use super::identity::{Fingerprint, Identity};
use bytes::Bytes;
use ehpc_proto::replication::message::{ToBackup, ToPrimary};
use ehpc_proto::replication::pairing::Pairing;
use ehpc_proto::replication::wire::{self, Frame, FrameAssembler, FrameKind, Payload, WireError, frame};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// ALPN of the replication protocol.
pub const ALPN_STORE: &[u8] = b"ehpc-store/1";
/// ALPN of base snapshots of the database: the replication protocol, into a store of their own.
pub const ALPN_BASE: &[u8] = b"ehpc-base/1";
/// ALPN of the database's binary log.
pub const ALPN_DATABASE: &[u8] = b"ehpc-db/1";
/// ALPN of pairing.
pub const ALPN_PAIR: &[u8] = b"ehpc-pair/1";
/// A connection must be secured within this time.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Payloads from this size on are compressed, where their kind pays.
const COMPRESS_FROM: usize = 4 * 1024;
/// Payloads from this size on are put together on a blocking thread.
const BLOCK_FROM: usize = 64 * 1024;

/// Why a connection cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TransportError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the connection ended within a frame")]
    Cut,
    #[error("a compressed frame is damaged: {reason}")]
    Compression { reason: String },
    #[error("TLS cannot be set up with this host's key: {0}")]
    Tls(#[from] rustls::Error),
    #[error("not secured within {} s", HANDSHAKE_WITHIN.as_secs())]
    Late,
    #[error("the other host does not know this host's key: pair them again with `ehpc-store pair`")]
    Unknown,
    #[error(
        "the other host's key is not the paired one: it was set up anew, or somebody else answers there; pair \
         again if it was set up anew"
    )]
    WrongKey,
    #[error(
        "the other host offers no `{protocol}`: it runs another version of ehpc-store, or something else"
    )]
    Protocol { protocol: String },
}

impl TransportError {
    /// The other host knows no protocol of this name.
    pub(super) fn protocol(alpn: &[u8]) -> TransportError {
        TransportError::Protocol { protocol: String::from_utf8_lossy(alpn).into_owned() }
    }

    /// Recognises what rustls wraps into an I/O error.
    pub(super) fn from_tls(error: io::Error) -> TransportError {
        use rustls::{AlertDescription, Error};
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match inner {
            Some(Error::AlertReceived(AlertDescription::AccessDenied)) => TransportError::Unknown,
            Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
                TransportError::protocol(ALPN_STORE)
            }
            Some(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                TransportError::WrongKey
            }
            _ => TransportError::Io(error),
        }
    }
}

/// Which certificates are accepted. (That the peer holds the key is always checked, by rustls.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// Only the one with this fingerprint.
    Pinned(Fingerprint),
    /// Any: while pairing, which proves by other means who is there.
    Unpinned,
    /// None: before pairing.
    Nobody,
}

/// For the accepting end.
pub fn server_config(
    identity: &Identity,
    trust: Trust,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, TransportError> {
    let verifier = Arc::new(PinVerifier::new(trust));
    let mut config = ServerConfig::builder_with_provider(verifier.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    // A resumed session would skip the check of the key.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For the connecting end.
pub fn client_config(
    identity: &Identity,
    trust: Trust,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TransportError> {
    let verifier = Arc::new(PinVerifier::new(trust));
    let mut config = ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![identity.certificate()], identity.key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The name in a client's configuration means nothing here: keys are pinned.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(rustls_pki_types::IpAddr::V4([127, 0, 0, 1].into()))
}

/// What TLS runs over. rustls reads 4 KiB at a time, here out of a buffer instead of by a system call each.
pub(super) type Socket = BufReader<TcpStream>;

/// Bytes read from a socket at once.
const READ_AT_ONCE: usize = 256 * 1024;

/// Bytes that TLS takes before they go to the socket: chunks leave in few, long writes.
pub(super) const WRITE_AT_ONCE: usize = 256 * 1024;

/// Sets the options of every connection's socket.
pub(super) fn tuned(socket: TcpStream) -> io::Result<Socket> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    socket2::SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    Ok(BufReader::with_capacity(READ_AT_ONCE, socket))
}

struct PinVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl PinVerifier {
    fn new(trust: Trust) -> PinVerifier {
        PinVerifier { trust, provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match &self.trust {
            Trust::Unpinned => Ok(()),
            Trust::Pinned(expected) if *expected == Fingerprint::of(certificate) => Ok(()),
            Trust::Pinned(_) | Trust::Nobody => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

impl fmt::Debug for PinVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinVerifier({:?})", self.trust)
    }
}

fn only_13() -> rustls::Error {
    rustls::Error::General("TLS 1.3 is required".to_owned())
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PinVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A frame ready to be written.
#[derive(Debug)]
pub struct Sealed {
    header: [u8; frame::HEADER],
    payload: Payload,
}

impl Sealed {
    /// A message to the backup. Blocks for as long as a batch takes to compress.
    pub fn to_backup(message: &ToBackup) -> Result<Sealed, WireError> {
        let pays = matches!(message, ToBackup::Batch(_));
        Sealed::new(FrameKind::ToBackup, wire::encode_to_backup(message), pays)
    }

    /// A message to the primary. Blocks for as long as an answer takes to compress.
    pub fn to_primary(message: &ToPrimary) -> Result<Sealed, WireError> {
        let pays = matches!(message, ToPrimary::Answer { .. });
        Sealed::new(FrameKind::ToPrimary, wire::encode_to_primary(message).into(), pays)
    }

    /// A pairing message.
    pub fn pairing(message: &Pairing) -> Result<Sealed, WireError> {
        Sealed::new(FrameKind::Pairing, wire::encode_pairing(message).into(), false)
    }

    /// A message of a channel: never compressed.
    pub(super) fn channel(kind: FrameKind, payload: Payload) -> Result<Sealed, WireError> {
        Sealed::new(kind, payload, false)
    }

    fn new(kind: FrameKind, payload: Payload, compress: bool) -> Result<Sealed, WireError> {
        // The limit holds for what it decompresses to.
        let header = frame::header(kind, false, payload.len())?;
        if !compress || payload.len() < COMPRESS_FROM {
            return Ok(Sealed { header, payload });
        }
        let whole = payload.joined();
        match zstd::bulk::compress(&whole, 1) {
            Ok(packed) if packed.len() < whole.len() / 8 * 7 => {
                let head = (whole.len() as u32).to_be_bytes().to_vec();
                let header = frame::header(kind, true, head.len() + packed.len())?;
                Ok(Sealed { header, payload: Payload { head, strings: vec![packed.into()] } })
            }
            _ => Ok(Sealed { header, payload: whole.into() }),
        }
    }

    /// Bytes on the wire (before TLS).
    pub fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// Frames are never empty; here for the lint that wants it beside `len`.
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn decompress(mut frame: Frame) -> Result<Frame, TransportError> {
    let failed = |reason: String| TransportError::Compression { reason };
    let Some((length, packed)) = frame.payload.split_first_chunk::<4>() else {
        return Err(failed("it has no length".to_owned()));
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length >= wire::MAX_FRAME {
        return Err(WireError::TooLong { length: length as u64, limit: wire::MAX_FRAME }.into());
    }
    let payload = zstd::bulk::decompress(packed, length).map_err(|e| failed(e.to_string()))?;
    if payload.len() != length {
        return Err(failed(format!("{} bytes instead of {length}", payload.len())));
    }
    frame.payload = payload.into();
    frame.compressed = false;
    Ok(frame)
}

/// Frames out of a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    io: R,
    assembler: FrameAssembler,
    received: u64,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Refuses frames longer than `limit`.
    pub fn new(io: R, limit: usize) -> FrameReader<R> {
        FrameReader { io, assembler: FrameAssembler::new(limit), received: 0 }
    }

    /// The next frame as it travelled; `None` at an orderly end. Safe to cancel.
    async fn raw(&mut self) -> Result<Option<Frame>, TransportError> {
        loop {
            let count =
                self.io.read_buf(&mut self.assembler.space()).await.map_err(TransportError::from_tls)?;
            if count == 0 {
                return if self.assembler.is_idle() { Ok(None) } else { Err(TransportError::Cut) };
            }
            self.received += count as u64;
            if let Some(frame) = self.assembler.filled()? {
                return Ok(Some(frame));
            }
        }
    }

    /// The next frame of `kind`, decompressed; `None` at an orderly end.
    ///
    /// Not safe to cancel: use it in a task of its own.
    pub async fn next(&mut self, kind: FrameKind) -> Result<Option<Bytes>, TransportError> {
        let Some(frame) = self.raw().await? else { return Ok(None) };
        if frame.kind != kind {
            return Err(WireError::WrongKind { found: frame.kind, expected: kind }.into());
        }
        if !frame.compressed {
            return Ok(Some(frame.payload));
        }
        if kind == FrameKind::Pairing {
            return Err(TransportError::Compression { reason: "pairing is not compressed".to_owned() });
        }
        let frame = if frame.payload.len() >= BLOCK_FROM {
            off_runtime(|| decompress(frame)).await?
        } else {
            decompress(frame)
        };
        Ok(Some(frame?.payload))
    }

    /// Bytes since the last call.
    pub fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }
}

/// Runs what takes long on a thread that may block.
pub(super) async fn off_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, TransportError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| TransportError::Io(io::Error::other(e)))
}

/// Frames into a stream.
#[derive(Debug)]
pub struct FrameWriter<W> {
    io: W,
    buffer: Vec<u8>,
    /// A write is under way, or was given up: the stream may end within a frame and must not go on.
    torn: bool,
}

/// Small frames are gathered up to this, so that each does not become a TLS record and a packet of its own.
const GATHER: usize = 16 * 1024;

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `io`.
    pub fn new(io: W) -> FrameWriter<W> {
        FrameWriter { io, buffer: Vec::with_capacity(GATHER), torn: false }
    }

    /// Writes a frame; it is on its way after [`FrameWriter::flush`] at the latest. When it is cancelled or fails,
    /// nothing more is written.
    pub async fn write(&mut self, frame: &Sealed) -> Result<(), TransportError> {
        self.check()?;
        self.buffer.extend_from_slice(&frame.header);
        let strings = frame.payload.strings.iter().map(|string| &string[..]);
        let pieces = std::iter::once(&frame.payload.head[..]).chain(strings);
        if self.buffer.len() + frame.payload.len() <= GATHER {
            pieces.for_each(|piece| self.buffer.extend_from_slice(piece));
            return Ok(());
        }
        let mut slices: Vec<IoSlice<'_>> =
            std::iter::once(&self.buffer[..]).chain(pieces).map(IoSlice::new).collect();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, 0); // empty ones
        self.torn = true;
        while !rest.is_empty() {
            let count = self.io.write_vectored(rest).await.map_err(TransportError::from_tls)?;
            if count == 0 {
                return Err(TransportError::Cut);
            }
            IoSlice::advance_slices(&mut rest, count);
        }
        self.torn = false;
        self.buffer.clear();
        Ok(())
    }

    fn check(&self) -> Result<(), TransportError> {
        if self.torn { Err(TransportError::Cut) } else { Ok(()) }
    }

    /// Sends what is gathered.
    pub async fn flush(&mut self) -> Result<(), TransportError> {
        self.drain().await?;
        self.io.flush().await.map_err(TransportError::from_tls)
    }

    /// Sends what is gathered and ends the stream in an orderly way.
    pub async fn finish(&mut self) -> Result<(), TransportError> {
        self.flush().await?;
        self.io.shutdown().await.map_err(TransportError::from_tls)
    }

    async fn drain(&mut self) -> Result<(), TransportError> {
        self.check()?;
        if !self.buffer.is_empty() {
            self.torn = true;
            self.io.write_all(&self.buffer).await.map_err(TransportError::from_tls)?;
            self.torn = false;
            self.buffer.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_travel_compressed_where_it_pays() {
        let (near, far) = tokio::io::duplex(10_000);
        let messages = [
            ToBackup::Ping(1),
            ToBackup::Batch(vec![7; 5_000_000].into()),
            ToBackup::Batch(
                (0..100_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect(),
            ),
            ToBackup::Ping(2),
        ];
        let sealed: Vec<Sealed> = messages.iter().map(|m| Sealed::to_backup(m).unwrap()).collect();
        assert!(sealed[1].len() < 5_000, "not compressed: {}", sealed[1].len());
        let writing = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for frame in &sealed {
                writer.write(frame).await.unwrap();
            }
            writer.finish().await.unwrap();
        });
        let mut reader = FrameReader::new(far, wire::MAX_FRAME);
        for expected in messages {
            let payload = reader.next(FrameKind::ToBackup).await.unwrap().unwrap();
            assert!(wire::decode_to_backup(payload).unwrap() == expected);
        }
        assert!(reader.next(FrameKind::ToBackup).await.unwrap().is_none());
        writing.await.unwrap();
    }

    #[test]
    fn what_claims_to_decompress_to_more_than_a_frame_is_refused() {
        let bomb = |length: u32| {
            let mut payload = length.to_be_bytes().to_vec();
            payload.extend(zstd::bulk::compress(&vec![0; 1 << 20], 1).unwrap());
            decompress(Frame { kind: FrameKind::ToBackup, compressed: true, payload: payload.into() })
        };
        assert_eq!(bomb(1 << 20).unwrap().payload.len(), 1 << 20);
        assert!(matches!(bomb(u32::MAX), Err(TransportError::Wire(WireError::TooLong { .. }))));
        assert!(matches!(bomb(1000), Err(TransportError::Compression { .. })));
        assert!(matches!(bomb(2 << 20), Err(TransportError::Compression { .. })));
    }
}
