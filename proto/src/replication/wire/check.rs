//! What the types cannot say: every value from the other side is checked here before anything acts on it.

use super::super::message::{Answer, Blob, BlobKind, Codec, Query, ToBackup, ToPrimary};
use super::super::pairing::Pairing;
use super::super::state::{
    Batch, EntryState, Extent, INLINE_EXTENTS, Kind, MAX_CHUNK, Manifest, ObjectId, ObjectState, Timestamp,
};
use super::{MAX_BATCH, WireError};
use std::collections::HashSet;

/// Most objects in one batch.
pub const MAX_BATCH_OBJECTS: usize = 32_768;
/// Most entries, and most destroyed objects, in one batch.
pub const MAX_BATCH_ENTRIES: usize = 131_072;
/// Most hashes, objects or blobs named in one question or offer.
pub const MAX_LIST: usize = 4_096;
/// Most digest buckets in one question.
pub const MAX_BUCKETS: u32 = 65_536;
/// Longest manifest page or root, decoded, bytes.
pub const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Longest name of a directory entry, bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symlink, bytes.
pub const MAX_TARGET: usize = 4_095;
/// Longest object key: kind, handle type and 40 opaque bytes.
pub const MAX_KEY: usize = 45;
/// Longest value of an extended attribute, bytes (the kernel's own limit).
pub const MAX_XATTR_VALUE: usize = 65_536;
/// Most extended attributes of one object.
pub const MAX_XATTRS: usize = 4_096;
/// Longest text for a person: reasons and names of hosts and exports, bytes.
pub const MAX_TEXT: usize = 4_096;

pub(super) type Checked = Result<(), WireError>;

pub(super) fn invalid<T>(what: &'static str, reason: String) -> Result<T, WireError> {
    Err(WireError::Invalid { what, reason })
}

pub(super) fn at_most(what: &'static str, unit: &str, count: usize, limit: usize) -> Checked {
    if count > limit { invalid(what, format!("{count} {unit}, at most {limit} are allowed")) } else { Ok(()) }
}

/// Is this a name that a directory entry may have?
pub fn name_is_valid(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|&b| b == b'/' || b == 0)
}

/// A message to the backup, but for the inside of a batch.
pub fn to_backup(message: &ToBackup) -> Checked {
    match message {
        ToBackup::Hello { export, .. } => at_most("hello", "bytes of export name", export.len(), MAX_TEXT),
        ToBackup::Offer { hashes } => at_most("offer", "hashes", hashes.len(), MAX_LIST),
        ToBackup::Blobs(blobs) => {
            at_most("blobs", "blobs", blobs.len(), MAX_LIST)?;
            blobs.iter().try_for_each(blob)
        }
        ToBackup::Batch(encoded) if encoded.is_empty() => invalid("batch", "it is empty".to_owned()),
        ToBackup::Batch(encoded) => at_most("batch", "bytes", encoded.len(), MAX_BATCH),
        ToBackup::Ask { query: asked, .. } => query(asked),
        ToBackup::Ping(_) => Ok(()),
    }
}

/// A message to the primary.
pub fn to_primary(message: &ToPrimary) -> Checked {
    match message {
        ToPrimary::Refused { reason } => at_most("refusal", "bytes of reason", reason.len(), MAX_TEXT),
        ToPrimary::Lacking(flags) => at_most("lacking", "flags", flags.len(), MAX_LIST),
        ToPrimary::Answer { answer: given, .. } => answer(given),
        ToPrimary::Welcome { .. } | ToPrimary::Ack { .. } | ToPrimary::Credit { .. } | ToPrimary::Pong(_) => {
            Ok(())
        }
    }
}

/// A pairing message.
pub fn pairing(message: &Pairing) -> Checked {
    let text = match message {
        Pairing::Propose { name, .. } | Pairing::Accept { name, .. } => name,
        Pairing::Refused { reason } => reason,
        Pairing::Confirm | Pairing::Done => return Ok(()),
    };
    at_most("pairing message", "bytes of text", text.len(), super::MAX_PAIRING_FRAME)
}

