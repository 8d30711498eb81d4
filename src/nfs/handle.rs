//! File handles: `[tag][version][export id, 4 bytes][object key][MAC, 8 bytes]`, at most 64 bytes.
//!
//! The MAC is keyed BLAKE3 under a key that the state directory keeps, so that handles survive a restart
//! and nobody makes one for an object that he was not given.

use crate::host::ObjectKey;
use ehpc_proto::nfs3::{nfs_fh3, nfsstat3};
use rand::RngCore;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const TAG: u8 = 0x45;
const VERSION: u8 = 1;
const HEAD: usize = 6;
const MAC: usize = 8;
const FILE_NAME: &str = "handle.key";

/// The secret under which handles are made.
#[derive(Clone)]
pub struct HandleKey([u8; 32]);

impl fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandleKey(..)")
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum HandleKeyError {
    /// The file cannot be read.
    #[error("cannot read the file handle key {path}: {source}; make it readable for the server")]
    Read {
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot create the file handle key {path}: {source}; make its directory writable for the server")]
    Create {
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not a key.
    #[error(
        "the file handle key {path} has {length} bytes, 32 expected; restore it, or delete it (clients must then mount again)"
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
}

impl HandleKey {
    /// A key that is known: for tests.
    pub fn from_bytes(bytes: [u8; 32]) -> HandleKey {
        HandleKey(bytes)
    }

    /// Reads the key of this state directory, or makes one (mode 0600, on disk before it is used).
    pub fn load_or_create(state_dir: &Path) -> Result<HandleKey, HandleKeyError> {
        let path = state_dir.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
                Ok(key) => Ok(HandleKey(key)),
                Err(_) => Err(HandleKeyError::Damaged { path, length: bytes.len() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut key = [0; 32];
                rand::rng().fill_bytes(&mut key);
                match store(state_dir, &path, &key) {
                    Ok(()) => Ok(HandleKey(key)),
                    Err(source) => Err(HandleKeyError::Create { path, source }),
                }
            }
            Err(source) => Err(HandleKeyError::Read { path, source }),
        }
    }
}

/// A crash leaves the whole key or none: written aside, then renamed.
fn store(dir: &Path, path: &Path, key: &[u8; 32]) -> io::Result<()> {
    let aside = path.with_extension("key.new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    File::open(dir)?.sync_all()
}

/// The number of the export that a handle claims to be of; nothing is known of its truth yet.
pub(super) fn claimed_export(handle: &[u8]) -> Option<u32> {
    match handle.first_chunk::<HEAD>()? {
        [TAG, VERSION, export @ ..] => Some(u32::from_be_bytes(*export)),
        _ => None,
    }
}

/// Makes and checks the handles of one export.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handles<'k> {
    key: &'k HandleKey,
    export: u32,
}

impl<'k> Handles<'k> {
    pub(super) fn new(key: &'k HandleKey, export: u32) -> Handles<'k> {
        Handles { key, export }
    }

    /// The number of the export.
    pub(super) fn export(&self) -> u32 {
        self.export
    }

    /// The handle of an object.
    pub(super) fn encode(&self, key: &ObjectKey) -> nfs_fh3 {
        let key = key.to_bytes();
        let mut data = Vec::with_capacity(HEAD + key.len() + MAC);
        data.extend_from_slice(&[TAG, VERSION]);
        data.extend_from_slice(&self.export.to_be_bytes());
        data.extend_from_slice(&key);
        let mac = self.mac(&data);
        data.extend_from_slice(&mac);
        nfs_fh3 { data }
    }

    /// The object of a handle: BADHANDLE if we never made it, STALE if it is of another export.
    pub(super) fn decode(&self, handle: &nfs_fh3) -> Result<ObjectKey, nfsstat3> {
        let bad = nfsstat3::NFS3ERR_BADHANDLE;
        let (body, mac) = handle.data.split_last_chunk::<MAC>().ok_or(bad)?;
        let difference = self.mac(body).iter().zip(mac).fold(0, |all, (a, b)| all | (a ^ b));
        if difference != 0 {
            return Err(bad);
        }
        let (head, key) = body.split_first_chunk::<HEAD>().ok_or(bad)?;
        let [TAG, VERSION, export @ ..] = head else { return Err(bad) };
        if u32::from_be_bytes(*export) != self.export {
            return Err(nfsstat3::NFS3ERR_STALE);
        }
        ObjectKey::from_bytes(key).ok_or(bad)
    }

    fn mac(&self, body: &[u8]) -> [u8; MAC] {
        let hash = blake3::keyed_hash(&self.key.0, body);
        let mut mac = [0; MAC];
        mac.copy_from_slice(&hash.as_bytes()[..MAC]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::object::{KeyKind, MAX_KEY_BYTES};
    use smallvec::SmallVec;
    use std::os::unix::fs::PermissionsExt;

    fn key(len: usize) -> ObjectKey {
        ObjectKey { kind: KeyKind::Handle, handle_type: 1, bytes: SmallVec::from_elem(7, len) }
    }

    fn handles(byte: u8, export: u32) -> Handles<'static> {
        static KEYS: [HandleKey; 3] = [HandleKey([0; 32]), HandleKey([1; 32]), HandleKey([2; 32])];
        Handles::new(&KEYS[usize::from(byte)], export)
    }

    #[test]
    fn a_handle_leads_back_to_its_object_and_fits() {
        for len in 1..=MAX_KEY_BYTES {
            let handle = handles(1, 9).encode(&key(len));
            assert!(handle.data.len() <= 64, "{} bytes", handle.data.len());
            assert_eq!(handles(1, 9).decode(&handle).ok(), Some(key(len)));
            assert_eq!(claimed_export(&handle.data), Some(9));
        }
    }

    #[test]
    fn forged_and_foreign_handles_are_told_apart() {
        let handle = handles(1, 9).encode(&key(8));
        let status = |handles: Handles<'_>, handle: &nfs_fh3| handles.decode(handle).map_err(|s| s as u32);
        assert_eq!(status(handles(1, 8), &handle), Err(nfsstat3::NFS3ERR_STALE as u32));
        let bad = Err(nfsstat3::NFS3ERR_BADHANDLE as u32);
        assert_eq!(status(handles(2, 9), &handle), bad, "another key");
        for at in 0..handle.data.len() {
            let mut forged = handle.clone();
            forged.data[at] ^= 1;
            assert_eq!(status(handles(1, 9), &forged), bad, "byte {at}");
        }
        for len in 0..handle.data.len() {
            assert_eq!(status(handles(1, 9), &nfs_fh3 { data: handle.data[..len].to_vec() }), bad);
        }
    }

    #[test]
    fn the_key_survives_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = HandleKey::load_or_create(dir.path()).unwrap();
        let second = HandleKey::load_or_create(dir.path()).unwrap();
        assert_eq!(first.0, second.0);
        let path = dir.path().join(FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(HandleKey::load_or_create(other.path()).unwrap().0, first.0);
        assert!(!format!("{first:?}").contains(&first.0[0].to_string()));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), b"short").unwrap();
        let error = HandleKey::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, HandleKeyError::Damaged { length: 5, .. }), "{error}");
        let missing = HandleKey::load_or_create(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing, HandleKeyError::Create { .. }), "{missing}");
    }
}
