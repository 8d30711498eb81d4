//! The rest of an exchange: bodies both ways, or a tunnel.

use super::body::{Half, Torn};
use super::forward::Forward;
use super::{Next, answer};
use crate::proxy::config::model::Timeouts;
use crate::proxy::engine::buffer::Buffer;
use crate::proxy::engine::deadline::Deadline;
use crate::proxy::engine::record;
use crate::proxy::engine::session::Client;
use crate::proxy::engine::tcp;
use crate::proxy::engine::tunnel::{Party, Tunnel};
use crate::proxy::engine::wait::{Interrupted, until};
use ehpc_proto::http1::{Framing, Mode, Outgoing, ParsedResponse};
use std::task::{Context, Poll};
use std::time::Instant;

impl Forward<'_, '_> {
    /// Sends the answer, and the rest of the request.
    pub(super) async fn bodies(&mut self, parsed: ParsedResponse, outgoing: Outgoing, text: Vec<u8>) -> Next {
        let held = self.input.take();
        let mut down = Half::new(Party::Server, text, parsed.framing, outgoing.framing, held);
        if down.prime().is_err() {
            down.release(&self.at.thread.buffers);
            let failure = self.failed(502, b'P');
            self.at.bytes_out = 0;
            return answer::fail(self.at, failure, self.parsed).await;
        }
        let mut deadline = std::mem::take(&mut self.at.client.deadline);
        let mut blame = Party::Client;
        let live = self.at.live;
        let result = until(&mut deadline, live, |context, deadline| {
            let moved = self.move_both(context, &mut down);
            if moved.is_pending() {
                blame = self.set_body_deadline(deadline, &down);
            }
            moved
        })
        .await;
        self.at.client.deadline = deadline;
        self.at.exchange.times.ended = Some(Instant::now());
        self.at.bytes_in += self.up.payload();
        self.at.bytes_out += down.payload() + u64::from(parsed.framing == Framing::Chunked && down.complete);
        let cause = match result {
            Ok(Ok(())) => None,
            Ok(Err(party)) => Some(if party == Party::Client { b'C' } else { b'S' }),
            Err(Interrupted::Killed) => Some(b'K'),
            Err(Interrupted::Expired) => Some(if blame == Party::Client { b'c' } else { b's' }),
        };
        if let Some(cause) = cause {
            self.note_cut(cause);
            down.release(&self.at.thread.buffers);
            // A client that is well may still have earlier answers to read, and be sending requests.
            return if matches!(cause, b'S' | b's') { Next::Linger } else { Next::Close };
        }
        let rest = down.take_rest(&self.at.thread.buffers);
        down.release(&self.at.thread.buffers);
        let keep =
            parsed.keep_alive && self.at.mode == Mode::KeepAlive && parsed.framing != Framing::UntilClose;
        self.part(keep && rest.is_none(), outgoing)
    }

    /// The exchange is complete: what becomes of both connections.
    fn part(&mut self, keep_server: bool, outgoing: Outgoing) -> Next {
        let buffers = &self.at.thread.buffers;
        let whole = self.up.sent;
        let rest = self.up.take_rest(buffers);
        self.at.client.input = join(rest, self.at.client.input.take());
        let Forward { at, link, parsed, .. } = self;
        link.keep = keep_server && whole && !at.thread.stopping.get();
        // A client that did not ask for the end may be sending its next request.
        match (outgoing.keep_alive && whole, whole && !parsed.keep_alive) {
            (true, _) => Next::Keep,
            (false, true) => Next::Close,
            (false, false) => Next::Linger,
        }
    }

    fn move_both(&mut self, context: &mut Context<'_>, down: &mut Half) -> Poll<Result<(), Party>> {
        let before = (self.up.moves, down.moves);
        let buffers = &self.at.thread.buffers;
        let Client { stream, .. } = &mut *self.at.client;
        if !self.up.sent && !self.up_dead {
            match self.up.poll(context, stream, &mut self.link.stream, buffers) {
                Poll::Ready(Err(Torn::Receiver)) => self.up_dead = true,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Party::Client)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if !down.sent {
            match down.poll(context, &mut self.link.stream, stream, buffers) {
                Poll::Ready(Err(Torn::Receiver)) => return Poll::Ready(Err(Party::Client)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Party::Server)),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if down.sent && (self.up.sent || self.up_dead) {
            return Poll::Ready(Ok(()));
        }
        if before != (self.up.moves, down.moves) {
            self.active = Instant::now();
        }
        Poll::Pending
    }

    fn set_body_deadline(&self, deadline: &mut Deadline, down: &Half) -> Party {
        let blame = if down.sent { Party::Client } else { down.waits_for() };
        let timeout = match blame {
            Party::Client => self.at.frontend.timeouts.client,
            Party::Server => self.settings.timeouts.server,
        };
        deadline.set_after(self.active, timeout);
        blame
    }

    fn note_cut(&mut self, cause: u8) {
        answer::note(self.at.exchange, cause, b'D');
        let concerned = record::concerned(self.at.thread, self.at.exchange);
        match cause {
            b'C' | b'c' => self.count_client_abort(),
            b'S' | b's' => {
                concerned.backend.inspect(|one| one.server_aborts.add(1));
                concerned.server.inspect(|one| one.server_aborts.add(1));
            }
            _ => {}
        }
    }

    /// What follows the head is no HTTP (101, CONNECT).
    pub(super) async fn tunnel(&mut self, text: Vec<u8>) -> Next {
        let head = text.len() as u64;
        let buffers = &self.at.thread.buffers;
        let from_server = join(Some(Buffer::holding(&text)), self.input.take());
        buffers.give_text(text);
        let from_client = join(self.up.take_rest(buffers), self.at.client.input.take());
        let mut tunnel = Tunnel::new(Instant::now(), from_client, from_server);
        tunnel.until_server_ends = true;
        let timeouts = Timeouts {
            client: self.at.frontend.timeouts.client,
            client_fin: self.at.frontend.timeouts.client_fin,
            tunnel: self.settings.timeouts.tunnel.or(self.at.frontend.timeouts.tunnel),
            ..self.settings.timeouts
        };
        let (thread, live) = (self.at.thread, self.at.live);
        let ended = tcp::run(thread, live, self.at.client, &mut self.link, &mut tunnel, &timeouts).await;
        tunnel.up.release(buffers);
        tunnel.down.release(buffers);
        self.at.exchange.times.ended = Some(Instant::now());
        self.at.bytes_in += tunnel.up.moved;
        self.at.bytes_out += tunnel.down.moved.saturating_sub(head);
        if let Err(failure) = ended {
            self.note_cut(failure.cause);
        }
        Next::Close
    }
}

/// The bytes of both, in order.
fn join(first: Option<Buffer>, second: Option<Buffer>) -> Option<Buffer> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            let room = first.room(second.len());
            room[..second.len()].copy_from_slice(second.data());
            first.fill(second.len());
            Some(first)
        }
        (one, other) => one.or(other),
    }
}
