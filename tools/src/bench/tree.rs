//! Input for the benchmarks: trees of small files and big incompressible files, from a seed.

use anyhow::Result;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// SplitMix64: small, seeded, good enough for content.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fills with incompressible bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            piece.copy_from_slice(&bytes[..piece.len()]);
        }
    }
}

/// `files` files of 200 bytes to 8 KiB of text-like content, 100 to a directory.
pub fn small_files(root: &Path, files: u64, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let mut buffer = vec![0; 8192];
    for number in 0..files {
        if number % 100 == 0 {
            std::fs::create_dir_all(directory(root, number))?;
        }
        let length = 200 + (random.next() % 7992) as usize;
        for piece in buffer[..length].chunks_mut(16) {
            let line = format!("{:015x}\n", random.next() >> 20);
            piece.copy_from_slice(&line.as_bytes()[..piece.len()]);
        }
        File::create(directory(root, number).join(format!("file-{number:07}")))?
            .write_all(&buffer[..length])?;
    }
    Ok(())
}

fn directory(root: &Path, number: u64) -> std::path::PathBuf {
    root.join(format!("d{:03}/e{:03}", number / 10_000, number / 100 % 100))
}

/// One file of `bytes` incompressible bytes.
pub fn big_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let mut file = File::create(path)?;
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        random.fill(&mut buffer);
        let n = left.min(buffer.len() as u64) as usize;
        file.write_all(&buffer[..n])?;
        left -= n as u64;
    }
    file.sync_all()?;
    Ok(())
}
