//! An application at work on a mount: every step is also done on a model (a local directory), and what is read must
//! be what the model has. No step may fail.
//!
//! It reads commands from standard input: `safe` (from now on only what NFSv3 can repeat after the server lost its
//! reply cache), `all` (everything again), `stop`; it answers `SAFE at n`, `ALL at n`, `STOP at n` when the step that was
//! running has ended. It prints `STEPS n` as it goes on.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

const ALL: u8 = 0;
const SAFE: u8 = 1;
const STOP: u8 = 2;
static COMMAND: AtomicU8 = AtomicU8::new(ALL);

/// Names in use: few, so that steps meet.
const NAMES: u64 = 40;
const DIRECTORIES: u64 = 4;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
}

struct Worker {
    mount: PathBuf,
    model: PathBuf,
    random: Random,
    files: BTreeSet<String>,
    /// Kept open for the whole run: a handle that must stay good whatever happens to names and server.
    kept: File,
    kept_model: File,
}

type Step<T> = Result<T, String>;

/// Says which step failed.
fn step<T, E: Display>(what: &str, name: &str, result: Result<T, E>) -> Step<T> {
    result.map_err(|error| format!("{what} {name}: {error}"))
}

/// Works until told to stop. Paths are used relative to the current directory, which is `mount`: its own name and
/// those above it may change meanwhile.
pub(crate) fn run(mount: &Path, model: &Path, seed: &str) -> Result<(), String> {
    let seed: u64 = step("parse", seed, seed.parse())?;
    std::thread::spawn(|| {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command = match line.trim() {
                "safe" => SAFE,
                "all" => ALL,
                _ => STOP,
            };
            COMMAND.store(command, Ordering::Relaxed);
        }
    });
    let model = step("resolve", "the model", fs::canonicalize(model))?;
    step("enter", "the mount", std::env::set_current_dir(mount))?;
    let mount = PathBuf::new();
    let open = |at: &Path| OpenOptions::new().read(true).write(true).create_new(true).open(at.join("kept"));
    for directory in 0..DIRECTORIES {
        for root in [&mount, &model] {
            step("mkdir", "d", fs::create_dir(root.join(format!("d{directory}"))))?;
        }
    }
    let kept = step("create", "kept", open(&mount))?;
    let kept_model = step("create", "kept (model)", open(&model))?;
    let mut worker =
        Worker { mount, model, random: Random(seed | 1), files: BTreeSet::new(), kept, kept_model };
    let mut acknowledged = ALL;
    for count in 0_u64.. {
        let command = COMMAND.load(Ordering::Relaxed);
        if command != acknowledged {
            acknowledged = command;
            println!("{} at {count}", ["ALL", "SAFE", "STOP"][usize::from(command.min(STOP))]);
        }
        if command == STOP {
            break;
        }
        worker.one(command == ALL).map_err(|error| format!("step {count} of seed {seed}: {error}"))?;
        if count % 20 == 0 {
            println!("STEPS {count}");
        }
    }
    step("fsync", "kept", worker.kept.sync_all())?;
    worker.whole_tree()
}

impl Worker {
    /// One step; what NFSv3 cannot repeat only if `all`.
    fn one(&mut self, all: bool) -> Step<()> {
        match self.random.below(if all { 14 } else { 8 }) {
            0 | 1 => self.write(),
            2 => self.append(),
            3 | 4 => self.read(),
            5 => self.truncate(),
            6 => self.kept(),
            7 => self.listing(),
            8..=10 => self.rename(),
            11 => self.link(),
            12 => self.remove(),
            _ => self.directory(),
        }
    }

    fn new_name(&mut self) -> String {
        format!("d{}/f{}", self.random.below(DIRECTORIES), self.random.below(NAMES))
    }

    fn existing(&mut self) -> Option<String> {
        let at = self.random.below(self.files.len().max(1) as u64) as usize;
        self.files.iter().nth(at).cloned()
    }

    fn content(&mut self, limit: u64) -> Vec<u8> {
        let length = self.random.below(limit);
        (0..length.div_ceil(8)).flat_map(|_| self.random.below(u64::MAX).to_le_bytes()).collect()
    }

    fn write(&mut self) -> Step<()> {
        let name = self.new_name();
        let bytes = self.content(60_000);
        let durable = self.random.below(3) == 0;
        for root in [&self.mount, &self.model] {
            let mut file = step("create", &name, File::create(root.join(&name)))?;
            step("write", &name, file.write_all(&bytes))?;
            if durable {
                step("fsync", &name, file.sync_all())?;
            }
        }
        self.files.insert(name);
        Ok(())
    }

