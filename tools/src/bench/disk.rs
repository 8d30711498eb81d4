//! A fresh ext4 on a loop device, so that what ran before on this machine does not weigh on the measurement.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts it below `directory`.
    pub fn mount(directory: &Path, name: &str, gib: u64) -> Result<Disk> {
        let disk = Disk { image: directory.join(format!("{name}.img")), mount: directory.join(name) };
        std::fs::File::create(&disk.image)?.set_len(gib << 30)?;
        std::fs::create_dir_all(&disk.mount)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&disk.image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&disk.image).arg(&disk.mount))?;
        Ok(disk)
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
