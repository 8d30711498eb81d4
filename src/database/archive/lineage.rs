//! What a lineage's folder says of itself: `lineage.json`, written once, and `files`, the names of its binary logs in order.

use super::disk::{ArchiveDisk, folder};
use super::error::ArchiveError;
use crate::store::pack::disk::PackFile;
use ehpc_proto::replication::database::{Joined, Lineage, name_is_valid};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Largest of both files, bytes: 64 MiB of names are some million files.
const MAX: u64 = 64 * 1024 * 1024;

/// One lineage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LineageRecord {
    /// Which server.
    pub lineage: Lineage,
    /// Where it goes on from, after a failover.
    pub joined: Option<Joined>,
}

pub(super) fn record_name(lineage: u32) -> String {
    format!("{}/lineage.json", folder(lineage))
}

pub(super) fn list_name(lineage: u32) -> String {
    format!("{}/files", folder(lineage))
}

/// All bytes of a file that is small.
pub(super) fn read_whole(file: &dyn PackFile) -> io::Result<Vec<u8>> {
    let length = file.len()?;
    if length > MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too long"));
    }
    let mut bytes = vec![0; length as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Begins a lineage's folder; everything is on the disk when this returns.
pub(super) fn create(disk: &dyn ArchiveDisk, record: &LineageRecord) -> io::Result<()> {
    let number = record.lineage.number;
    disk.make_folder(&folder(number))?;
    disk.sync_directory()?;
    let mut text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
    text.push(b'\n');
    let file = disk.create(&record_name(number))?;
    file.write_at([&text, &[]], 0)?;
    file.sync()?;
    disk.sync_folder(&folder(number))
}

/// Reads `lineage.json`; `None`: it is torn or not there.
pub(super) fn load(disk: &dyn ArchiveDisk, number: u32) -> Result<Option<LineageRecord>, ArchiveError> {
    let name = record_name(number);
    let file = match disk.open(&name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ArchiveError::Io { action: "open", path: disk.path(&name), source }),
    };
    let text = read_whole(&*file);
    let text = text.map_err(|source| ArchiveError::Io { action: "read", path: disk.path(&name), source })?;
    let record: Option<LineageRecord> = serde_json::from_slice(&text).ok();
    Ok(record.filter(|record| record.lineage.number == number && text.ends_with(b"\n")))
}

/// The names in `files`, and how many bytes of it they take: what follows is torn.
pub(super) fn names(disk: &dyn ArchiveDisk, number: u32) -> io::Result<(Vec<String>, u64)> {
    let file = match disk.open(&list_name(number)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let bytes = read_whole(&*file)?;
    let (mut names, mut used) = (Vec::new(), 0u64);
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let name = line.strip_suffix(b"\n").and_then(|name| std::str::from_utf8(name).ok());
        let Some(name) = name.filter(|name| name_is_valid(name)) else { break };
        names.push(name.to_owned());
        used += line.len() as u64;
    }
    Ok((names, used))
}

/// Where the path of a lineage's record is, for errors.
pub(super) fn record_path(disk: &dyn ArchiveDisk, number: u32) -> PathBuf {
    disk.path(&record_name(number))
}
