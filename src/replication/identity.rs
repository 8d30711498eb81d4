//! Who a host is (key and self-signed certificate) and whom it knows (`peers.toml`).

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// What can be wrong with a host's key or list of peers.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum IdentityError {
    #[error("{path}: {action}: {source}")]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "{path} may be read by others (mode {mode:#o}): anybody could pose as this host; `chmod 600 {path}`, \
         or remove it and pair again"
    )]
    Readable { path: PathBuf, mode: u32 },
    #[error("{path} holds no key and certificate ({reason}): restore it, or remove it and pair again")]
    Malformed { path: PathBuf, reason: String },
    #[error("a key cannot be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("{path}: {reason}; correct it, or remove it and pair again")]
    Peers { path: PathBuf, reason: String },
}

/// BLAKE3 of a certificate (DER). Compared in constant time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(blake3::Hash);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        Fingerprint(blake3::hash(certificate.as_ref()))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    fn from_str(text: &str) -> Result<Fingerprint, String> {
        let parsed = blake3::Hash::from_hex(text);
        parsed
            .map(Fingerprint)
            .map_err(|_| format!("\"{text}\" is not a fingerprint of 64 hexadecimal digits"))
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Fingerprint, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A host's own key and certificate.
pub struct Identity {
    /// Name that a peer records, for people.
    pub name: String,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The identity in `<state>/identity/`, made if there is none.
    pub fn load_or_create(state: &Path, name: &str) -> Result<Identity, IdentityError> {
        let folder = state.join("identity");
        let path = folder.join("host.pem");
        let pem = match read_private(&path)? {
            Some(pem) => pem,
            None => {
                let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
                made.map_err(|source| file_error(&folder, "cannot be made", source))?;
                let pem = generate()?;
                write_durably(&path, pem.as_bytes(), 0o600)?;
                pem
            }
        };
        let malformed = |e: rustls_pki_types::pem::Error| IdentityError::Malformed {
            path: path.clone(),
            reason: e.to_string(),
        };
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(malformed)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(malformed)?;
        Ok(Identity { name: name.to_owned(), certificate, key })
    }

    /// What peers record of this host.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {})", self.name, self.fingerprint())
    }
}

/// Key and certificate in one file, so that there is never one without the other.
fn generate() -> Result<String, IdentityError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec!["ehpc-store".to_owned()])?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, "ehpc-store");
    let certificate = parameters.self_signed(&key)?;
    Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
}

/// What a peer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds the export (nfs1).
    Primary,
    /// Receives (backup).
    Backup,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Backup => "backup",
        })
    }
}

/// A paired host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PeerRecord {
    pub name: String,
    pub fingerprint: Fingerprint,
    pub role: Role,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PeersFile {
    #[serde(default)]
    peer: Vec<PeerRecord>,
}

/// `<state>/peers.toml`: the paired hosts, at most one of each role. Read anew at every use, so that pairing takes
/// effect without a restart.
#[derive(Clone, Debug)]
pub struct Peers {
    path: PathBuf,
}

impl Peers {
    /// Of this state directory.
    pub fn of(state: &Path) -> Peers {
        Peers { path: state.join("peers.toml") }
    }

    /// All of them.
    pub fn list(&self) -> Result<Vec<PeerRecord>, IdentityError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(file_error(&self.path, "cannot be read", source)),
        };
        let parsed: Result<PeersFile, _> = toml::from_str(&text);
        let failed =
            |e: toml::de::Error| IdentityError::Peers { path: self.path.clone(), reason: e.to_string() };
        Ok(parsed.map_err(failed)?.peer)
    }

    /// The one in this role.
    pub fn in_role(&self, role: Role) -> Result<Option<PeerRecord>, IdentityError> {
        Ok(self.list()?.into_iter().find(|peer| peer.role == role))
    }

    /// Records a peer in place of the one that had its role; durable when this returns.
    pub fn set(&self, record: &PeerRecord) -> Result<(), IdentityError> {
        let mut peer = self.list()?;
        peer.retain(|known| known.role != record.role);
        peer.push(record.clone());
        let text = toml::to_string(&PeersFile { peer });
        let text =
            text.map_err(|e| IdentityError::Peers { path: self.path.clone(), reason: e.to_string() })?;
        let text = format!(
            "# Paired hosts. Written by `ehpc-store pair`; remove an entry to end its pairing.\n{text}"
        );
        write_durably(&self.path, text.as_bytes(), 0o644)
    }
}

fn file_error(path: &Path, action: &'static str, source: io::Error) -> IdentityError {
    IdentityError::File { path: path.to_owned(), action, source }
}

fn read_private(path: &Path) -> Result<Option<String>, IdentityError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(file_error(path, "cannot be looked at", source)),
    };
    if mode & 0o077 != 0 {
        return Err(IdentityError::Readable { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(|source| file_error(path, "cannot be read", source))
}

/// Replaces a file as a whole: after a power cut there is the old one or the new one.
fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), IdentityError> {
    let failed = |source| file_error(path, "cannot be written", source);
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, path).map_err(failed)?;
    // The folder itself may be new: its own entry is made durable too.
    for folder in [Some(folder), folder.parent()].into_iter().flatten() {
        if !folder.as_os_str().is_empty() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_is_made_once_and_is_private() {
        let state = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(state.path(), "nfs1").unwrap();
        let again = Identity::load_or_create(state.path(), "nfs1").unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let path = state.path().join("identity/host.pem");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(state.path(), "nfs1").unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(
            Identity::load_or_create(state.path(), "nfs1"),
            Err(IdentityError::Malformed { .. })
        ));
    }

    #[test]
    fn two_hosts_have_two_fingerprints() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let a = Identity::load_or_create(a.path(), "a").unwrap();
        let b = Identity::load_or_create(b.path(), "b").unwrap();
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.fingerprint().to_string().parse(), Ok(a.fingerprint()));
        assert!("12".parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_peer_replaces_the_one_in_its_role() {
        let state = tempfile::tempdir().unwrap();
        let peers = Peers::of(state.path());
        assert_eq!(peers.list().unwrap(), []);
        let record = |name: &str, byte: u8, role| PeerRecord {
            name: name.to_owned(),
            fingerprint: Fingerprint(blake3::Hash::from_bytes([byte; 32])),
            role,
        };
        peers.set(&record("one", 1, Role::Backup)).unwrap();
        peers.set(&record("two", 2, Role::Primary)).unwrap();
        peers.set(&record("three", 3, Role::Backup)).unwrap();
        assert_eq!(
            peers.list().unwrap(),
            [record("two", 2, Role::Primary), record("three", 3, Role::Backup)]
        );
        assert_eq!(peers.in_role(Role::Backup).unwrap(), Some(record("three", 3, Role::Backup)));
        fs::write(state.path().join("peers.toml"), "[[peer]]\nname = 1").unwrap();
        assert!(peers.list().unwrap_err().to_string().contains("line 2"));
    }
}
