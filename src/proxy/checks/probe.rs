//! One check: connects, says what is to be said, reads until it is certain or time is up.

use super::http;
use super::mysql::{Conversation, Step};
use crate::proxy::config::model::{Check, ServerCheck, Timeouts};
use crate::proxy::health::{CheckReport, CheckStatus};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::time::{Instant, timeout_at};

/// Where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Abstract(Vec<u8>),
}

/// How long a check may take (4.2 `timeout check`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connected by then.
    connect: Instant,
    /// Time for the answer; it lasts at least until the next check would begin, as HAProxy does it.
    answer: Option<Duration>,
    /// When the next check would begin.
    next: Instant,
}

impl Limits {
    pub(super) fn new(timing: &ServerCheck, timeouts: &Timeouts, begin: Instant) -> Limits {
        let next = begin + timing.inter;
        // Without `timeout check` the interval is the limit of the whole.
        let connect = match (timeouts.check, timeouts.connect) {
            (Some(_), Some(connect)) => next.min(begin + connect),
            _ => next,
        };
        Limits { connect, answer: timeouts.check, next }
    }

    fn answered(&self) -> Instant {
        self.answer.map_or(self.next, |time| self.next.max(Instant::now() + time))
    }
}

/// A server without a port cannot be checked.
pub(super) fn no_port() -> CheckReport {
    CheckReport::new(CheckStatus::SocketError).with_info("no port to check: write `port N` at the server")
}

/// Checks once.
pub(super) async fn probe(
    check: &Check,
    target: &Target,
    limits: &Limits,
    state: Option<&str>,
) -> CheckReport {
    let begun = Instant::now();
    let mut report = match timeout_at(limits.connect, connect(target)).await {
        Err(_) => CheckReport::new(CheckStatus::Layer4Timeout),
        Ok(Err(report)) => report,
        Ok(Ok(mut stream)) => {
            let asked = ask(check, stream.as_mut(), state);
            match timeout_at(limits.answered(), asked).await {
                Ok(report) => report,
                Err(_) => CheckReport::new(CheckStatus::Layer7Timeout),
            }
        }
    };
    report.duration = begun.elapsed();
    report
}

/// Either kind of connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn connect(target: &Target) -> Result<Box<dyn Stream>, CheckReport> {
    let refused = |error: io::Error| CheckReport::new(CheckStatus::Layer4Connection).with_info(words(&error));
    let failed = |error: io::Error| {
        let info = format!("General socket error ({})", words(&error));
        CheckReport::new(CheckStatus::SocketError).with_info(info)
    };
    let path = match target {
        Target::Tcp(address) => {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            };
            let socket = socket.map_err(failed)?;
            // Closed by a reset: checks leave no TIME_WAIT behind. An option that is not there changes nothing else.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            let stream = socket.connect(*address).await.map_err(refused)?;
            return Ok(Box::new(stream));
        }
        Target::Unix(path) => path.as_os_str().as_bytes().to_vec(),
        Target::Abstract(name) => [b"\0", name.as_slice()].concat(),
    };
    let open = || -> io::Result<UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Connects at once or not at all (a full backlog is an error).
        socket.connect(&SockAddr::unix(std::ffi::OsStr::from_bytes(&path))?)?;
        UnixStream::from_std(std::os::unix::net::UnixStream::from(std::os::fd::OwnedFd::from(socket)))
    };
    Ok(Box::new(open().map_err(failed)?))
}

/// An operating system's error without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

async fn ask(check: &Check, stream: &mut dyn Stream, state: Option<&str>) -> CheckReport {
    let asked = match check {
        Check::Connect => return CheckReport::new(CheckStatus::Layer4Ok),
        Check::Http(check) => {
            let request = http::request(check, state);
            converse(stream, Some(request), |bytes, ended| match http::judge(check, bytes, ended) {
                Some(report) => Step::Done(report),
                None => Step::More,
            })
            .await
        }
        Check::Mysql { user, post_41 } => {
            let mut conversation = Conversation::new(user.as_deref(), *post_41);
            converse(stream, None, |bytes, ended| conversation.step(bytes, ended)).await
        }
    };
    asked.unwrap_or_else(|error| CheckReport::new(CheckStatus::SocketError).with_info(words(&error)))
}

/// Sends and reads until `step` is done. What it may hold is bounded by what `step` waits for.
async fn converse(
    stream: &mut dyn Stream,
    first: Option<Vec<u8>>,
    mut step: impl FnMut(&[u8], bool) -> Step,
) -> io::Result<CheckReport> {
    if let Some(first) = first {
        stream.write_all(&first).await?;
    }
    let mut bytes = Vec::new();
    let mut ended = false;
    loop {
        match step(&bytes, ended) {
            Step::Done(report) => return Ok(report),
            Step::Send(more) => {
                stream.write_all(&more).await?;
                continue;
            }
            // Nothing more can come of it.
            Step::More if ended => return Ok(CheckReport::new(CheckStatus::Layer7Response)),
            Step::More => {}
        }
        let room = http::MOST.saturating_sub(bytes.len());
        let read = stream.take(room as u64).read_buf(&mut bytes).await?;
        ended = read == 0;
    }
}
