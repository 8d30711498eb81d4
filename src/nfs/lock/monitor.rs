//! Which clients must be told when this server has restarted: a file for each in `sm/` of the state directory, and
//! the state number, which is odd and grows with every start (XNFS version 3W, chapter 11).
//!
//! A client's file is on the disk before its first lock is granted; it stays for a while after its last one is gone.

use super::ranges::Client;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DIRECTORY: &str = "sm";
const STATE: &str = "state";
/// Most clients that are remembered.
const MAX_CLIENTS: usize = 16 * 1024;
/// Longest file of a client that is read: address, name in hexadecimal.
const MAX_FILE: u64 = 4096;

/// Why locks cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the clients that hold locks in {path}: {source}; make it writable for the server")]
pub struct MonitorError {
    /// The file or directory.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

/// The clients that are remembered.
#[derive(Debug)]
pub(in crate::nfs) struct Monitor {
    directory: PathBuf,
    state: u32,
    known: Mutex<HashSet<Arc<Client>>>,
}

impl Monitor {
    /// Opens `sm/` of a state directory, and begins a new state. The clients of the one before are [`Monitor::known`].
    pub(in crate::nfs) fn open(state_directory: &Path) -> Result<Monitor, MonitorError> {
        let directory = state_directory.join(DIRECTORY);
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| MonitorError { path, source }
        };
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&directory)(error)),
            _ => {}
        }
        sync(state_directory).map_err(at(state_directory))?;
        let state_file = directory.join(STATE);
        let before = match fs::read_to_string(&state_file) {
            Ok(text) => text.trim().parse::<u32>().unwrap_or_else(|_| rand::random::<u16>().into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(&state_file)(error)),
        };
        // The next odd number; never 0, never back.
        let state = (before.wrapping_add(1) | 1).max(1);
        write(&directory, STATE, format!("{state}\n").as_bytes()).map_err(at(&state_file))?;
        let mut known = HashSet::new();
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            if path.file_name().is_some_and(|name| name.as_bytes() != STATE.as_bytes())
                && let Some(client) = read(&path)
                && known.len() < MAX_CLIENTS
            {
                known.insert(Arc::new(client));
            }
        }
        Ok(Monitor { directory, state, known: Mutex::new(known) })
    }

    /// The state number of this run.
    pub(in crate::nfs) fn state(&self) -> u32 {
        self.state
    }

    /// Every client that is remembered.
    pub(in crate::nfs) fn known(&self) -> Vec<Arc<Client>> {
        self.known.lock().iter().cloned().collect()
    }

    /// The client is on the disk when this returns (blocking).
    pub(in crate::nfs) fn remember(&self, client: &Arc<Client>) -> io::Result<()> {
        // One at a time: nobody is answered before the file that another request writes is on the disk.
        let mut known = self.known.lock();
        if known.contains(client) {
            return Ok(());
        }
        if known.len() >= MAX_CLIENTS {
            return Err(io::Error::other("too many clients hold locks"));
        }
        let name: String = client.name.iter().map(|byte| format!("{byte:02x}")).collect();
        write(&self.directory, &file_name(client), format!("{} {name}\n", client.address).as_bytes())?;
        known.insert(Arc::clone(client));
        Ok(())
    }

    /// Forgets a client that holds nothing any more (blocking).
    pub(in crate::nfs) fn forget(&self, client: &Arc<Client>) -> io::Result<()> {
        let mut known = self.known.lock();
        if known.remove(client) {
            // Not synced: one notice too many after a crash does no harm.
            fs::remove_file(self.directory.join(file_name(client)))?;
        }
        Ok(())
    }
}

fn file_name(client: &Client) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(client.address.to_string().as_bytes()).update(b" ").update(&client.name);
    hasher.finalize().to_hex()[..32].to_owned()
}

fn read(path: &Path) -> Option<Client> {
    let readable = || {
        if fs::metadata(path).ok()?.len() > MAX_FILE {
            return None;
        }
        let text = fs::read_to_string(path).ok()?;
        let (address, name) = text.trim_end().split_once(' ')?;
        let digits = name.as_bytes().chunks(2);
        let bytes = digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        Some(Client { address: address.parse().ok()?, name: bytes.collect::<Option<Vec<u8>>>()?.into() })
    };
    let client = readable();
    if client.is_none() {
        tracing::warn!(file = %path.display(), "not a client that held locks: ignored");
    }
    client
}

/// A crash leaves the whole file or none.
fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // The name of an unfinished file is that of no client: it is replaced by the next one.
    let aside = directory.join(".new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, directory.join(name))?;
    sync(directory)
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8, name: &[u8]) -> Arc<Client> {
        Arc::new(Client { address: [10, 0, 0, number].into(), name: name.into() })
    }

    #[test]
    fn clients_and_the_state_number_survive() {
        let dir = tempfile::tempdir().unwrap();
        let first = Monitor::open(dir.path()).unwrap();
        assert_eq!((first.state(), first.known().len()), (1, 0));
        let (a, b) = (client(1, b"web1"), client(1, b"we\xff /\n"));
        first.remember(&a).unwrap();
        first.remember(&b).unwrap();
        first.remember(&a).unwrap();
        let second = Monitor::open(dir.path()).unwrap();
        assert_eq!(second.state(), 3);
        let mut known = second.known();
        known.sort();
        let mut expected = vec![a.clone(), b.clone()];
        expected.sort();
        assert_eq!(known, expected);
        second.forget(&a).unwrap();
        second.forget(&a).unwrap();
        assert_eq!(Monitor::open(dir.path()).unwrap().known(), [b]);
    }

    #[test]
    fn what_is_damaged_is_passed_over_and_what_is_not_writable_is_told() {
        let dir = tempfile::tempdir().unwrap();
        Monitor::open(dir.path()).unwrap().remember(&client(1, b"web1")).unwrap();
        let sm = dir.path().join("sm");
        for (name, text) in [("a", "no address"), ("b", "10.0.0.1 7"), ("c", "10.0.0.1 7x"), (".new", "")] {
            fs::write(sm.join(name), text).unwrap();
        }
        fs::write(sm.join("long"), vec![b'x'; 5000]).unwrap();
        fs::write(sm.join("state"), "x").unwrap();
        let again = Monitor::open(dir.path()).unwrap();
        assert_eq!(again.state() % 2, 1);
        let known = again.known();
        assert!(
            known.contains(&client(1, b"web1")) && known.len() == 2,
            "{known:?}: \"7\" is a name of one digit"
        );
        let missing = Monitor::open(&dir.path().join("none")).unwrap_err().to_string();
        assert!(missing.contains("none/sm") && missing.contains("make it writable"), "{missing}");
    }
}
