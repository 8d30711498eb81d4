//! Where a proxy's log lines arrive: a datagram socket that is read by a thread.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The port is free again when it is dropped.
pub(crate) struct Syslog {
    lines: mpsc::Receiver<String>,
    at: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Ends the thread.
const END: &[u8] = b"the end";

impl Syslog {
    /// On UDP port 514 of this address.
    pub(crate) fn start(address: &str) -> Syslog {
        let socket = UdpSocket::bind((address, 514)).expect("the port is free");
        let (send, lines) = mpsc::channel();
        let at = socket.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(read) = socket.recv(&mut buffer) {
                if &buffer[..read] == END
                    || send.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).is_err()
                {
                    return;
                }
            }
        });
        Syslog { lines, at, thread: Some(thread) }
    }

    /// The next line.
    pub(crate) fn next(&self, until: Instant) -> Option<String> {
        self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }

    /// What has come.
    pub(crate) fn drain(&self) {
        while self.lines.recv_timeout(Duration::ZERO).is_ok() {}
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        let told = UdpSocket::bind((self.at.ip(), 0)).and_then(|socket| socket.send_to(END, self.at));
        if told.is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}
