//! Where a proxy's log lines arrive: a datagram socket that is read by a thread.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub(crate) struct Syslog {
    lines: mpsc::Receiver<String>,
}

impl Syslog {
    /// On UDP port 514 of this address.
    pub(crate) fn start(address: &str) -> Syslog {
        let socket = UdpSocket::bind((address, 514)).expect("the port is free");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(read) = socket.recv(&mut buffer) {
                if send.send(String::from_utf8_lossy(&buffer[..read]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Syslog { lines }
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
