//! The archive as a feed: all of it, or one lineage of it.

use super::answers::Identity;
use super::feed::{Feed, FeedFile};
use crate::database::archive::{Archive, Durable};
use crate::database::link::BoxFuture;
use ehpc_proto::binlog::GtidState;
use ehpc_proto::binlog::gtid::Uuid;
use ehpc_proto::replication::database::{ArchivedFile, Lineage, Place};
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What replicas are served from an archive.
pub struct ArchiveFeed {
    archive: Arc<Archive>,
    only: Option<u32>,
}

impl ArchiveFeed {
    /// Everything, from one lineage into the next.
    pub fn new(archive: Arc<Archive>) -> ArchiveFeed {
        ArchiveFeed { archive, only: None }
    }

    /// One lineage, as if there were no other: for a restore by position, whose file names may occur in several.
    pub fn of_lineage(archive: Arc<Archive>, lineage: u32) -> ArchiveFeed {
        ArchiveFeed { archive, only: Some(lineage) }
    }

    fn has(&self, lineage: u32) -> bool {
        self.only.is_none_or(|only| only == lineage)
    }

    fn archived(&self) -> Vec<ArchivedFile> {
        let mut files = self.archive.files();
        files.retain(|file| self.has(file.lineage));
        files
    }

    /// The lineage whose end is the end.
    fn lineage(&self) -> Option<Lineage> {
        let number = self.only.unwrap_or_else(|| self.archive.durable().borrow().place.lineage);
        let records = self.archive.lineages().into_iter().map(|record| record.lineage);
        records.into_iter().find(|lineage| lineage.number == number)
    }

    /// How far what is served goes, when `durable` is how far the archive goes.
    fn end_of(&self, durable: &Durable) -> Place {
        match self.only {
            Some(only) if only != durable.place.lineage => {
                self.archived().last().map_or_else(Place::default, |file| Place {
                    lineage: file.lineage,
                    file: file.ordinal,
                    offset: file.len,
                })
            }
            _ => durable.place,
        }
    }
}

impl Feed for ArchiveFeed {
    fn identity(&self) -> Option<Identity> {
        let Lineage { version, flavor, server_id, server_uuid, .. } = self.lineage()?;
        let server_uuid = server_uuid.map(|uuid| Uuid(&uuid).to_string());
        Some(Identity { version, flavor, server_id, server_uuid })
    }

    fn end(&self) -> (Place, GtidState) {
        let durable = self.archive.durable().borrow().clone();
        let place = self.end_of(&durable);
        let known = durable.gtid.filter(|_| place == durable.place);
        let flavor = self.lineage().map_or(ehpc_proto::binlog::Flavor::MariaDb, |lineage| lineage.flavor);
        let gtid = known.or_else(|| self.archive.gtid_at(place).ok());
        (place, gtid.unwrap_or_else(|| GtidState::empty(flavor)))
    }

    fn past(&self, place: Place) -> BoxFuture<'_, Place> {
        let mut durable = self.archive.durable();
        Box::pin(async move {
            loop {
                let end = self.end_of(&durable.borrow_and_update());
                if end > place {
                    return end;
                }
                if durable.changed().await.is_err() {
                    std::future::pending::<()>().await; // the archive is closed: nothing comes any more
                }
            }
        })
    }

    fn files(&self) -> io::Result<Vec<FeedFile>> {
        let files = self.archived().into_iter();
        Ok(files
            .map(|file| FeedFile { lineage: file.lineage, file: file.ordinal, name: file.name })
            .collect())
    }

    fn length(&self, lineage: u32, file: u32) -> io::Result<u64> {
        Ok(self.archive.file(lineage, file).map_err(io::Error::other)?.len)
    }

    fn open(&self, lineage: u32, file: u32) -> io::Result<File> {
        File::open(self.archive.path(lineage, file).map_err(io::Error::other)?)
    }
}
