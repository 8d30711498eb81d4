//! Telling systemd how it goes (sd_notify(3)).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The service manager, if there is one that listens.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceManager {
    /// `$NOTIFY_SOCKET`
    socket: Option<OsString>,
}

impl ServiceManager {
    /// The one that started this process, if it is to be told (`-Ws`).
    pub(super) fn new(told: bool) -> ServiceManager {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| told && !name.is_empty());
        ServiceManager { socket }
    }

    /// Everything runs.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={status}\n", std::process::id()));
    }

    /// A reload begins.
    pub(super) fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=Reloading Configuration.\n");
    }

    /// The end begins.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, text: &str) {
        // It may be gone; that must not end the service.
        let _ = self.try_tell(text);
    }

    fn try_tell(&self, text: &str) -> io::Result<()> {
        let Some(name) = &self.socket else { return Ok(()) };
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
            None => SocketAddr::from_pathname(name)?,
        };
        UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let hidden = format!("@ehpc-test-{}", std::process::id());
        let by_name = SocketAddr::from_abstract_name(&hidden.as_bytes()[1..]).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&by_name).unwrap(), hidden.into()),
        ] {
            ServiceManager { socket: Some(name) }.ready("Ready.");
            let mut bytes = [0; 200];
            let length = socket.recv(&mut bytes).unwrap();
            let expected = format!("READY=1\nMAINPID={}\nSTATUS=Ready.\n", std::process::id());
            assert_eq!(std::str::from_utf8(&bytes[..length]).unwrap(), expected);
        }
        ServiceManager { socket: None }.ready("nobody listens");
    }
}
