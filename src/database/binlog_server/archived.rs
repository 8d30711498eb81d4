//! The archive as the binlog server reads it.

use super::answers::Identity;
use super::feed::{Feed, FeedFile};
use crate::database::archive::Archive;
use crate::database::link::BoxFuture;
use ehpc_proto::binlog::{Flavor, GtidState};
use ehpc_proto::replication::database::Place;
use std::fs::File;
use std::io;

impl Feed for Archive {
    fn identity(&self) -> Option<Identity> {
        let newest = self.lineages().pop()?.lineage;
        Some(Identity {
            version: newest.version,
            flavor: newest.flavor,
            server_id: newest.server_id,
            server_uuid: newest.server_uuid.map(uuid),
        })
    }

    fn end(&self) -> (Place, GtidState) {
        let durable = self.durable().borrow().clone();
        let flavor = self.lineages().last().map_or(Flavor::MariaDb, |record| record.lineage.flavor);
        (durable.place, durable.gtid.unwrap_or_else(|| GtidState::empty(flavor)))
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
        let files = Archive::files(self).into_iter();
        Ok(files
            .map(|file| FeedFile { lineage: file.lineage, file: file.ordinal, name: file.name })
            .collect())
    }

    fn open(&self, lineage: u32, file: u32) -> io::Result<File> {
        File::open(self.path(lineage, file).map_err(io::Error::other)?)
    }
}

/// As `server_uuid` is written.
fn uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
