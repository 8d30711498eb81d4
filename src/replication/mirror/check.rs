//! Compares the real mirror and the live chunks in the packs with what the catalog says, for `verify --read-data`.
//!
//! Objects are taken in order of number, a slice at a time, while nothing is applied (the caller holds the apply gate):
//! names, attributes, listings, and the content of small files. Larger files are opened then and read without the
//! gate ([`LongRead`]); the result counts if the object is still the same afterwards, else it is read again, three
//! times in all, and then listed as unchecked. A difference found in a long read is read once more under the gate.

mod content;
mod object;

pub use content::LongRead;

use super::view::{ContentSource, LiveView, SourceError};
use super::{Mirror, MirrorError};
use crate::store::Store;
use crate::store::manifest::Index;
use content::compare_extent;
use ehpc_proto::replication::message::{Damage, ReadProgress};
use ehpc_proto::replication::{Extent, Hash, Kind, Manifest, ObjectId, ObjectState};
use object::{Object, Unkept};
use std::collections::{HashSet, VecDeque};

/// Times that a changing file is read.
const ROUNDS: u32 = 3;
/// Chunk names remembered as verified; beyond this many, chunks that occur again are verified again.
const MOST_REMEMBERED: usize = 4_000_000;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Wrong.
    pub damage: Vec<Damage>,
    /// Not to be said.
    pub unchecked: Vec<Damage>,
}

impl Findings {
    fn wrong(&mut self, object: ObjectId, path: &[u8], reason: impl Into<String>) {
        self.damage.push(Damage { path: path.to_vec(), object, reason: reason.into() });
    }

    fn not_checked(&mut self, object: ObjectId, path: &[u8], reason: impl Into<String>) {
        self.unchecked.push(Damage { path: path.to_vec(), object, reason: reason.into() });
    }

    /// Adds what long reads have found meanwhile.
    pub fn merge(&mut self, check: &mut Check) {
        self.damage.append(&mut check.late.damage);
        self.unchecked.append(&mut check.late.unchecked);
    }
}

/// What the bytes of a file are, compared with its manifest.
#[derive(Debug)]
pub enum Finding {
    /// The same.
    Equal,
    /// They differ in the extent that begins at this byte.
    Differs {
        /// First byte of the extent.
        at: u64,
        /// The extent.
        extent: Extent,
    },
    /// They could not be read, or the manifest could not.
    Unreadable {
        /// Why.
        reason: String,
    },
}

/// A comparison under way.
#[derive(Default)]
pub struct Check {
    after: Option<ObjectId>,
    done: bool,
    progress: ReadProgress,
    long: VecDeque<LongRead>,
    chunks: Vec<(ObjectId, Vec<u8>, Manifest)>,
    /// First 8 bytes of the names of chunks that are intact.
    intact: HashSet<u64>,
    late: Findings,
    unkept: Unkept,
}

impl Check {
    /// Objects to be given to [`Check::slice`] at a time; each may leave a file open.
    pub const SLICE: usize = 64;

    /// The slice to give next begins after this object.
    pub fn after(&self) -> ObjectId {
        self.after.unwrap_or(ObjectId(0))
    }

    /// Everything was looked at.
    pub fn is_done(&self) -> bool {
        self.done && self.long.is_empty()
    }

    /// How far it is.
    pub fn progress(&self) -> ReadProgress {
        self.progress
    }

    /// A file that is to be read without the gate.
    pub fn next_long(&mut self) -> Option<LongRead> {
        self.long.pop_front()
    }

    /// Compares `objects`, the next live ones by number; none = it is the end. `mirror`: `None` = only packs.
    pub fn slice(
        &mut self,
        mut mirror: Option<&mut Mirror>,
        view: &dyn LiveView,
        content: &dyn ContentSource,
        objects: Vec<ObjectState>,
        total: u64,
    ) -> Result<Findings, MirrorError> {
        let mut findings = Findings::default();
        self.progress.objects_total = total.max(self.progress.objects);
        if objects.is_empty() {
            self.done = true;
            self.unkept.report(&mut findings);
        }
        for state in objects {
            self.after = Some(state.id);
            self.progress.objects += 1;
            let path = path_of(view, state.id)?;
            if let Some(mirror) = mirror.as_deref_mut() {
                let mut object = Object::new(mirror, view, content, &mut findings, &mut self.unkept);
                if let Some(file) = object.compare(&state, &path)? {
                    let read = LongRead::new(state.clone(), path.clone(), file);
                    if state.size <= LongRead::SHORT {
                        let found = read.compare(&|hash| content.blob(hash), &mut self.progress.bytes);
                        report(&mut findings, &read, found);
                    } else {
                        self.long.push_back(read);
                    }
                }
            }
            if state.kind == Kind::File {
                self.chunks.push((state.id, path, state.content));
            }
        }
        Ok(findings)
    }

