//! A fresh ext4 on a loop device, so that what ran before on this machine does not weigh on the measurement. The device
//! goes around the page cache below it, as a disk does: else everything lies in memory twice, and what one contender
//! finds there depends on who ran before it.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted until dropped.
pub struct Disk {
    image: PathBuf,
    device: String,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts it below `directory`.
    pub fn mount(directory: &Path, name: &str, gib: u64) -> Result<Disk> {
        let (image, mount) = (directory.join(format!("{name}.img")), directory.join(name));
        std::fs::File::create(&image)?.set_len(gib << 30)?;
        std::fs::create_dir_all(&mount)?;
        run(Command::new("mkfs.ext4")
            .args(["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image))?;
        let attached =
            Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(&image).output()?;
        let device = String::from_utf8(attached.stdout)?.trim().to_owned();
        if !attached.status.success() {
            bail!("losetup: {}", String::from_utf8_lossy(&attached.stderr).trim());
        }
        let disk = Disk { image, device, mount };
        run(Command::new("mount").arg(&disk.device).arg(&disk.mount))?;
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
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
        let _ = std::fs::remove_file(&self.image);
    }
}

/// Everything written, nothing cached, deleted files gone from the image (which would grow to its full size else): each
/// contender begins alike.
pub fn cold(disks: [&Path; 2]) -> Result<()> {
    run(&mut Command::new("sync"))?;
    for disk in disks {
        run(Command::new("fstrim").arg(disk))?;
    }
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("dropping the page cache (needs root)")
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
