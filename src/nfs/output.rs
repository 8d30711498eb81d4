//! Replies that wait to be taken by a client: written together, in the order in which they were made.

use super::budget::Reserved;
use super::spare::Spare;
use ehpc_proto::codec::Encoder;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Most parts in one system call.
const GATHERED: usize = 64;

/// Some whole replies, and what they hold until they are written.
pub(super) struct Segment {
    pub(super) bytes: Vec<u8>,
    /// Given back when it is written.
    pub(super) _reserved: Option<Reserved>,
}

/// The replies of one connection.
#[derive(Default)]
pub(super) struct Output {
    segments: VecDeque<Segment>,
    /// Bytes of the first segment that are written.
    written: usize,
    /// Small replies gather here.
    open: Vec<u8>,
}

impl Output {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.open.is_empty()
    }

    /// Bytes of small replies that were gathered.
    pub(super) fn gathered(&self) -> usize {
        self.open.len()
    }

    /// Lets `write` append small replies.
    pub(super) fn gather<T>(&mut self, spare: &Spare, write: impl FnOnce(&mut Encoder) -> T) -> T {
        if self.open.capacity() == 0 {
            self.open = spare.small();
        }
        let mut out = Encoder::new();
        std::mem::swap(out.buffer(), &mut self.open);
        let done = write(&mut out);
        self.open = out.finish();
        done
    }

    /// Adds whole replies after those that are there.
    pub(super) fn push(&mut self, segment: Segment) {
        self.close();
        self.segments.push_back(segment);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let bytes = std::mem::take(&mut self.open);
            self.segments.push_back(Segment { bytes, _reserved: None });
        }
    }

    /// Writes as much as the client takes. Ready: everything is written. `progress` is set when something was.
    pub(super) fn poll_write(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        cx: &mut Context<'_>,
        spare: &Spare,
        progress: &mut bool,
    ) -> Poll<io::Result<()>> {
        self.close();
        while let Some(first) = self.segments.front() {
            let written = if self.segments.len() == 1 {
                stream.as_mut().poll_write(cx, first.bytes.get(self.written..).unwrap_or_default())
            } else {
                let mut slices = [IoSlice::new(&[]); GATHERED];
                let mut skip = self.written;
                let mut used = 0;
                for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                    *slice = IoSlice::new(segment.bytes.get(skip..).unwrap_or_default());
                    skip = 0;
                    used += 1;
                }
                stream.as_mut().poll_write_vectored(cx, slices.get(..used).unwrap_or_default())
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    *progress = true;
                    self.advance(count, spare);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize, spare: &Spare) {
        self.written += count;
        while let Some(first) = self.segments.front()
            && self.written >= first.bytes.len()
        {
            self.written -= first.bytes.len();
            if let Some(done) = self.segments.pop_front() {
                spare.give_back(done.bytes);
            }
        }
        if self.segments.is_empty() {
            self.segments.shrink_to(4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and nothing every third time.
    struct Narrow {
        taken: Vec<u8>,
        calls: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            if self.calls.is_multiple_of(3) {
                return Poll::Pending;
            }
            let count = bytes.len().min(1 + self.calls % 5);
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn everything_arrives_once_and_in_order() {
        let spare = Spare::default();
        let mut output = Output::default();
        let mut expected = Vec::new();
        for number in 0..200u8 {
            let bytes = vec![number; 1 + usize::from(number) % 7];
            expected.extend_from_slice(&bytes);
            if number % 3 == 0 {
                output.push(Segment { bytes, _reserved: None });
            } else {
                output.gather(&spare, |out| out.bytes(&bytes));
            }
        }
        let mut narrow = Narrow { taken: Vec::new(), calls: 0 };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..10_000 {
            let mut progress = false;
            if output.poll_write(Pin::new(&mut narrow), &mut cx, &spare, &mut progress).is_ready() {
                break;
            }
        }
        assert!(output.is_empty());
        assert_eq!(narrow.taken, expected);
    }
}
