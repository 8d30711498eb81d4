//! RPC over TCP for short calls: port 111.

use super::{Answerer, Arrival, MAX_CALL};
use ehpc_proto::record::{Assembler, mark};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// A connection that is silent this long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// After a failed accept (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves connections until `stop`.
pub(in crate::nfs) async fn serve(
    listener: TcpListener,
    answerer: Arc<dyn Answerer>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (answerer, stop) = (Arc::clone(&answerer), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                _ = converse(stream, from, answerer) => {}
            }
        });
    }
}

/// Answers call after call; `None` when the connection ends.
async fn converse(mut stream: TcpStream, from: SocketAddr, answerer: Arc<dyn Answerer>) -> Option<()> {
    let at = stream.local_addr().ok()?.ip().to_canonical();
    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut assembler = Assembler::new(MAX_CALL);
    let mut buffer = [0; 4096];
    loop {
        let len = timeout(IDLE, stream.read(&mut buffer)).await.ok()?.ok()?;
        if len == 0 {
            return None;
        }
        let mut input = &buffer[..len];
        while let Some(call) = assembler.feed(&mut input).ok()? {
            let (reply, answer) = oneshot::channel();
            let arrival = Arrival { from, at, stream: true };
            answerer.answer(arrival, call, Box::new(move |bytes| drop(reply.send(bytes))));
            // Garbage has no answer: this ends the connection.
            let answer = answer.await.ok()?;
            timeout(IDLE, stream.write_all(&[&mark(answer.len()), &answer[..]].concat())).await.ok()?.ok()?;
        }
    }
}
