//! Writes "newc" cpio archives (initramfs format: Documentation/driver-api/early-userspace/buffer-format).

use anyhow::{Context, Result};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// An archive being appended to a file; directories are made as needed.
pub struct Archive {
    out: BufWriter<File>,
    made: HashSet<String>,
    inode: u32,
}

impl Archive {
    /// Appends to an existing file (the kernel reads concatenated archives).
    pub fn append(path: &Path) -> Result<Archive> {
        let out = OpenOptions::new().append(true).open(path)?;
        Ok(Archive { out: BufWriter::new(out), made: HashSet::new(), inode: 1 })
    }

    /// A regular file with these bytes.
    pub fn file(&mut self, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
        self.parents(name)?;
        self.entry(name, 0o100_000 | mode, bytes)
    }

    /// A copy of a host file, with its permissions; symlinks are followed.
    pub fn host_file(&mut self, name: &str, host: &Path) -> Result<()> {
        let bytes = fs::read(host).with_context(|| format!("reading {}", host.display()))?;
        let mode = fs::metadata(host)?.permissions().mode() & 0o7777;
        self.file(name, &bytes, mode)
    }

    /// Writes the trailer.
    pub fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(())
    }

    fn parents(&mut self, name: &str) -> Result<()> {
        for (end, _) in name.match_indices('/') {
            let parent = &name[..end];
            if self.made.insert(parent.to_owned()) {
                self.entry(parent, 0o040_755, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let size = u32::try_from(bytes.len()).context("a cpio member is limited to 4 GiB")?;
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.inode += 1;
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(bytes)
    }

    fn padded(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().wrapping_neg() % 4])?;
        Ok(())
    }
}