    /// Takes the result of a long read.
    pub fn conclude(
        &mut self,
        mirror: Option<&mut Mirror>,
        view: &dyn LiveView,
        content: &dyn ContentSource,
        read: LongRead,
        found: Finding,
    ) -> Result<(), MirrorError> {
        let Some(mirror) = mirror else { return Ok(()) };
        let Some(known) = view.object(read.state.id).map_err(MirrorError::View)? else { return Ok(()) };
        let same = known.state.content == read.state.content;
        if same {
            let found = match found {
                // Something may have been written and taken back: only what stands now counts.
                Finding::Differs { at, extent } => compare_extent(&read.file, at, extent),
                other => other,
            };
            report(&mut self.late, &read, found);
            return Ok(());
        }
        if read.round >= ROUNDS {
            let reason = format!("mirror: the file changed during each of {ROUNDS} readings");
            self.late.not_checked(read.state.id, &read.path, reason);
            return Ok(());
        }
        let path = path_of(view, known.state.id)?;
        let mut object = Object::new(mirror, view, content, &mut self.late, &mut self.unkept);
        if let Some(file) = object.compare(&known.state, &path)? {
            self.long.push_back(LongRead { round: read.round + 1, ..LongRead::new(known.state, path, file) });
        }
        Ok(())
    }

    /// Re-reads the chunks and manifest pages of the last slice in the packs, each once in a whole check.
    pub fn verify_chunks(&mut self, store: &Store, findings: &mut Findings) {
        for (id, path, manifest) in std::mem::take(&mut self.chunks) {
            let mut fetch = |hash: &Hash| store.read_blob(hash).map_err(SourceError::from);
            let index = match Index::open(&manifest, &mut fetch) {
                Ok(index) => index,
                Err(error) => {
                    findings.wrong(id, &path, format!("packs: {error}"));
                    continue;
                }
            };
            for page in 0..index.page_count() {
                match index.page(page, &mut fetch) {
                    Ok(extents) => extents.iter().for_each(|extent| {
                        if let Extent::Data { hash, .. } = extent {
                            self.verify_chunk(store, hash, id, &path, findings);
                        }
                    }),
                    Err(error) => findings.wrong(id, &path, format!("packs: {error}")),
                }
            }
        }
    }

    fn verify_chunk(
        &mut self,
        store: &Store,
        hash: &Hash,
        id: ObjectId,
        path: &[u8],
        findings: &mut Findings,
    ) {
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        let short = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        if self.intact.contains(&short) {
            return;
        }
        match store.verify_blob(hash) {
            Ok(()) => {
                if self.intact.len() < MOST_REMEMBERED {
                    self.intact.insert(short);
                }
            }
            Err(error) => findings.wrong(id, path, format!("packs: chunk {hash}: {error}")),
        }
    }

    pub(super) fn count_bytes(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
    }
}

fn report(findings: &mut Findings, read: &LongRead, found: Finding) {
    match found {
        Finding::Equal => {}
        Finding::Differs { at, extent } => {
            let end = at + extent.len();
            let reason = format!("mirror: content differs within bytes {at} to {end}");
            findings.wrong(read.state.id, &read.path, reason);
        }
        Finding::Unreadable { reason } => {
            findings.wrong(read.state.id, &read.path, format!("mirror: {reason}"))
        }
    }
}

/// Path within the export; an object without a name is called by its number.
fn path_of(view: &dyn LiveView, id: ObjectId) -> Result<Vec<u8>, MirrorError> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = id;
    while at != ObjectId::ROOT && names.len() < 4096 {
        match view.entries_of(at).map_err(MirrorError::View)?.into_iter().next() {
            Some(spot) => {
                names.push(spot.name);
                at = spot.parent;
            }
            None => {
                names.push(format!("(object {} without a name)", at.0).into_bytes());
                break;
            }
        }
    }
    names.reverse();
    Ok(names.join(&b'/'))
}
