//! One direction of an HTTP exchange: a head that waits to be sent, and the body behind it.

use crate::proxy::engine::buffer::{Buffer, Buffers};
use crate::proxy::engine::stream::{Pieces, Stream};
use crate::proxy::engine::tunnel::Party;
use ehpc_proto::http1::{BadMessage, Body, Framing, write_chunk};
use std::io;
use std::task::{Context, Poll};

/// Reads and writes in a row before other connections get their turn.
const TURNS: usize = 8;

/// Most that is read at once for a receiver that is slower than its sender.
const SLOW_READ: usize = 16 * 1024;

/// A message on its way from one side to the other.
#[derive(Debug)]
pub(crate) struct Half {
    /// Who sends it.
    from: Party,
    /// Encoded bytes: the head, chunks.
    out: Vec<u8>,
    out_sent: usize,
    /// As it was received, not decoded yet but for the first [`Half::plain`] bytes.
    held: Option<Buffer>,
    /// Bytes at the start of `held` that are body as it is: sent without being copied.
    plain: usize,
    /// Bytes behind them that are not sent: framing of chunks.
    noise: usize,
    /// What ends the body: sent last.
    end: Vec<u8>,
    body: Body,
    /// The receiver was slower than the sender.
    slow: bool,
    /// Nothing more of the message is to come; it may still have to be sent.
    pub(crate) complete: bool,
    /// Everything was sent.
    pub(crate) sent: bool,
    /// Grows with everything that is read or sent.
    pub(crate) moves: u64,
}

/// Why a message will never be complete.
#[derive(Debug)]
pub(crate) enum Torn {
    /// Its sender's connection is gone.
    Sender,
    /// Its sender ended too early.
    Short,
    /// Its receiver's connection is gone.
    Receiver,
    /// It breaks the rules.
    Bad(BadMessage),
}

impl Half {
    /// `head`: encoded, to be sent before the body. `held`: received behind the message's own head.
    pub(crate) fn new(
        from: Party,
        head: Vec<u8>,
        incoming: Framing,
        outgoing: Framing,
        held: Option<Buffer>,
    ) -> Half {
        let body = Body::new(incoming, outgoing);
        let (complete, mut end) = (incoming.is_empty(), Vec::new());
        if complete {
            body.write_end(&mut end);
        }
        Half {
            from,
            out: head,
            out_sent: 0,
            held,
            plain: 0,
            noise: 0,
            end,
            body,
            slow: false,
            complete,
            sent: false,
            moves: 0,
        }
    }

    /// Decodes what is held, so that it can be sent together with the head.
    pub(crate) fn prime(&mut self) -> Result<(), Torn> {
        self.decode()
    }

