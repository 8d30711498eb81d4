//! Reading files of the archive, never past what is durable.

use super::error::ArchiveError;
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
}
