//! Digests that primary and backup compare in `verify`; one definition for both sides.

use super::state::{Hash, ObjectId};

/// Digest of a directory's listing, entries sorted by name.
pub fn listing_digest<'a>(entries: impl Iterator<Item = (&'a [u8], ObjectId)>) -> Hash {
    let mut h = blake3::Hasher::new();
    for (name, child) in entries {
        h.update(&(name.len() as u64).to_be_bytes());
        h.update(name);
        h.update(&child.0.to_be_bytes());
    }
    Hash(*h.finalize().as_bytes())
}

/// Digest of an object as verify sees it: its state's digest and, for a directory, its listing's.
pub fn object_digest(state: Hash, listing: Option<Hash>) -> Hash {
    let mut h = blake3::Hasher::new();
    h.update(&state.0);
    if let Some(listing) = listing {
        h.update(&listing.0);
    }
    Hash(*h.finalize().as_bytes())
}

/// Digest of a bucket: live objects in order of number with their [`object_digest`].
pub fn bucket_digest(objects: impl Iterator<Item = (ObjectId, Hash)>) -> Hash {
    let mut h = blake3::Hasher::new();
    for (id, digest) in objects {
        h.update(&id.0.to_be_bytes());
        h.update(&digest.0);
    }
    Hash(*h.finalize().as_bytes())
}
