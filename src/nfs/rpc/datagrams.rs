//! RPC over UDP: one datagram a call, one a reply.

use super::{Answerer, Arrival, MAX_CALL};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

/// Longest reply: what one datagram holds.
const MAX_REPLY: usize = 60_000;

/// Hands every datagram to `answerer` until `stop`.
pub(in crate::nfs) async fn serve(socket: UdpSocket, answerer: Arc<dyn Answerer>, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let Ok(own) = socket.local_addr() else { return };
    let mut buffer = vec![0; MAX_CALL];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        // A datagram that was sent earlier and bounced is reported here: no fault of this socket.
        let Ok((len, from)) = received else { continue };
        let back = Arc::clone(&socket);
        let reply = Box::new(move |bytes: Vec<u8>| send(&back, from, &bytes));
        let canonical = SocketAddr::new(from.ip().to_canonical(), from.port());
        let arrival = Arrival { from: canonical, at: own.ip(), stream: false };
        answerer.answer(arrival, buffer[..len].to_vec(), reply);
    }
}

/// A reply that cannot be sent now is lost like any datagram: the caller asks again.
fn send(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) {
    if bytes.len() > MAX_REPLY {
        tracing::warn!(client = %to, bytes = bytes.len(), "a reply is too long for UDP; the client must ask over TCP");
        return;
    }
    if let Err(error) = socket.try_send_to(bytes, to) {
        tracing::debug!(client = %to, %error, "a UDP reply was not sent");
    }
}
