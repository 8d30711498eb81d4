//! A secured connection to the paired backup, for one protocol.

use super::identity::{Identity, PeerRecord, Peers, Role};
use super::link::LinkDown;
use super::transport::{self, HANDSHAKE_WITHIN, Socket, TransportError, Trust};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn unreachable(address: &str, reason: String) -> LinkDown {
    LinkDown::Unreachable { address: address.to_owned(), reason }
}

/// The paired backup.
pub(super) fn paired(address: &str, peers: &Peers) -> Result<PeerRecord, LinkDown> {
    match peers.in_role(Role::Backup) {
        Ok(Some(peer)) => Ok(peer),
        Ok(None) => Err(LinkDown::NotPaired),
        Err(error) => Err(unreachable(address, error.to_string())),
    }
}

/// Connects to `peer` at `address` as `identity`, and speaks `alpn` there.
pub(super) async fn secured(
    address: &str,
    identity: &Identity,
    peer: &PeerRecord,
    alpn: &[u8],
) -> Result<TlsStream<Socket>, LinkDown> {
    let config = transport::client_config(identity, Trust::Pinned(peer.fingerprint), alpn);
    let config = config.map_err(|e| unreachable(address, e.to_string()))?;
    let securing = async {
        let socket = transport::tuned(TcpStream::connect(address).await?)?;
        let tls = TlsConnector::from(config).connect(transport::server_name(), socket).await;
        let mut stream = tls.map_err(|error| match TransportError::from_tls(error) {
            TransportError::Protocol { .. } => TransportError::protocol(alpn),
            other => other,
        })?;
        stream.get_mut().1.set_buffer_limit(Some(transport::WRITE_AT_ONCE));
        Ok::<_, TransportError>(stream)
    };
    match tokio::time::timeout(HANDSHAKE_WITHIN, securing).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unreachable(address, error.to_string())),
        Err(_) => Err(unreachable(address, TransportError::Late.to_string())),
    }
}