    fn append(&mut self) -> Step<()> {
        let Some(name) = self.existing() else { return Ok(()) };
        let bytes = self.content(5_000);
        for root in [&self.mount, &self.model] {
            let mut file =
                step("open for appending", &name, OpenOptions::new().append(true).open(root.join(&name)))?;
            step("append", &name, file.write_all(&bytes))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Step<()> {
        let Some(name) = self.existing() else { return Ok(()) };
        let here = step("read", &name, fs::read(self.mount.join(&name)))?;
        let expected = step("read (model)", &name, fs::read(self.model.join(&name)))?;
        if here != expected {
            return Err(format!("{name}: {} bytes read are not what was written", here.len()));
        }
        Ok(())
    }

    fn truncate(&mut self) -> Step<()> {
        let Some(name) = self.existing() else { return Ok(()) };
        let length = self.random.below(100_000);
        for root in [&self.mount, &self.model] {
            let file = step("open", &name, OpenOptions::new().write(true).open(root.join(&name)))?;
            step("truncate", &name, file.set_len(length))?;
        }
        Ok(())
    }

    fn kept(&mut self) -> Step<()> {
        let offset = self.random.below(200_000);
        let bytes = self.content(10_000);
        for file in [&self.kept, &self.kept_model] {
            step("write to", "kept", file.write_all_at(&bytes, offset))?;
        }
        let mut back = vec![0; bytes.len()];
        step("fsync", "kept", self.kept.sync_data())?;
        step("read from", "kept", self.kept.read_exact_at(&mut back, offset))?;
        let sizes = [&self.kept, &self.kept_model].map(|file| file.metadata().map(|meta| meta.size()).ok());
        if back != bytes || sizes[0] != sizes[1] {
            return Err(format!("kept: not what was written at {offset}; sizes {sizes:?}"));
        }
        Ok(())
    }

    fn listing(&mut self) -> Step<()> {
        let directory = format!("d{}", self.random.below(DIRECTORIES));
        let names = |root: &Path| -> Step<BTreeSet<_>> {
            let entries = step("list", &directory, fs::read_dir(root.join(&directory)))?;
            entries.map(|entry| step("list", &directory, entry).map(|entry| entry.file_name())).collect()
        };
        let (here, expected) = (names(&self.mount)?, names(&self.model)?);
        if here != expected {
            return Err(format!("{directory} lists {here:?}, expected {expected:?}"));
        }
        Ok(())
    }

    fn rename(&mut self) -> Step<()> {
        let (Some(from), to) = (self.existing(), self.new_name()) else { return Ok(()) };
        for root in [&self.mount, &self.model] {
            step("rename", &format!("{from} {to}"), fs::rename(root.join(&from), root.join(&to)))?;
        }
        // Two names of one file: POSIX does nothing, so look.
        if fs::symlink_metadata(self.model.join(&from)).is_err() {
            self.files.remove(&from);
        }
        self.files.insert(to);
        Ok(())
    }

    fn link(&mut self) -> Step<()> {
        let (Some(from), to) = (self.existing(), self.new_name()) else { return Ok(()) };
        if self.files.contains(&to) {
            return Ok(());
        }
        for root in [&self.mount, &self.model] {
            step("link", &format!("{from} {to}"), fs::hard_link(root.join(&from), root.join(&to)))?;
        }
        self.files.insert(to);
        Ok(())
    }

    fn remove(&mut self) -> Step<()> {
        let Some(name) = self.existing() else { return Ok(()) };
        for root in [&self.mount, &self.model] {
            step("unlink", &name, fs::remove_file(root.join(&name)))?;
        }
        self.files.remove(&name);
        Ok(())
    }

    fn directory(&mut self) -> Step<()> {
        let name = format!("d{}/sub", self.random.below(DIRECTORIES));
        for root in [&self.mount, &self.model] {
            step("mkdir", &name, fs::create_dir(root.join(&name)))?;
            step("rmdir", &name, fs::remove_dir(root.join(&name)))?;
        }
        Ok(())
    }

    /// Everything once more: names and bytes.
    fn whole_tree(&mut self) -> Step<()> {
        for name in self.files.iter().cloned().chain(["kept".to_owned()]) {
            let here = step("read", &name, fs::read(self.mount.join(&name)))?;
            let expected = step("read (model)", &name, fs::read(self.model.join(&name)))?;
            if here != expected {
                return Err(format!("{name}: at the end, {} bytes that were not written", here.len()));
            }
        }
        println!("WORKED {} files", self.files.len());
        Ok(())
    }
}
