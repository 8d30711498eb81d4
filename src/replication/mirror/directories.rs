//! Open descriptors of the mirror's directories by object, a bounded number of them. A descriptor stays good when
//! its directory is moved, so only removal drops it.

use ehpc_proto::replication::ObjectId;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Most descriptors held. (The default limit of a process is 1,024, shared with connections and packs.)
const MOST: usize = 256;

/// A directory that is open.
#[derive(Clone)]
pub(super) struct Directory {
    pub(super) fd: Arc<OwnedFd>,
    /// It has a default ACL, which what is created in it would get.
    pub(super) bequeaths: bool,
}

#[derive(Default)]
pub(super) struct Directories {
    open: HashMap<ObjectId, (Directory, u64)>,
    clock: u64,
}

impl Directories {
    pub(super) fn get(&mut self, id: ObjectId) -> Option<Directory> {
        self.clock += 1;
        let (directory, used) = self.open.get_mut(&id)?;
        *used = self.clock;
        Some(directory.clone())
    }

    pub(super) fn insert(&mut self, id: ObjectId, directory: Directory) {
        if self.open.len() >= MOST {
            // Drop the older half: rare enough that finding it may cost.
            let mut ages: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
            let middle = ages.len() / 2;
            let (_, &mut median, _) = ages.select_nth_unstable(middle);
            self.open.retain(|_, (_, used)| *used > median);
        }
        self.clock += 1;
        self.open.insert(id, (directory, self.clock));
    }

    pub(super) fn forget(&mut self, id: ObjectId) {
        self.open.remove(&id);
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
    }
}
