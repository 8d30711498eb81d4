//! Two streams joined byte for byte: `mode tcp`, upgraded connections, CONNECT.

use super::buffer::{Buffer, Buffers};
use super::stream::Stream;
use crate::proxy::config::model::Timeouts;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

/// Reads in a row before other connections get their turn.
const TURNS: usize = 8;

/// Who is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    Client,
    Server,
}

/// Bytes that go one way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Read and not yet sent.
    pub(crate) held: Option<Buffer>,
    /// Bytes sent.
    pub(crate) moved: u64,
    /// The reading side said that no more comes.
    pub(crate) ended: bool,
    /// And the other side was told.
    pub(crate) told: bool,
    /// The receiver was slower than the sender: small reads from now on.
    slow: bool,
}

/// Both ways, and when something last happened on either side.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// From the client to the server.
    pub(crate) up: Way,
    /// From the server to the client.
    pub(crate) down: Way,
    client_active: Instant,
    server_active: Instant,
    /// HTTP: it is over when the server's way has ended, as with HAProxy; `mode tcp` keeps half of it open.
    pub(crate) until_server_ends: bool,
}

/// A read or a write failed.
#[derive(Debug)]
pub(crate) struct Broken {
    /// Whose connection it is.
    pub(crate) party: Party,
    /// What the kernel said.
    #[allow(dead_code)] // for a person who debugs
    pub(crate) error: io::Error,
}

impl Tunnel {
    /// With bytes that were received before it was known that this becomes a tunnel.
    pub(crate) fn new(now: Instant, from_client: Option<Buffer>, from_server: Option<Buffer>) -> Tunnel {
        Tunnel {
            up: Way { held: from_client, ..Way::default() },
            down: Way { held: from_server, ..Way::default() },
            client_active: now,
            server_active: now,
            until_server_ends: false,
        }
    }

    /// Moves what can be moved. Ready when both ways have ended, or one broke.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &mut Stream,
        server: &mut Stream,
        buffers: &Buffers,
    ) -> Poll<Result<(), Broken>> {
        let before = (self.up.moved, self.down.moved, self.up.ended, self.down.ended);
        let up = self.up.poll(context, client, server, buffers, Party::Client)?;
        let down = self.down.poll(context, server, client, buffers, Party::Server)?;
        if before != (self.up.moved, self.down.moved, self.up.ended, self.down.ended) {
            let now = Instant::now();
            (self.client_active, self.server_active) = (now, now);
        }
        if (up.is_ready() || self.until_server_ends) && down.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// When it is over unless something moves, and whose fault that will be.
    pub(crate) fn expires(&self, timeouts: &Timeouts) -> Option<(Instant, Party)> {
        let half = |ended: bool, fin: Option<_>, normal: Option<_>| {
            if ended { fin.or(timeouts.tunnel).or(normal) } else { timeouts.tunnel.or(normal) }
        };
        let client = half(self.down.told, timeouts.client_fin, timeouts.client);
        let server = half(self.up.told, timeouts.server_fin, timeouts.server);
        // A side that has ended its way and is not being written to owes nothing.
        let client_owes = !self.up.ended || self.down.held.is_some();
        let server_owes = !self.down.ended || self.up.held.is_some();
        let client = client.filter(|_| client_owes).map(|after| (self.client_active + after, Party::Client));
        let server = server.filter(|_| server_owes).map(|after| (self.server_active + after, Party::Server));
        match (client, server) {
            (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
            (one, other) => one.or(other),
        }
    }
}

impl Way {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffers: &Buffers,
        reader: Party,
    ) -> Poll<Result<(), Broken>> {
        let writer = if reader == Party::Client { Party::Server } else { Party::Client };
        for _ in 0..TURNS {
            if let Some(mut held) = self.held.take() {
                while !held.is_empty() {
                    match to.poll_write(context, [held.data(), &[], &[]]) {
                        Poll::Ready(Ok(sent)) => {
                            held.consume(sent);
                            self.moved += sent as u64;
                        }
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(Err(Broken { party: writer, error }));
                        }
                        Poll::Pending => {
                            self.slow = true;
                            self.held = buffers.park(held);
                            return Poll::Pending;
                        }
                    }
                }
                buffers.give(held);
            }
            if self.ended {
                if !self.told {
                    to.shut_write();
                    self.told = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut buffer = buffers.take();
            let room = buffer.room(1);
            let most = if self.slow { room.len().min(16 * 1024) } else { room.len() };
            match from.poll_read(context, &mut room[..most]) {
                Poll::Ready(Ok(0)) => {
                    self.ended = true;
                    buffers.give(buffer);
                }
                Poll::Ready(Ok(read)) => {
                    buffer.fill(read);
                    self.held = Some(buffer);
                }
                Poll::Ready(Err(error)) => {
                    buffers.give(buffer);
                    return Poll::Ready(Err(Broken { party: reader, error }));
                }
                Poll::Pending => {
                    buffers.give(buffer);
                    return Poll::Pending;
                }
            }
        }
        self.held = self.held.take().and_then(|held| buffers.park(held));
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the buffer back.
    pub(crate) fn release(&mut self, buffers: &Buffers) {
        if let Some(held) = self.held.take() {
            buffers.give(held);
        }
    }
}
