//! Directories: every name in them, in shares and slices, so that neither size nor depth needs memory.

use super::{Fault, Resolver, is_gone};
use crate::change::shadow::Row;
use crate::change::touch::{Entry, Touch};
use crate::replication::link::Link;
use crate::replication::sender::queue::{Listing, Name, Work};
use ehpc_proto::replication::Kind;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Names, or why there are none.
type Names = Result<Vec<Name>, Fault>;

impl Resolver {
    pub(super) fn listing(&mut self, mut listing: Listing, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(row) = self.view.row_by_key(&listing.dir)? else {
            self.queue.done(listing.take);
            return Ok(());
        };
        if listing.names.is_none() {
            match self.names_in(&row, &mut listing) {
                Ok(names) => {
                    let names = names?;
                    listing.asked = names.len();
                    listing.names = Some(names);
                }
                Err(error) => {
                    self.listing_failed(&row, &listing, &error)?;
                    self.queue.done(listing.take);
                    return Ok(());
                }
            }
        }
        loop {
            self.read_ahead(&mut listing);
            let Some(Name { name, .. }) = listing.names.as_mut().and_then(Vec::pop) else { break };
            let entry = Entry { dir: listing.dir.clone(), name };
            let result = self
                .entry(listing.take, &entry, listing.deep, link)
                .and_then(|_| self.settle(listing.take, link));
            if let Err(fault) = result {
                let name = Name { name: entry.name, is_new_file: false };
                listing.names.get_or_insert_default().push(name);
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

    /// The disk is asked for the next new files before they are read.
    fn read_ahead(&mut self, listing: &mut Listing) {
        let Some(names) = &listing.names else { return };
        if listing.asked == 0 || listing.asked + AHEAD / 2 < names.len() {
            return;
        }
        let Ok(dir) = self.open_dir(&listing.dir) else { return };
        let from = listing.asked.saturating_sub(AHEAD);
        let next = names.get(from..listing.asked).unwrap_or_default();
        let files = next.iter().rev().filter(|name| name.is_new_file).map(|name| name.name.clone());
        self.ahead.ask(&dir, files.collect());
        listing.asked = from;
    }

    pub(super) fn listing_failed(
        &mut self,
        row: &Arc<Row>,
        listing: &Listing,
        error: &io::Error,
    ) -> Result<(), Fault> {
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
        let mut found: Vec<(u64, Name)> = Vec::new();
        self.tree.list(fd.as_fd(), &mut |name, inode, kind| {
            if share_of(name, shares) == share {
                found.push((inode, Name { name: name.into(), is_new_file: kind == Some(Kind::File) }));
            }
            if found.len() > SHARE_NAMES && share == 0 {
                shares *= 2;
                found.retain(|(_, one)| share_of(&one.name, shares) == 0);
            }
            true
        })?;
        listing.shares = shares;
        let known = match self.view.entries(row.id) {
            Ok(known) => known,
            Err(error) => return Ok(Err(error.into())),
        };
        if !known.is_empty() {
            let mut known: HashSet<Vec<u8>> = known.into_iter().map(|(name, _)| name).collect();
            for (_, one) in &mut found {
                one.is_new_file &= !known.remove(&*one.name);
            }
            let gone = known.into_iter().filter(|name| share_of(name, shares) == share);
            found.extend(gone.map(|name| (0, Name { name: name.into(), is_new_file: false })));
        }
        found.sort_unstable_by(|a, b| (b.0, &b.1.name).cmp(&(a.0, &a.1.name)));
        Ok(Ok(found.into_iter().map(|(_, name)| name).collect()))
    }
}

/// Names whose files are asked for at once, before half of those asked for before are read.
const AHEAD: usize = 64;
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
