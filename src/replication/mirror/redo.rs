//! Batches that may be in the mirror in part: clear the names they touch, then apply them as one.

use super::evacuate::Evacuation;
use super::plan::{Op, plan};
use super::run::Run;
use super::view::{ContentSource, Identity, LiveView};
use super::window::{Cleared, Window};
use super::{Mirror, MirrorError, Outcome, disk, sweep};
use ehpc_proto::replication::{Batch, EntryState, Hash, Kind, ObjectId, Timestamp};
use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

const SLICE: usize = Mirror::REBUILD_SLICE;

pub(super) fn redo(
    mirror: &mut Mirror,
    batches: &[Batch],
    view: &dyn LiveView,
    content: &dyn ContentSource,
) -> Result<Outcome, MirrorError> {
    redo_window(mirror, Window::merge(batches), view, content, true)
}

/// One slice of [`Mirror::rebuild`]; `None` = the directory is complete.
pub(super) fn rebuild_slice(
    mirror: &mut Mirror,
    directory: ObjectId,
    after: Option<&[u8]>,
    view: &dyn LiveView,
    content: &dyn ContentSource,
) -> Result<Option<(Vec<u8>, Outcome)>, MirrorError> {
    let Some(known) = view.object(directory).map_err(MirrorError::View)? else { return Ok(None) };
    let children = view.children(directory, after, SLICE).map_err(MirrorError::View)?;
    let last_slice = children.len() < SLICE;
    let last = match children.last() {
        Some((last, _)) => last.clone(),
        // No name is longer than 255 bytes: this one comes after all.
        None if after.is_none() || after.is_some_and(|after| after != PAST_ALL) => PAST_ALL.to_vec(),
        None => return Ok(None),
    };
    let mut batch = empty_batch();
    if after.is_none() {
        batch.objects.push(known.state);
    }
    let mut there: HashMap<Vec<u8>, Option<Identity>> = HashMap::new();
    mirror.directories.clear();
    let mut run = Run::new(mirror, view, content, None);
    if let Ok(open) = run.directory(directory) {
        let fault =
            |source| MirrorError::Io { what: "list", path: format!("directory {}", directory.0), source };
        run.open_up(directory, &open)?;
        for name in disk::list(open.fd.as_fd()).map_err(fault)? {
            // Names that are not in the catalog must go; each slice looks at its own part of the names.
            if after.is_none_or(|after| name.as_slice() > after) && (last_slice || name <= last) {
                let stat = disk::stat_at(open.fd.as_fd(), &name).map_err(fault)?;
                there.insert(name, stat.map(|stat| stat.identity));
            }
        }
    }
    run.restore_modes()?;
    for (name, child) in children {
        let recorded = view.object(child).map_err(MirrorError::View)?.and_then(|known| known.identity);
        if there.remove(&name).flatten() != recorded || recorded.is_none() {
            batch.entries.push(EntryState { parent: directory, name, child: Some(child) });
        }
    }
    let strangers = there.into_keys().map(|name| EntryState { parent: directory, name, child: None });
    batch.entries.extend(strangers);
    let outcome = redo_window(mirror, Window::merge(&[batch]), view, content, false)?;
    Ok(Some((if last_slice { PAST_ALL.to_vec() } else { last }, outcome)))
}

/// After every name.
const PAST_ALL: &[u8] = &[0xff; 256];

fn redo_window(
    mirror: &mut Mirror,
    mut window: Window,
    view: &dyn LiveView,
    content: &dyn ContentSource,
    thorough: bool,
) -> Result<Outcome, MirrorError> {
    mirror.directories.clear();
    let cleared = Evacuation::new(mirror, view, &mut window, thorough).run()?;
    let after = Cleared { view, window: &window, missing: cleared.missing };
    let mut ops = plan(&after, &window.batch)?;
    finish_all(&mut ops, &after, &cleared.in_limbo)?;
    let mut run = Run::new(mirror, &after, content, Some(&window));
    run.relaxed = cleared.relaxed;
    let mut outcome = run.execute(&ops)?;
    outcome.rebuild = cleared.rebuild;
    let named: HashSet<ObjectId> = window.batch.entries.iter().filter_map(|entry| entry.child).collect();
    sweep::sweep(mirror, &|id| after.nameless_after(&named, id))?;
    Ok(outcome)
}

/// Every directory in which a name was cleared, or that was moved, gets its times back, also where all is as it was.
fn finish_all(
    ops: &mut Vec<Op<'_>>,
    after: &Cleared<'_>,
    in_limbo: &HashSet<ObjectId>,
) -> Result<(), MirrorError> {
    let mut seen: HashSet<ObjectId> = ops
        .iter()
        .filter_map(|op| match op {
            Op::Finish { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let parents = after.window.batch.entries.iter().map(|entry| entry.parent);
    for id in parents.chain(in_limbo.iter().copied()) {
        if seen.insert(id) && !after.window.destroyed.contains(&id) {
            let live = after.object(id).map_err(MirrorError::View)?;
            if live.is_some_and(|known| known.state.kind == Kind::Directory) {
                ops.push(Op::Finish { id, state: None });
            }
        }
    }
    Ok(())
}

/// An object that the check found wrong: its names are cleared and made anew, content and attributes written again.
/// (A directory's listing is [`rebuild_slice`]'s.)
pub(super) fn repair(
    mirror: &mut Mirror,
    id: ObjectId,
    view: &dyn LiveView,
    content: &dyn ContentSource,
) -> Result<Outcome, MirrorError> {
    let Some(known) = view.object(id).map_err(MirrorError::View)? else { return Ok(Outcome::default()) };
    let mut batch = empty_batch();
    batch.objects.push(known.state);
    let mut window = Window::merge(&[batch]);
    for spot in view.entries_of(id).map_err(MirrorError::View)? {
        window.touch(spot, Some(id));
    }
    redo_window(mirror, window, view, content, true)
}

fn empty_batch() -> Batch {
    Batch {
        number: 0,
        previous: Hash([0; 32]),
        cut: 0,
        time: Timestamp::default(),
        objects: Vec::new(),
        entries: Vec::new(),
        destroyed: Vec::new(),
    }
}
