//! A disk in memory that crashes, fills up and fails, by a seed.

use super::disk::{Disk, PackFile};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Error, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;

const SECTOR: usize = 512;

enum Op {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Default)]
struct File {
    /// What a reader sees (the page cache).
    visible: Vec<u8>,
    /// What is surely on the disk.
    durable: Vec<u8>,
    /// What may be there or not, in any part of it.
    unsynced: Vec<Op>,
    /// The name is surely on the disk.
    named: bool,
}

impl File {
    fn apply(bytes: &mut Vec<u8>, op: &Op) {
        match op {
            Op::Write(offset, data) => {
                let (from, to) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(data);
            }
            Op::Truncate(len) => bytes.resize(*len as usize, 0),
        }
    }

    /// Some sectors of each write, lengths as of some moment.
    fn apply_torn(&mut self, rng: &mut StdRng) {
        let kept = rng.random_range(0..=self.unsynced.len());
        let lost = [0.0, 0.1, 0.5][rng.random_range(0..3)];
        for (index, op) in std::mem::take(&mut self.unsynced).iter().enumerate() {
            match op {
                Op::Truncate(_) if index < kept => File::apply(&mut self.durable, op),
                Op::Write(offset, data) if index < kept || rng.random_bool(0.2) => {
                    let end = *offset as usize + data.len();
                    if index < kept && self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    for (at, byte) in data.chunks(SECTOR).enumerate() {
                        let from = *offset as usize + at * SECTOR;
                        let fits = from + byte.len() <= self.durable.len();
                        if fits && !rng.random_bool(lost) {
                            self.durable[from..from + byte.len()].copy_from_slice(byte);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

struct State {
    files: BTreeMap<String, File>,
    rng: StdRng,
    /// Bytes that all files may have together.
    capacity: u64,
    /// The next so many syncs fail, each losing what it should have written.
    failing_syncs: u32,
    /// Files that give an error when they are read.
    unreadable: BTreeSet<String>,
    /// Every call fails from now on, until the crash.
    dead: bool,
    /// Calls that may still be made before the disk is dead.
    calls_left: u64,
}

impl State {
    fn alive(&mut self) -> io::Result<()> {
        if self.calls_left == 0 {
            self.dead = true;
        }
        self.calls_left = self.calls_left.saturating_sub(1);
        if self.dead { Err(Error::other("the machine is off")) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.files.values().map(|file| file.visible.len() as u64).sum()
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> SimulatedDisk {
        SimulatedDisk(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            rng: StdRng::seed_from_u64(seed),
            capacity: u64::MAX,
            failing_syncs: 0,
            unreadable: BTreeSet::new(),
            dead: false,
            calls_left: u64::MAX,
        })))
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    pub(crate) fn used(&self) -> u64 {
        self.0.lock().used()
    }

    pub(crate) fn fail_syncs(&self, count: u32) {
        self.0.lock().failing_syncs = count;
    }

    /// Whoever reads this file gets EIO, or no more.
    pub(crate) fn fail_reads(&self, name: &str, fail: bool) {
        let mut state = self.0.lock();
        match fail {
            true => drop(state.unreadable.insert(name.to_owned())),
            false => drop(state.unreadable.remove(name)),
        }
    }

    /// The power goes after so many more calls.
    pub(crate) fn die_after(&self, calls: u64) {
        self.0.lock().calls_left = calls;
    }

    /// Power cut and start: what was not synced is there, or not, or in part.
    pub(crate) fn crash(&self) {
        let mut state = self.0.lock();
        let State { files, rng, dead, calls_left, failing_syncs, capacity, .. } = &mut *state;
        files.retain(|_, file| {
            file.apply_torn(rng);
            file.visible = file.durable.clone();
            let kept = file.named || rng.random_bool(0.5);
            file.named = kept;
            kept
        });
        // What lies in a folder goes with it.
        let folders: Vec<String> = files.keys().cloned().collect();
        files.retain(|name, _| name.split_once('/').is_none_or(|(of, _)| folders.iter().any(|f| f == of)));
        *dead = false;
        *calls_left = u64::MAX;
        *failing_syncs = 0;
        *capacity = u64::MAX;
    }

    /// Only the process died: the page cache is as it was.
    pub(crate) fn restart(&self) {
        let mut state = self.0.lock();
        state.dead = false;
        state.calls_left = u64::MAX;
        state.failing_syncs = 0;
        state.capacity = u64::MAX;
    }

    /// Changes one bit of what is on the disk.
    pub(crate) fn flip(&self, name: &str, offset: u64, bit: u8) {
        let mut state = self.0.lock();
        let file = state.files.get_mut(name).unwrap();
        file.visible[offset as usize] ^= 1 << bit;
        file.durable[offset as usize] ^= 1 << bit;
    }

    pub(crate) fn len(&self, name: &str) -> u64 {
        self.0.lock().files[name].visible.len() as u64
    }
}

/// Folders: a file in one is named `FOLDER/NAME`.
impl SimulatedDisk {
    pub(crate) fn make_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.files.entry(folder.to_owned()).or_default();
        Ok(())
    }

    /// Names without the folder's; with `None` those that lie in no folder.
    pub(crate) fn names_in(&self, folder: Option<&str>) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.alive()?;
        let split = state.files.keys().map(|name| match name.split_once('/') {
            Some((of, name)) => (Some(of), name),
            None => (None, name.as_str()),
        });
        Ok(split.filter(|(of, _)| *of == folder).map(|(_, name)| name.to_owned()).collect())
    }

    /// Makes creations and removals in one folder durable.
    pub(crate) fn sync_names_in(&self, folder: Option<&str>) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        for (name, file) in &mut state.files {
            file.named |= name.split_once('/').map(|(of, _)| of) == folder;
        }
        Ok(())
    }

    /// The bytes that a reader sees.
    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.0.lock().files.get(name).map(|file| file.visible.clone())
    }

    /// Takes a file away, as a person might.
    pub(crate) fn lose(&self, name: &str) {
        self.0.lock().files.remove(name);
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.0.lock();
        state.alive()?;
        Ok(state.files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn PackFile>> {
        let mut state = self.0.lock();
        state.alive()?;
        if state.files.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), File::default());
        Ok(Arc::new(SimulatedFile(self.clone(), name.to_owned())))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn PackFile>> {
        let mut state = self.0.lock();
        state.alive()?;
        match state.files.contains_key(name) {
            true => Ok(Arc::new(SimulatedFile(self.clone(), name.to_owned()))),
            false => Err(ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.alive()?;
        state.files.remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.sync_names_in(None)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
}

struct SimulatedFile(SimulatedDisk, String);

impl SimulatedFile {
    fn with<T>(&self, act: impl FnOnce(&mut State, &str) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.0.lock();
        state.alive()?;
        if !state.files.contains_key(&self.1) {
            return Err(ErrorKind::NotFound.into());
        }
        act(&mut state, &self.1)
    }

    fn change(state: &mut State, name: &str, op: Op) {
        let file = state.files.get_mut(name).unwrap();
        File::apply(&mut file.visible, &op);
        file.unsynced.push(op);
    }
}

impl PackFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, name| {
            if state.unreadable.contains(name) {
                return Err(Error::from_raw_os_error(5));
            }
            let held = state.files[name].visible.get(offset as usize..).unwrap_or_default();
            let len = held.len().min(buffer.len());
            buffer[..len].copy_from_slice(&held[..len]);
            Ok(len)
        })
    }

    fn write_at(&self, parts: [&[u8]; 2], offset: u64) -> io::Result<()> {
        let data = parts.concat();
        // A machine that goes off in the middle of a write has written a part of it.
        let result = self.with(|state, name| {
            let grows = (offset + data.len() as u64).saturating_sub(state.files[name].visible.len() as u64);
            let free = state.capacity.saturating_sub(state.used());
            if grows > free {
                let fits = data.len() - (grows - free) as usize;
                Self::change(state, name, Op::Write(offset, data[..fits].to_vec()));
                return Err(ErrorKind::StorageFull.into());
            }
            Self::change(state, name, Op::Write(offset, data.clone()));
            Ok(())
        });
        if result.is_err() && self.0.0.lock().dead && self.0.0.lock().files.contains_key(&self.1) {
            let mut state = self.0.0.lock();
            let part = state.rng.random_range(0..=data.len());
            Self::change(&mut state, &self.1, Op::Write(offset, data[..part].to_vec()));
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, name| Ok(state.files[name].visible.len() as u64))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.with(|state, name| {
            Self::change(state, name, Op::Truncate(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, name| {
            let State { files, rng, failing_syncs, .. } = state;
            let file = files.get_mut(name).unwrap();
            if *failing_syncs > 0 {
                // As Linux does it: reported once, the pages stay readable and count as clean.
                *failing_syncs -= 1;
                file.apply_torn(rng);
                return Err(Error::from_raw_os_error(5));
            }
            for op in std::mem::take(&mut file.unsynced) {
                File::apply(&mut file.durable, &op);
            }
            Ok(())
        })
    }
}
