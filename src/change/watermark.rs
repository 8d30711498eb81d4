//! The stable watermark: how far the export's content is known to be on its own disk.
//!
//! After a power cut ctime can be newer than the content. So the shadow records, with the boot's
//! identity, the time just before a syncfs that completed: rows older than it can be believed after any
//! boot, the others are read again. Until that has happened after an unclean boot, and the backup has
//! acknowledged it, no new watermark is written: the former boot's stays in force.

use super::dirty::DirtySet;
use super::shadow::Meta;
use crate::host::{ObjectKey, Tree, coarse_now};
use ehpc_proto::replication::Timestamp;
use std::io;
use std::sync::Arc;

/// What change capture asks the shadow's writer (the sender's thread) to record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ShadowNote {
    /// Rows whose ctime is before `watermark` are on the disk as they were read, in this boot.
    Stable {
        /// The kernel's identity of the boot.
        boot_id: Vec<u8>,
        /// Taken before the syncfs.
        watermark: Timestamp,
    },
    /// A session began (false), or ended with everything synced (true).
    CleanStop(bool),
    /// Which directory on which file system this is.
    Export {
        /// Key of the root.
        root_key: ObjectKey,
        /// `Tree::filesystem_id`.
        filesystem_id: Vec<u8>,
        /// The recorded file system was another: no other key means anything any more.
        keys_are_dead: bool,
    },
    /// A full scan finished.
    Scanned {
        /// Everything that it found is among the changes numbered up to this.
        current: u64,
    },
}

/// Takes notes to the shadow's writer; called from several threads.
pub type ShadowNotes = Arc<dyn Fn(ShadowNote) + Send + Sync>;

/// What the start found: from when on rows cannot be believed.
pub(super) fn suspicious_since(meta: &Meta, boot_id: &[u8]) -> Option<Timestamp> {
    // An empty shadow believes nothing yet.
    if meta.boot_id == boot_id || meta.clean_stop || meta.position.is_none() {
        return None;
    }
    // Without a watermark nothing was ever known to be stable.
    Some(meta.watermark.unwrap_or(Timestamp { seconds: i64::MIN, nanos: 0 }))
}

/// Writes watermarks.
pub(super) struct Watermark {
    tree: Arc<Tree>,
    dirty: Arc<DirtySet>,
    notes: ShadowNotes,
    boot_id: Vec<u8>,
    /// Newest change that the last watermark knew of.
    noted_at: u64,
    written: bool,
}

impl Watermark {
    pub(super) fn new(
        tree: Arc<Tree>,
        dirty: Arc<DirtySet>,
        notes: ShadowNotes,
        boot_id: Vec<u8>,
    ) -> Watermark {
        Watermark { tree, dirty, notes, boot_id, noted_at: 0, written: false }
    }

    /// A full scan finished; what it found is numbered up to `current`.
    pub(super) fn scanned(&self, current: u64) {
        (self.notes)(ShadowNote::Scanned { current });
    }

    /// Syncs and moves the watermark, if anything changed since the last.
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let current = self.dirty.current();
        if self.written && current == self.noted_at {
            return Ok(false);
        }
        self.write(current)?;
        Ok(true)
    }

    fn write(&mut self, current: u64) -> io::Result<()> {
        let watermark = coarse_now();
        self.tree.sync()?;
        (self.notes)(ShadowNote::Stable { boot_id: self.boot_id.clone(), watermark });
        self.noted_at = current;
        self.written = true;
        Ok(())
    }

    /// The last one, and the mark of a clean stop.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.write(self.dirty.current())?;
        (self.notes)(ShadowNote::CleanStop(true));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, Touch};
    use ehpc_proto::replication::{Position, StreamId};
    use parking_lot::Mutex;

    fn time(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn only_an_unclean_boot_is_suspicious() {
        let meta = |boot: &[u8], clean, watermark| Meta {
            boot_id: boot.to_vec(),
            clean_stop: clean,
            watermark,
            position: Some(Position::start(StreamId([1; 16]))),
            ..Meta::default()
        };
        assert_eq!(suspicious_since(&meta(b"a", false, Some(time(5))), b"a"), None);
        assert_eq!(suspicious_since(&meta(b"a", true, Some(time(5))), b"b"), None);
        assert_eq!(suspicious_since(&meta(b"a", false, Some(time(5))), b"b"), Some(time(5)));
        let all = suspicious_since(&meta(b"a", false, None), b"b").unwrap();
        assert!(all < time(-1_000_000_000));
        assert_eq!(suspicious_since(&Meta::default(), b"b"), None);
    }

    #[test]
    fn it_moves_when_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Arc::new(Tree::open(dir.path()).unwrap());
        let dirty = DirtySet::new();
        let log = Arc::new(Mutex::new(Vec::new()));
        let notes: ShadowNotes = {
            let log = Arc::clone(&log);
            Arc::new(move |note| log.lock().push(note))
        };
        let mut watermark = Watermark::new(Arc::clone(&tree), Arc::clone(&dirty), notes, b"boot".to_vec());
        assert!(watermark.advance().unwrap(), "the first one records the boot");
        assert!(!watermark.advance().unwrap());
        let before = coarse_now();
        dirty.note(Change::Object(tree.root_key().clone(), Touch::ATTRIBUTES));
        assert!(watermark.advance().unwrap());
        watermark.stop().unwrap();
        let log = log.lock();
        assert_eq!(log.len(), 4);
        assert!(
            matches!(&log[1], ShadowNote::Stable { watermark, boot_id } if *watermark >= before && boot_id == b"boot")
        );
        assert_eq!(log[3], ShadowNote::CleanStop(true));
    }
}
