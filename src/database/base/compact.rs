//! Gives the space of dropped bases back: what the kept ones need is copied to a new store, which then takes the old one's
//! place. Numbers stay: a dropped base leaves an empty batch.

use super::error::BaseError;
use super::read::fetch;
use super::schedule::kept;
use super::store::{open_store, read_records};
use crate::host;
use crate::store::manifest::Index;
use crate::store::{BlobLocation, Store, StoreError};
use bytes::Bytes;
use ehpc_proto::replication::message::{Blob, BlobKind};
use ehpc_proto::replication::{Batch, Extent, Hash, Manifest, ObjectId, Position, wire};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copying pays when at least this part of the store is of dropped bases only: one half.
const WORTH: u64 = 2;

/// Compacts the store in `directory` when bases beyond `keep` take at least half of it. Ended at any moment, it leaves either
/// the old store or the new one.
pub(super) fn compact(directory: &Path, keep: u32) -> Result<(), BaseError> {
    let places = Places::of(directory);
    places.settle()?;
    if !directory.exists() {
        return Ok(());
    }
    let (store, _) = open_store(directory)?;
    let last = store.position().map_or(0, |position| position.number);
    let (records, damaged) = read_records(&store, 0, last);
    // What cannot be read is not thrown away by a program.
    if !damaged.is_empty() {
        return Ok(());
    }
    let kept: HashSet<u64> = kept(&records, keep).into_iter().collect();
    if kept.len() == records.len() || kept.is_empty() {
        return Ok(());
    }
    let needed = Needed::of(&store, &kept)?;
    let there = store.stats()?.chunk_bytes;
    if needed.stored.saturating_mul(WORTH) > there {
        return Ok(());
    }
    tracing::info!(
        bases = kept.len(),
        bytes = there,
        needed = needed.stored,
        "the store of base snapshots is compacted"
    );
    copy(&store, &places.new, &kept)?;
    drop(store);
    places.exchange()
}

/// The three directories.
struct Places {
    directory: PathBuf,
    new: PathBuf,
    old: PathBuf,
}

impl Places {
    fn of(directory: &Path) -> Places {
        let beside = |suffix: &str| {
            let mut name = directory.file_name().unwrap_or_default().to_owned();
            name.push(suffix);
            directory.with_file_name(name)
        };
        Places { directory: directory.to_owned(), new: beside(".new"), old: beside(".old") }
    }

    /// Ends what an earlier run had begun.
    fn settle(&self) -> Result<(), BaseError> {
        if !self.directory.exists() && self.old.exists() {
            // Between the two renames: the new one is whole.
            self.rename(&self.new, &self.directory)?;
        }
        for leftover in [&self.new, &self.old] {
            match fs::remove_dir_all(leftover) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(file("removing", leftover)(source));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The new store is durable: it takes the old one's place.
    fn exchange(&self) -> Result<(), BaseError> {
        self.rename(&self.directory, &self.old)?;
        self.rename(&self.new, &self.directory)?;
        fs::remove_dir_all(&self.old).map_err(file("removing", &self.old))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), BaseError> {
        fs::rename(from, to).map_err(file("renaming", from))?;
        let parent = self.directory.parent().unwrap_or(Path::new("."));
        host::fsync_dir(parent).map_err(file("syncing", parent))
    }
}

fn file<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> BaseError + 'a {
    move |source| BaseError::File { what: format!("{what} {}", path.display()), source }
}

/// Every blob that the kept bases name.
struct Needed {
    blobs: HashSet<Hash>,
    stored: u64,
}

impl Needed {
    fn of(store: &Arc<Store>, kept: &HashSet<u64>) -> Result<Needed, BaseError> {
        let mut needed = Needed { blobs: HashSet::new(), stored: 0 };
        for number in kept {
            for object in store.read_batch(*number)?.objects {
                each_blob(store, &object.content, &mut |_, hash| {
                    if needed.blobs.insert(hash) {
                        needed.stored += u64::from(located(store, &hash)?.stored_len);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(needed)
    }
}

/// Calls with every page (root last) and chunk of a manifest.
fn each_blob(
    store: &Arc<Store>,
    manifest: &Manifest,
    each: &mut dyn FnMut(BlobKind, Hash) -> Result<(), BaseError>,
) -> Result<(), BaseError> {
    let index = Index::open(manifest, &mut fetch(store))?;
    for page in 0..index.page_count() {
        for extent in index.page(page, &mut fetch(store))?.iter() {
            if let Extent::Data { hash, .. } = extent {
                each(BlobKind::Chunk, *hash)?;
            }
        }
    }
    for page in index.page_refs() {
        each(BlobKind::Page, page.hash)?;
    }
    match manifest {
        Manifest::Paged { root } => each(BlobKind::Page, *root),
        Manifest::Inline(_) => Ok(()),
    }
}

fn copy(from: &Arc<Store>, to: &Path, kept: &HashSet<u64>) -> Result<(), BaseError> {
    let (store, _) = open_store(to)?;
    let Some(last) = from.position() else { return Ok(()) };
    let mut position = Position::start(last.stream);
    let mut open: Option<(PathBuf, File)> = None;
    for number in 1..=last.number {
        let old = from.read_batch(number)?;
        let mut batch = Batch { previous: position.chain, ..old };
        if kept.contains(&number) {
            for object in &batch.objects {
                each_blob(from, &object.content, &mut |kind, hash| {
                    put(&store, located(from, &hash)?, kind, hash, &mut open)
                })?;
            }
        } else {
            batch.objects.retain(|object| object.id == ObjectId::ROOT);
            batch.entries.clear();
        }
        let encoded = wire::encode_batch(&batch);
        position = store.append_batch(&encoded, &batch)?;
    }
    store.sync()?;
    Ok(())
}

fn located(store: &Store, hash: &Hash) -> Result<BlobLocation, BaseError> {
    Ok(store.locate(hash)?.ok_or(StoreError::UnknownBlob { hash: *hash })?)
}

/// Copies a blob as it is stored; the new store checks it against its name.
fn put(
    store: &Store,
    at: BlobLocation,
    kind: BlobKind,
    hash: Hash,
    open: &mut Option<(PathBuf, File)>,
) -> Result<(), BaseError> {
    if open.as_ref().is_none_or(|(path, _)| *path != at.path) {
        let pack = File::open(&at.path).map_err(file("opening", &at.path))?;
        *open = Some((at.path.clone(), pack));
    }
    let Some((path, pack)) = open else { return Ok(()) };
    let mut bytes = vec![0; at.stored_len as usize];
    pack.read_exact_at(&mut bytes, at.offset).map_err(file("reading", path))?;
    store.put_blob(&Blob { kind, hash, raw_len: at.raw_len, codec: at.codec, bytes: Bytes::from(bytes) })?;
    Ok(())
}
