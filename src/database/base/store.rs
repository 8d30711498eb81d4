//! The base snapshots on the backup: a store of their own, in which base N is batch N.

use super::compact;
use super::content::objects_of;
use super::error::BaseError;
use super::read::BaseReader;
use super::record::BaseRecord;
use super::sink::apply;
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
/// How often what arrived without a batch is entered into the catalog.
const LOOK: Duration = Duration::from_secs(5);

/// All base snapshots. Dropped, its thread ends.
pub struct BaseStore {
    store: Arc<Store>,
    records: Arc<RwLock<Vec<BaseRecord>>>,
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
        let records = Arc::new(RwLock::new(read_records(&store, 0)?));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (store, records, stop) = (store.clone(), records.clone(), stop.clone());
            let run = move || follow(&store, writer, &records, &stop);
            std::thread::Builder::new().name("bases".into()).spawn(run)
        };
        let thread = thread.map_err(|source| BaseError::File { what: "a thread".to_owned(), source })?;
        Ok(BaseStore { store, records, stop, thread: Some(thread) })
    }

    /// The store itself, for those who receive.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// All bases, oldest first.
    pub fn list(&self) -> Vec<BaseRecord> {
        // The thread may not have seen the newest yet.
        let _ = refresh(&self.store, &self.records);
        self.records.read().clone()
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

fn follow(store: &Arc<Store>, mut writer: Writer, records: &RwLock<Vec<BaseRecord>>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        store.wait_durable(writer.applied(), LOOK);
        let result =
            apply(store, &mut writer).map_err(BaseError::from).and_then(|()| refresh(store, records));
        if let Err(error) = result {
            tracing::warn!(%error, "base snapshots");
            // What is not applied is applied the next time.
            let _ = writer.rollback();
            std::thread::park_timeout(LOOK);
        }
    }
}

fn refresh(store: &Arc<Store>, records: &RwLock<Vec<BaseRecord>>) -> Result<(), BaseError> {
    let after = records.read().last().map_or(0, |record| record.number);
    let last = store.position().map_or(0, |position| position.number);
    if last == after {
        return Ok(());
    }
    let fresh = read_records(store, after)?;
    let mut records = records.write();
    let after = records.last().map_or(0, |record| record.number);
    records.extend(fresh.into_iter().filter(|record| record.number > after));
    Ok(())
}

/// The records of the bases after `after`, in order.
pub(super) fn read_records(store: &Arc<Store>, after: u64) -> Result<Vec<BaseRecord>, BaseError> {
    let last = store.position().map_or(0, |position| position.number);
    let mut records = Vec::new();
    for number in after + 1..=last {
        // A batch without one stands for a base that was given up.
        let Some(manifest) = manifest(store, number, objects_of(number).1)? else { continue };
        let damaged = |reason: String| BaseError::Damaged { number, reason };
        let reader = BaseReader::open(store.clone(), &manifest)?;
        let mut text = Vec::new();
        reader.take(MAX_RECORD).read_to_end(&mut text).map_err(|error| damaged(error.to_string()))?;
        let record: BaseRecord =
            serde_json::from_slice(&text).map_err(|error| damaged(format!("its record: {error}")))?;
        if record.number != number {
            return Err(damaged(format!("its record is that of base {}", record.number)));
        }
        records.push(record);
    }
    Ok(records)
}

/// Content of a file in batch `number`; `None` when the batch does not have it.
pub(super) fn manifest(store: &Store, number: u64, object: ObjectId) -> Result<Option<Manifest>, BaseError> {
    if number == 0 || store.position().is_none_or(|position| number > position.number) {
        return Ok(None);
    }
    let batch = store.read_batch(number)?;
    Ok(batch.objects.into_iter().find(|state| state.id == object).map(|state| state.content))
}
