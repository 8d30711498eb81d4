//! Identity of a file-system object, independent of its names.

use smallvec::SmallVec;
use std::fmt;

/// How the key was made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum KeyKind {
    /// name_to_handle_at: handle type and opaque bytes.
    Handle,
    /// statx inode (8 bytes) and birth time (8 + 4), for file systems without handles (overlayfs).
    Inode,
}

/// Identity of an object within one export: equal keys, same object; survives rename and restart.
/// Ordered and hashable; at most 40 opaque bytes (ext4 8, tmpfs 12, xfs 12, btrfs 20 to 40).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// How it was made.
    pub kind: KeyKind,
    /// The kernel's handle type (0 for `Inode`).
    pub handle_type: i32,
    /// Opaque.
    pub bytes: SmallVec<[u8; 16]>,
}

/// Longest opaque part that is accepted.
pub const MAX_KEY_BYTES: usize = 40;

impl ObjectKey {
    /// `[kind][handle_type, big endian 4][bytes]`: for NFS handles, the shadow and the link.
    pub fn to_bytes(&self) -> SmallVec<[u8; 24]> {
        let mut out = SmallVec::new();
        out.push(match self.kind {
            KeyKind::Handle => 1,
            KeyKind::Inode => 2,
        });
        out.extend_from_slice(&self.handle_type.to_be_bytes());
        out.extend_from_slice(&self.bytes);
        out
    }

    /// The reverse of [`ObjectKey::to_bytes`]; `None` if malformed.
    pub fn from_bytes(bytes: &[u8]) -> Option<ObjectKey> {
        let (&tag, rest) = bytes.split_first()?;
        let (handle_type, rest) = rest.split_first_chunk::<4>()?;
        let kind = match tag {
            1 => KeyKind::Handle,
            2 => KeyKind::Inode,
            _ => return None,
        };
        if rest.is_empty() || rest.len() > MAX_KEY_BYTES {
            return None;
        }
        Some(ObjectKey {
            kind,
            handle_type: i32::from_be_bytes(*handle_type),
            bytes: SmallVec::from_slice(rest),
        })
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}:", self.kind, self.handle_type)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