    /// What can be sent at once: encoded bytes, body bytes behind them, what ends the body.
    pub(crate) fn ready(&self) -> Pieces<'_> {
        let body = self.held.as_ref().map_or(&[][..], |held| &held.data()[..self.plain]);
        // The end stands behind everything else; while noise or more body comes first, it is empty.
        [&self.out[self.out_sent..], body, &self.end]
    }

    /// `count` bytes of [`Half::ready`] were sent.
    pub(crate) fn note_sent(&mut self, mut count: usize) {
        self.moves += count as u64;
        let of_out = count.min(self.out.len() - self.out_sent);
        self.out_sent += of_out;
        count -= of_out;
        if self.out_sent == self.out.len() {
            self.out.clear();
            self.out_sent = 0;
        }
        let of_body = count.min(self.plain);
        self.plain -= of_body;
        if let Some(held) = &mut self.held {
            held.consume(of_body);
            if self.plain == 0 {
                held.consume(std::mem::take(&mut self.noise));
            }
        }
        self.end.drain(..(count - of_body).min(self.end.len()));
        self.sent = self.complete && self.nothing_waits();
    }

    /// Bytes of the body, without chunk borders, and of trailers' names and values: what HAProxy counts.
    pub(crate) fn payload(&self) -> u64 {
        let trailers = self.body.trailers().into_iter().flat_map(ehpc_proto::http::Fields::iter);
        self.body.payload() + trailers.map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>()
    }

    /// Whom it waits for: the receiver while something can be sent, else the sender.
    pub(crate) fn waits_for(&self) -> Party {
        match (self.nothing_waits(), self.from) {
            (true, from) => from,
            (false, Party::Client) => Party::Server,
            (false, Party::Server) => Party::Client,
        }
    }

    /// Behind the message's end: what was received too much.
    pub(crate) fn take_rest(&mut self, buffers: &Buffers) -> Option<Buffer> {
        let rest = self.held.take()?;
        buffers.park(rest)
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self, buffers: &Buffers) {
        buffers.give_text(std::mem::take(&mut self.out));
        if let Some(held) = self.held.take() {
            buffers.give(held);
        }
    }

    /// More bytes that were received behind what is held.
    pub(crate) fn append(&mut self, more: Buffer, buffers: &Buffers) {
        match &mut self.held {
            Some(held) if !held.is_empty() => {
                let room = held.room(more.len());
                room[..more.len()].copy_from_slice(more.data());
                held.fill(more.len());
                buffers.give(more);
            }
            held => *held = Some(more),
        }
    }

    fn nothing_waits(&self) -> bool {
        self.out.is_empty() && self.plain == 0 && self.end.is_empty()
    }

    /// Moves what can be moved. Ready when the whole message was sent, or will never be.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        buffers: &Buffers,
    ) -> Poll<Result<(), Torn>> {
        for _ in 0..TURNS {
            self.decode()?;
            while !self.nothing_waits() {
                match to.poll_write(context, self.ready()) {
                    Poll::Ready(Ok(count)) => self.note_sent(count),
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Torn::Receiver)),
                    Poll::Pending => {
                        self.slow = true;
                        self.park(buffers);
                        return Poll::Pending;
                    }
                }
            }
            if self.complete {
                self.sent = true;
                return Poll::Ready(Ok(()));
            }
            // Behind what was sent there may be more of what was read.
            self.decode()?;
            if self.complete || !self.nothing_waits() {
                continue;
            }
            match self.fetch(context, from, buffers) {
                Poll::Ready(Ok(0)) if self.body.close() => self.finish(),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Torn::Short)),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Torn::Sender)),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => {
                    self.park(buffers);
                    return Poll::Pending;
                }
            }
        }
        self.park(buffers);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn fetch(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        buffers: &Buffers,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = self.held.take().unwrap_or_else(|| buffers.take());
        let room = buffer.room(SLOW_READ);
        let most = if self.slow { room.len().min(SLOW_READ) } else { room.len() };
        let read = from.poll_read(context, &mut room[..most]);
        if let Poll::Ready(Ok(count)) = read {
            buffer.fill(count);
            self.moves += count as u64;
        }
        self.held = Some(buffer);
        read
    }

    fn park(&mut self, buffers: &Buffers) {
        self.held = self.held.take().and_then(|held| buffers.park(held));
    }

    fn finish(&mut self) {
        self.complete = true;
        self.body.write_end(&mut self.end);
    }

    /// Decodes what is held, until something can be sent or more must arrive.
    fn decode(&mut self) -> Result<(), Torn> {
        let Some(held) = &mut self.held else { return Ok(()) };
        while !self.complete && self.plain == 0 && !held.is_empty() {
            let step = self.body.step(held.data()).map_err(Torn::Bad)?;
            if step.send > 0 && self.body.wraps() {
                // Rare, so it may be copied.
                write_chunk(&held.data()[..step.send], &mut self.out);
                held.consume(step.send + step.skip);
            } else if step.send > 0 {
                (self.plain, self.noise) = (step.send, step.skip);
            } else {
                held.consume(step.skip);
            }
            if self.body.is_done() {
                self.complete = true;
                self.body.write_end(&mut self.end);
            } else if step.send + step.skip == 0 {
                break;
            }
        }
        Ok(())
    }
}
