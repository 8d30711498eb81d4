//! The archive as the binlog server reads it: all of it, or one lineage alone.

use super::answers::Identity;
use super::feed::{Feed, FeedFile};
use crate::database::archive::{Archive, Durable};
use crate::database::link::BoxFuture;
use ehpc_proto::binlog::gtid::Uuid;
use ehpc_proto::binlog::{Flavor, GtidState};
use ehpc_proto::replication::database::{ArchivedFile, Lineage, Place};
use std::fs::File;
use std::io;
use std::sync::Arc;

impl Feed for Archive {
    fn identity(&self) -> Option<Identity> {
        // While a new lineage has nothing durable, the one before is what is served.
        lineage(self, self.durable().borrow().place.lineage).map(identity)
    }

    fn end(&self) -> (Place, GtidState) {
        let Durable { place, gtid, .. } = self.durable().borrow().clone();
        (place, gtid.unwrap_or_else(|| nothing(self, place.lineage)))
    }

    fn past(&self, place: Place) -> BoxFuture<'_, Place> {
        let mut durable = self.durable();
        Box::pin(async move {
            let now = durable.wait_for(|durable| durable.place > place).await.map(|now| now.place);
            match now {
                Ok(now) => now,
                // The archive has ended, and nothing follows any more.
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn files(&self) -> io::Result<Vec<FeedFile>> {
        // Also those that are lost: a replica waits for them, and does not take them for pruned.
        Ok(self.listed().into_iter().map(feed_file).collect())
    }

    fn length(&self, lineage: u32, file: u32) -> io::Result<u64> {
        Ok(self.file(lineage, file).map_err(io::Error::other)?.len)
    }

    fn open(&self, lineage: u32, file: u32) -> io::Result<File> {
        // A replica would go on behind what a file has lost, and behind rot that only the seal shows. It sees by itself
        // where events stop being sound.
        if let Some(damage) = self.known_damage(lineage, file).filter(|damage| damage.at.is_none()) {
            return Err(io::Error::other(format!("it is damaged in the archive: {damage}")));
        }
        File::open(self.path(lineage, file).map_err(io::Error::other)?)
    }
}

/// One lineage of an archive, as if there were no other: for a restore by position, because names of files may occur in
/// several lineages.
pub struct OneLineage {
    archive: Arc<Archive>,
    number: u32,
}

impl OneLineage {
    /// Lineage `number` of `archive`.
    pub fn new(archive: Arc<Archive>, number: u32) -> OneLineage {
        OneLineage { archive, number }
    }

    fn archived(&self) -> impl Iterator<Item = ArchivedFile> {
        let number = self.number;
        self.archive.files().into_iter().filter(move |file| file.lineage == number)
    }

    /// How far it goes, when `durable` is how far the archive goes.
    fn end_at(&self, durable: Place) -> Place {
        let last = || self.archived().last();
        match durable.lineage == self.number {
            true => durable,
            false => last().map_or_else(Place::default, |file| Place {
                lineage: file.lineage,
                file: file.ordinal,
                offset: file.len,
            }),
        }
    }
}

impl Feed for OneLineage {
    fn identity(&self) -> Option<Identity> {
        self.archived().next()?;
        lineage(&self.archive, self.number).map(identity)
    }

    fn end(&self) -> (Place, GtidState) {
        let durable = self.archive.durable().borrow().clone();
        let place = self.end_at(durable.place);
        let known = durable.gtid.filter(|_| place == durable.place);
        let gtid = known.or_else(|| self.archive.gtid_at(place).ok());
        (place, gtid.unwrap_or_else(|| nothing(&self.archive, self.number)))
    }

    fn past(&self, place: Place) -> BoxFuture<'_, Place> {
        let mut durable = self.archive.durable();
        Box::pin(async move {
            loop {
                let now = durable.borrow_and_update().place;
                let end = self.end_at(now);
                if end > place {
                    return end;
                }
                if durable.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }

    fn files(&self) -> io::Result<Vec<FeedFile>> {
        Ok(self.archived().map(feed_file).collect())
    }

    fn length(&self, lineage: u32, file: u32) -> io::Result<u64> {
        Feed::length(self.archive.as_ref(), lineage, file)
    }

    fn open(&self, lineage: u32, file: u32) -> io::Result<File> {
        Feed::open(self.archive.as_ref(), lineage, file)
    }
}

fn feed_file(file: ArchivedFile) -> FeedFile {
    FeedFile { lineage: file.lineage, file: file.ordinal, name: file.name }
}

fn lineage(archive: &Archive, number: u32) -> Option<Lineage> {
    archive.lineages().into_iter().map(|record| record.lineage).find(|lineage| lineage.number == number)
}

fn identity(lineage: Lineage) -> Identity {
    let Lineage { version, flavor, server_id, server_uuid, .. } = lineage;
    Identity { version, flavor, server_id, server_uuid: server_uuid.map(|uuid| Uuid(&uuid).to_string()) }
}

fn nothing(archive: &Archive, number: u32) -> GtidState {
    GtidState::empty(lineage(archive, number).map_or(Flavor::MariaDb, |lineage| lineage.flavor))
}
