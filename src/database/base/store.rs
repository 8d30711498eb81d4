//! The base snapshots on the backup: a store of their own, in which base N is batch N.

use super::compact;
use super::content::objects_of;
use super::error::BaseError;
use super::read::{BaseReader, fetch};
use super::record::BaseRecord;
use super::sink::apply;
use crate::store::manifest::chunks_of;
use crate::store::{Options, Store, Writer};
use ehpc_proto::replication::{Manifest, ObjectId};
use parking_lot::RwLock;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A record is names and numbers; one that is longer is not read.
const MAX_RECORD: u64 = 256 << 20;
/// Chunks that are looked up at once.
const ASKED: usize = 4096;
/// How often what arrived without a batch is entered into the catalog.
const LOOK: Duration = Duration::from_secs(5);

/// What was read of the bases.
#[derive(Default)]
struct Known {
    /// Up to this batch.
    seen: u64,
    records: Vec<BaseRecord>,
}

/// All base snapshots. Dropped, its thread ends.
pub struct BaseStore {
    store: Arc<Store>,
    known: Arc<RwLock<Known>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl BaseStore {
    /// Opens (and makes) the store in `directory`. Space of bases that are not among the newest `keep` (and have no label)
    /// is given back first, when that is worth it.
    pub fn open(directory: &Path, keep: u32) -> Result<BaseStore, BaseError> {
        compact::compact(directory, keep)?;
        let (store, _) = open_store(directory)?;
        let mut writer = store.writer()?;
        apply(&store, &mut writer)?;
        let known = Arc::new(RwLock::new(Known::default()));
        refresh(&store, &known);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (store, known, stop) = (store.clone(), known.clone(), stop.clone());
            let run = move || follow(&store, writer, &known, &stop);
            std::thread::Builder::new().name("bases".into()).spawn(run)
        };
        let thread = thread.map_err(|source| BaseError::File { what: "a thread".to_owned(), source })?;
        Ok(BaseStore { store, known, stop, thread: Some(thread) })
    }

    /// The store itself, for those who receive.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// All bases, oldest first.
    pub fn list(&self) -> Vec<BaseRecord> {
        // The thread may not have seen the newest yet.
        refresh(&self.store, &self.known);
        self.known.read().records.clone()
    }

    /// One of them.
    pub fn record(&self, number: u64) -> Result<BaseRecord, BaseError> {
        let found = self.list().into_iter().find(|record| record.number == number);
        found.ok_or(BaseError::Unknown { number })
    }

    /// The SQL of a base.
    pub fn read(&self, number: u64) -> Result<BaseReader, BaseError> {
        let manifest =
            manifest(&self.store, number, objects_of(number).0)?.ok_or(BaseError::Unknown { number })?;
        Ok(BaseReader::open(self.store.clone(), &manifest)?)
    }

    /// Is everything of a base there? Chunks are looked up, not read: see [`BaseStore::verify`].
    pub fn is_whole(&self, number: u64) -> Result<(), BaseError> {
        let of = objects_of(number).0;
        let manifest = manifest(&self.store, number, of)?.ok_or(BaseError::Unknown { number })?;
        let chunks = chunks_of(&manifest, &mut fetch(&self.store))?;
        for some in chunks.chunks(ASKED) {
            let lacking = self.store.lacking(some)?.into_iter().filter(|lacks| *lacks).count();
            if lacking > 0 {
                let reason = format!("{lacking} chunks of it are not in the store");
                return Err(BaseError::Damaged { number, reason });
            }
        }
        Ok(())
    }

    /// Reads a base from its first byte to its last; every chunk is checked against its name.
    pub fn verify(&self, number: u64) -> Result<u64, BaseError> {
        let damaged = |reason: String| BaseError::Damaged { number, reason };
        let mut reader = self.read(number)?;
        let copied =
            std::io::copy(&mut reader, &mut std::io::sink()).map_err(|error| damaged(error.to_string()))?;
        let length = self.record(number)?.bytes;
        if copied == length {
            Ok(length)
        } else {
            Err(damaged(format!("{copied} bytes instead of {length}")))
        }
    }
}

impl Drop for BaseStore {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.store.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// As the store of the files is opened; the bases of a small database are smaller than one of its packs.
pub(super) fn open_store(directory: &Path) -> Result<(Arc<Store>, crate::store::Recovery), BaseError> {
    let make = |source| BaseError::File { what: format!("making {}", directory.display()), source };
    std::fs::create_dir_all(directory).map_err(make)?;
    Ok(Store::open(directory, Options { drop_cached: true, ..Options::default() })?)
}

fn follow(store: &Arc<Store>, mut writer: Writer, known: &RwLock<Known>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        store.wait_durable(writer.applied(), LOOK);
        if let Err(error) = apply(store, &mut writer) {
            tracing::warn!(%error, "base snapshots");
            // What is not applied is applied the next time.
            let _ = writer.rollback();
            std::thread::park_timeout(LOOK);
        }
        refresh(store, known);
    }
}

/// Reads the records of the bases that came since. One that cannot be read is told once, and is no base: the others are.
fn refresh(store: &Arc<Store>, known: &RwLock<Known>) {
    let seen = known.read().seen;
    let last = store.position().map_or(0, |position| position.number);
    if last == seen {
        return;
    }
    let (fresh, damaged) = read_records(store, seen, last);
    let mut known = known.write();
    if known.seen != seen {
        // Somebody else was faster.
        return;
    }
    for error in damaged {
        tracing::error!("{error}");
    }
    known.records.extend(fresh);
    known.seen = last;
}

/// The records of the bases after `after` up to `last`, in order, and what cannot be read of them.
pub(super) fn read_records(store: &Arc<Store>, after: u64, last: u64) -> (Vec<BaseRecord>, Vec<BaseError>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for number in after + 1..=last {
        match read_record(store, number) {
            Ok(Some(record)) => records.push(record),
            // A batch without one stands for a base that was given up.
            Ok(None) => {}
            Err(error @ BaseError::Damaged { .. }) => damaged.push(error),
            Err(error) => damaged.push(BaseError::Damaged { number, reason: error.to_string() }),
        }
    }
    (records, damaged)
}

fn read_record(store: &Arc<Store>, number: u64) -> Result<Option<BaseRecord>, BaseError> {
    let Some(manifest) = manifest(store, number, objects_of(number).1)? else { return Ok(None) };
    let damaged = |reason: String| BaseError::Damaged { number, reason };
    let reader = BaseReader::open(store.clone(), &manifest)?;
    let mut text = Vec::new();
    reader.take(MAX_RECORD).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
    let record: BaseRecord =
        serde_json::from_slice(&text).map_err(|error| damaged(format!("its record: {error}")))?;
    if record.number == number {
        Ok(Some(record))
    } else {
        Err(damaged(format!("its record is that of base {}", record.number)))
    }
}

/// Content of a file in batch `number`; `None` when the batch does not have it.
pub(super) fn manifest(store: &Store, number: u64, object: ObjectId) -> Result<Option<Manifest>, BaseError> {
    if number == 0 || store.position().is_none_or(|position| number > position.number) {
        return Ok(None);
    }
    let batch = store.read_batch(number)?;
    Ok(batch.objects.into_iter().find(|state| state.id == object).map(|state| state.content))
}
