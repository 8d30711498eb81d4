//! Directories: every name in them, in shares and slices, so that neither size nor depth needs memory.

use super::{Fault, Resolver, is_gone};
use crate::change::shadow::Row;
use crate::change::touch::{Entry, Touch};
use crate::replication::link::Link;
use crate::replication::sender::queue::{Listing, Work};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Names, or why there are none.
type Names = Result<Vec<Box<[u8]>>, Fault>;

impl Resolver {
    pub(super) fn listing(&mut self, mut listing: Listing, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row_by_key(&listing.dir)? else {
            self.queue.done(listing.take);
            return Ok(());
        };
        if listing.names.is_none() {
            match self.names_in(&row, &mut listing) {
                Ok(names) => listing.names = Some(names?),
                Err(error) => {
                    self.listing_failed(&row, &listing, &error)?;
                    self.queue.done(listing.take);
                    return Ok(());
                }
            }
        }
        while let Some(name) = listing.names.as_mut().and_then(Vec::pop) {
            let entry = Entry { dir: listing.dir.clone(), name };
            let result = self
                .entry(listing.take, &entry, listing.deep, link)
                .and_then(|_| self.settle(listing.take, link));
            if let Err(fault) = result {
                listing.names.get_or_insert_default().push(entry.name);
                self.queue.put_listing_back(listing);
                return Err(fault);
            }
            if self.is_full() {
                self.queue.put_listing_back(listing);
                return Ok(());
            }
        }
        listing.share += 1;
        if listing.share < listing.shares {
            listing.names = None;
            self.queue.put_listing_back(listing);
        } else {
            self.status.readable(&listing.dir);
            self.restat.insert(row.id);
            self.queue.done(listing.take);
        }
        Ok(())
    }

    pub(super) fn listing_failed(&mut self, row: &Arc<Row>, listing: &Listing, error: &io::Error) -> Result<(), Fault> {
        if is_gone(error) {
            self.queue.spawn(listing.take, Work::Object(row.key.clone(), Touch::ATTRIBUTES));
            return Ok(());
        }
        let path = self.view.path_of(row.id)?.unwrap_or_default();
        let entry = self.an_entry(row.id)?;
        self.not_readable(&row.key, entry.as_ref(), path, format!("cannot list it: {error}"));
        Ok(())
    }

    /// The names of the share that is due, on the disk or known, in order of inode from the end (which is how they
    /// lie on a disk). The outer error is the directory's, the inner one the shadow's.
    pub(super) fn names_in(&mut self, row: &Row, listing: &mut Listing) -> io::Result<Names> {
        let fd = self.open_dir(&row.key)?;
        let (share, mut shares) = (listing.share, listing.shares);
        let mut found: Vec<(u64, Box<[u8]>)> = Vec::new();
        self.tree.list(fd.as_fd(), &mut |name, inode, _| {
            if share_of(name, shares) == share {
                found.push((inode, name.into()));
            }
            if found.len() > SHARE_NAMES && share == 0 {
                shares *= 2;
                found.retain(|(_, name)| share_of(name, shares) == 0);
            }
            true
        })?;
        listing.shares = shares;
        let known = match self.view.entries(row.id) {
            Ok(known) => known,
            Err(error) => return Ok(Err(error.into())),
        };
        if !known.is_empty() {
            let listed: std::collections::HashSet<Box<[u8]>> = found.iter().map(|(_, name)| name.clone()).collect();
            let gone = known.into_iter().map(|(name, _)| name.into_boxed_slice());
            found.extend(gone.filter(|name| share_of(name, shares) == share && !listed.contains(name)).map(|name| (0, name)));
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Ok(found.into_iter().map(|(_, name)| name).collect()))
    }
}

/// Names that are held at once.
const SHARE_NAMES: usize = 100_000;

/// Which of `shares` (a power of two) a name belongs to.
fn share_of(name: &[u8], shares: u32) -> u32 {
    if shares == 1 {
        return 0;
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in name {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    (hash ^ (hash >> 16)) & (shares - 1)
}
