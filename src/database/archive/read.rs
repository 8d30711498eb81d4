//! Reading files of the archive, never past what is durable.

use super::error::ArchiveError;
use super::seal;
use super::tail::file_name;
use super::{Archive, Shared};
use crate::store::pack::disk::PackFile;
use ehpc_proto::replication::Hash;
use std::io::{self, Read};
use std::sync::Arc;

const READ: usize = 1024 * 1024;

/// Reads one file. At the durable end it reads 0 bytes; later there may be more.
pub struct FileReader {
    shared: Arc<Shared>,
    file: Arc<dyn PackFile>,
    key: (u32, u32),
    at: u64,
}

impl FileReader {
    /// Offset of the next byte.
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.shared.file(self.key.0, self.key.1).map_or(0, |file| file.len);
        let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Something that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// Where its events stop being sound; `None`: somewhere (only the hash of the whole differs).
    pub at: Option<u64>,
    /// For people.
    pub reason: String,
}

impl Archive {
    /// Opens a file at an offset.
    ///
    /// # Errors
    ///
    /// It is not in the archive.
    pub fn read(&self, lineage: u32, ordinal: u32, from: u64) -> Result<FileReader, ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        let path = file_name(lineage, &file.name);
        let opened = self.disk.open(&path);
        let opened = opened.map_err(|source| ArchiveError::Io {
            action: "open",
            path: self.disk.path(&path),
            source,
        })?;
        Ok(FileReader { shared: self.shared.clone(), file: opened, key: (lineage, ordinal), at: from })
    }

    /// BLAKE3 of a range.
    ///
    /// # Errors
    ///
    /// The file is not in the archive or shorter, or cannot be read.
    pub fn hash(&self, lineage: u32, ordinal: u32, from: u64, to: u64) -> Result<Hash, ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        if to > file.len {
            return Err(ArchiveError::PastEnd { name: file.name, position: to, end: file.len });
        }
        let mut reader = self.read(lineage, ordinal, from)?.take(to - from);
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; READ]);
        let mut left = to - from;
        loop {
            let read = reader.read(&mut buffer).map_err(|source| ArchiveError::Io {
                action: "read",
                path: self.disk.path(&file_name(lineage, &file.name)),
                source,
            })?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            left -= read as u64;
        }
        if left > 0 {
            let reason = format!("it ends {left} bytes early");
            return Err(ArchiveError::Damaged { name: file.name, reason });
        }
        Ok(Hash(*hasher.finalize().as_bytes()))
    }

    /// Reads a whole file: checksum and position of each event, and the hash that it was sealed with. `stop` ends it
    /// early, as an I/O error of kind `Interrupted`.
    ///
    /// # Errors
    ///
    /// The file is not in the archive, or cannot be read.
    pub fn check(
        &self,
        lineage: u32,
        ordinal: u32,
        stop: &dyn Fn() -> bool,
    ) -> Result<Vec<Damage>, ArchiveError> {
        let file = self.file(lineage, ordinal)?;
        let path = file_name(lineage, &file.name);
        let failed = |source| ArchiveError::Io { action: "read", path: self.disk.path(&path), source };
        let opened = self.disk.open(&path).map_err(failed)?;
        let read = seal::read(&*opened, file.len, stop).map_err(failed)?;
        let mut damage = Vec::new();
        if let Some((at, reason)) = &read.fault {
            damage.push(Damage { at: Some(*at), reason: reason.clone() });
        }
        if let Some(seal) = seal::load(&*self.disk, &path).filter(|_| file.closed) {
            if seal.len != read.len {
                let reason = format!("it has {} bytes, and had {} when it was sealed", read.len, seal.len);
                damage.push(Damage { at: None, reason });
            } else if seal.blake3 != read.hash.to_string() && damage.is_empty() {
                let reason = "its bytes are not those that were sealed".to_owned();
                damage.push(Damage { at: None, reason });
            }
        }
        Ok(damage)
    }

    /// Seals complete files that are not sealed yet. Reads each of them once; call it from time to time, on a thread of
    /// its own. Gives what is wrong with those that cannot be sealed, by name.
    ///
    /// # Errors
    ///
    /// The disk; `stop`.
    pub fn maintain(&self, stop: &dyn Fn() -> bool) -> Result<Vec<(String, String)>, ArchiveError> {
        let mut wrong = Vec::new();
        for file in self.files().into_iter().filter(|file| file.closed) {
            let path = file_name(file.lineage, &file.name);
            if seal::is_sealed(&*self.disk, &path) {
                continue;
            }
            let failed = |source| ArchiveError::Io { action: "seal", path: self.disk.path(&path), source };
            let opened = self.disk.open(&path).map_err(failed)?;
            let read = seal::read(&*opened, file.len, stop).map_err(failed)?;
            match read.fault {
                Some((_, reason)) => wrong.push((file.name, reason)),
                None => seal::write(&*self.disk, &path, &read).map_err(failed)?,
            }
        }
        Ok(wrong)
    }
}