/// Lengths of a blob; whether it decodes to its name is the store's to check.
pub fn blob(blob: &Blob) -> Checked {
    let limit = match blob.kind {
        BlobKind::Chunk => MAX_CHUNK,
        BlobKind::Page => MAX_PAGE,
    };
    let raw = blob.raw_len as usize;
    if raw == 0 || raw > limit {
        return invalid(
            "blob",
            format!("{:?} {} of {raw} bytes, 1 to {limit} are allowed", blob.kind, blob.hash),
        );
    }
    let sound = match blob.codec {
        Codec::Raw => blob.bytes.len() == raw,
        Codec::Zstd => !blob.bytes.is_empty() && blob.bytes.len() <= raw,
    };
    if !sound {
        let stored = blob.bytes.len();
        return invalid(
            "blob",
            format!("{}: {stored} bytes as {:?} for {raw} decoded", blob.hash, blob.codec),
        );
    }
    Ok(())
}

fn query(query: &Query) -> Checked {
    match query {
        Query::Live { limit, .. } => at_most("question", "objects", *limit as usize, MAX_LIST),
        Query::Blobs(hashes) => at_most("question", "hashes", hashes.len(), MAX_LIST),
        Query::Versions { objects, from, to } => {
            if from > to {
                return invalid("question", format!("versions from batch {from} to {to}"));
            }
            at_most("question", "objects", objects.len(), MAX_LIST)
        }
        Query::Buckets { count, first, .. } => {
            if first.checked_add(u64::from(*count)).is_none() {
                return invalid("question", format!("{count} buckets from {first}"));
            }
            at_most("question", "buckets", *count as usize, MAX_BUCKETS as usize)
        }
        Query::Repair { objects } => at_most("question", "objects", objects.len(), MAX_LIST),
        Query::Touched { .. } | Query::ReadData { .. } => Ok(()),
    }
}

fn answer(answer: &Answer) -> Checked {
    match answer {
        Answer::Live { objects, entries } => {
            objects.iter().try_for_each(object)?;
            entries.iter().try_for_each(|e| name("answer", &e.name))
        }
        Answer::Touched { objects, entries } => {
            // An object that never had a state has no key.
            let keys = objects.iter().filter(|(_, bytes)| !bytes.is_empty());
            keys.map(|(_, bytes)| bytes).try_for_each(|bytes| key("answer", bytes))?;
            entries.iter().try_for_each(|(_, bytes)| name("answer", bytes))
        }
        Answer::Blobs(blobs) => at_most("answer", "blobs", blobs.len(), MAX_LIST),
        Answer::Buckets { digests, .. } => at_most("answer", "buckets", digests.len(), MAX_BUCKETS as usize),
        Answer::Versions(lists) => {
            at_most("answer", "objects", lists.len(), MAX_LIST)?;
            lists.iter().flatten().try_for_each(|version| {
                version.state.iter().try_for_each(object)?;
                version.entries.iter().try_for_each(|(bytes, _)| name("answer", bytes))
            })
        }
        Answer::ReadData { .. } => Ok(()),
        Answer::Repaired { resend } => at_most("answer", "objects", resend.len(), MAX_LIST),
        Answer::Failed { reason } => at_most("answer", "bytes of reason", reason.len(), MAX_TEXT),
    }
}

/// Everything about a batch that can be said without a catalog.
pub fn batch(batch: &Batch) -> Checked {
    if batch.number == 0 {
        return invalid("batch", "its number is 0, the first is 1".to_owned());
    }
    time("batch", batch.time)?;
    at_most("batch", "objects", batch.objects.len(), MAX_BATCH_OBJECTS)?;
    at_most("batch", "entries", batch.entries.len(), MAX_BATCH_ENTRIES)?;
    at_most("batch", "destroyed objects", batch.destroyed.len(), MAX_BATCH_ENTRIES)?;
    let mut seen = HashSet::with_capacity(batch.objects.len());
    for state in &batch.objects {
        object(state)?;
        if !seen.insert(state.id) {
            return invalid("batch", format!("object {} is in it twice", state.id.0));
        }
    }
    let mut destroyed = HashSet::with_capacity(batch.destroyed.len());
    for &id in &batch.destroyed {
        if id.0 == 0 || id == ObjectId::ROOT {
            return invalid("batch", format!("it destroys object {}, which cannot be", id.0));
        }
        if seen.contains(&id) || !destroyed.insert(id) {
            return invalid("batch", format!("object {} is destroyed, and in it another time", id.0));
        }
    }
    let mut names = HashSet::with_capacity(batch.entries.len());
    for state in &batch.entries {
        entry(state)?;
        if !names.insert((state.parent, &state.name)) {
            let shown = state.name.escape_ascii();
            return invalid(
                "batch",
                format!("entry \"{shown}\" of object {} is in it twice", state.parent.0),
            );
        }
        if let Some(child) = state.child
            && destroyed.contains(&child)
        {
            return invalid("batch", format!("an entry leads to object {}, which it destroys", child.0));
        }
    }
    Ok(())
}

