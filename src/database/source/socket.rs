//! The socket on which the binary log comes. While a server is busy nobody watches it: it is looked at every [`GATHER`].
//! A socket that is watched wakes its reader at each commit, even one that sleeps, and its server pays for that as well.

use super::pace::{GATHER, Pace};
use crate::host::reactor::register_shared;
use crate::host::receive::receive;
use rustix::net::{SendFlags, Shutdown};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A connected socket.
pub(super) struct Socket {
    fd: Arc<OwnedFd>,
    /// On the reactor; `None` while commits are gathered.
    watch: Option<AsyncFd<Arc<OwnedFd>>>,
    /// `None`: each commit is read at once.
    pace: Option<Pace>,
    /// Bytes since it was last empty.
    bytes: usize,
    next_look: Pin<Box<Sleep>>,
}

impl Socket {
    /// One that does not block.
    ///
    /// # Errors
    ///
    /// Those of epoll(7).
    pub(super) fn new(fd: OwnedFd, pace: Option<Pace>) -> io::Result<Socket> {
        let fd = Arc::new(fd);
        let watch = Some(watched(&fd)?);
        Ok(Socket { fd, watch, pace, bytes: 0, next_look: Box::pin(sleep(GATHER)) })
    }

    /// Everything that had come was read.
    fn emptied(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        let now = Instant::now();
        if self.pace.as_mut().is_some_and(|pace| pace.gathers(now.into_std(), bytes)) {
            self.watch = None;
            self.next_look.as_mut().reset(now + GATHER);
        } else if self.watch.is_none() {
            self.watch = Some(watched(&self.fd)?);
        }
        Ok(())
    }
}

fn watched(fd: &Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    register_shared(Arc::clone(fd), Interest::READABLE | Interest::WRITABLE)
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        loop {
            let mut ready = match &socket.watch {
                Some(watch) => Some(ready!(watch.poll_read_ready(context))?),
                None => {
                    ready!(socket.next_look.as_mut().poll(context));
                    None
                }
            };
            let room = into.remaining();
            let received = match receive(&socket.fd, into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                received => Some(received?),
            };
            socket.bytes += received.unwrap_or(0);
            // A read that was not filled found all there was; one of no bytes, the end.
            if received.is_none_or(|count| count > 0 && count < room) {
                if let Some(ready) = &mut ready {
                    ready.clear_ready();
                }
                socket.emptied()?;
            }
            if received.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        loop {
            match rustix::net::send(&socket.fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
            let watch = match &mut socket.watch {
                Some(watch) => watch,
                None => socket.watch.insert(watched(&socket.fd)?),
            };
            ready!(watch.poll_write_ready(context))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&self.fd, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn pair(pace: bool) -> (Socket, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Socket::new(ours.into(), pace.then(|| Pace::new(std::time::Instant::now()))).unwrap(), theirs)
    }

    async fn commit(socket: &mut Socket, theirs: &mut UnixStream, bytes: usize) {
        theirs.write_all(&vec![7; bytes]).unwrap();
        let mut buffer = vec![0; 1 << 16];
        assert_eq!(socket.read(&mut buffer).await.unwrap(), bytes);
    }

    #[tokio::test]
    async fn while_commits_come_in_quick_succession_nobody_watches() {
        let (mut socket, mut theirs) = pair(true);
        for _ in 0..50 {
            commit(&mut socket, &mut theirs, 800).await;
        }
        assert!(socket.watch.is_none());
        // A single one: it is watched again, and the next one is read as it comes; so is the end.
        commit(&mut socket, &mut theirs, 80).await;
        assert!(socket.watch.is_some());
        commit(&mut socket, &mut theirs, 80).await;
        drop(theirs);
        assert_eq!(socket.read(&mut [0; 10]).await.unwrap(), 0);

        let (mut socket, mut theirs) = pair(false);
        for _ in 0..50 {
            commit(&mut socket, &mut theirs, 800).await;
            assert!(socket.watch.is_some());
        }
    }

    #[tokio::test]
    async fn every_byte_comes_in_its_order_both_ways() {
        let seed: u64 = rand::random();
        println!("seed {seed}");
        for pace in [true, false] {
            let (mut socket, mut theirs) = pair(pace);
            let mut random = StdRng::seed_from_u64(seed);
            let mut sent = vec![0; 3 << 20];
            random.fill_bytes(&mut sent);
            let mut echo = theirs.try_clone().unwrap();
            let wanted = sent.clone();
            let writer = std::thread::spawn(move || {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let most = [100, 1000, 300_000][random.random_range(0..3)];
                    let (now, behind) = rest.split_at(random.random_range(1..=most.min(rest.len())));
                    theirs.write_all(now).unwrap();
                    rest = behind;
                    if random.random_range(0..20) == 0 {
                        ehpc_tools::process::pause(Duration::from_millis(random.random_range(0..8)));
                    }
                }
                theirs.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            socket.read_to_end(&mut received).await.unwrap();
            writer.join().unwrap();
            assert!(received == wanted, "seed {seed}");
            let reader = std::thread::spawn(move || {
                let mut all = Vec::new();
                io::Read::read_to_end(&mut echo, &mut all).unwrap();
                all
            });
            socket.write_all(&received).await.unwrap();
            socket.shutdown().await.unwrap();
            assert!(reader.join().unwrap() == received, "seed {seed}");
        }
    }
}