fn entry(state: &EntryState) -> Checked {
    name("entry", &state.name)?;
    if state.parent.0 == 0 || state.child.is_some_and(|child| child.0 == 0) {
        return invalid("entry", "object number 0".to_owned());
    }
    match state.child {
        Some(ObjectId::ROOT) => invalid("entry", "it leads to the root".to_owned()),
        Some(child) if child == state.parent => {
            invalid("entry", format!("object {} contains itself", child.0))
        }
        _ => Ok(()),
    }
}

/// One object's state.
pub fn object(state: &ObjectState) -> Checked {
    let wrong = |reason: String| invalid("object", format!("object {}: {reason}", state.id.0));
    if state.id.0 == 0 {
        return wrong("number 0 is not given to objects".to_owned());
    }
    key("object", &state.key)?;
    if state.mode > 0o7777 {
        return wrong(format!("mode {:#o}", state.mode));
    }
    time("object", state.mtime)?;
    xattrs(state)?;
    if state.kind != Kind::File && (state.size != 0 || state.content != Manifest::EMPTY) {
        return wrong(format!("a {:?} with content", state.kind));
    }
    let device = matches!(state.kind, Kind::CharDevice | Kind::BlockDevice);
    if !device && state.rdev != (0, 0) {
        return wrong(format!("a {:?} with a device number", state.kind));
    }
    match (state.kind, state.target.len()) {
        (Kind::Symlink, 1..=MAX_TARGET) if !state.target.contains(&0) => {}
        (Kind::Symlink, length) => {
            return wrong(format!("a symlink whose target has {length} bytes or a NUL"));
        }
        (_, 0) => {}
        (kind, _) => return wrong(format!("a {kind:?} with a target")),
    }
    match &state.content {
        Manifest::Inline(extents) => {
            at_most("object", "extents inline", extents.len(), INLINE_EXTENTS)?;
            let covered = extents_cover(extents)?;
            if covered != state.size {
                return wrong(format!("{} bytes long, but its extents cover {covered}", state.size));
            }
            Ok(())
        }
        Manifest::Paged { .. } => Ok(()),
    }
}

/// Checks the lengths of extents and returns the bytes that they cover.
pub fn extents_cover(extents: &[Extent]) -> Result<u64, WireError> {
    let mut covered = 0u64;
    for extent in extents {
        let length = extent.len();
        if length == 0 || matches!(extent, Extent::Data { len, .. } if *len as usize > MAX_CHUNK) {
            return invalid("extent", format!("{length} bytes"));
        }
        let Some(sum) = covered.checked_add(length).filter(|&sum| sum <= i64::MAX as u64) else {
            return invalid("extent", "a file of more than 2^63 bytes".to_owned());
        };
        covered = sum;
    }
    Ok(covered)
}

fn xattrs(state: &ObjectState) -> Checked {
    at_most("object", "extended attributes", state.xattrs.len(), MAX_XATTRS)?;
    for xattr in &state.xattrs {
        let length = xattr.name.len();
        if length == 0 || length > MAX_NAME || xattr.name.contains(&0) {
            return invalid("object", format!("object {}: name of an extended attribute", state.id.0));
        }
        at_most("object", "bytes in an extended attribute", xattr.value.len(), MAX_XATTR_VALUE)?;
    }
    if !state.xattrs.is_sorted_by(|a, b| a.name < b.name) {
        return invalid("object", format!("object {}: extended attributes not in order", state.id.0));
    }
    Ok(())
}

fn name(what: &'static str, bytes: &[u8]) -> Checked {
    if name_is_valid(bytes) { Ok(()) } else { invalid(what, format!("name \"{}\"", bytes.escape_ascii())) }
}

fn key(what: &'static str, bytes: &[u8]) -> Checked {
    if bytes.is_empty() || bytes.len() > MAX_KEY {
        return invalid(what, format!("object key of {} bytes, 1 to {MAX_KEY} are allowed", bytes.len()));
    }
    Ok(())
}

pub(super) fn time(what: &'static str, time: Timestamp) -> Checked {
    if time.nanos < 1_000_000_000 { Ok(()) } else { invalid(what, format!("{} nanoseconds", time.nanos)) }
}
