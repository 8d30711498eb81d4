//! Batches that may be in the mirror in part: clear the names they touch, then apply them as one.

use super::evacuate::Evacuation;
use super::plan::{Op, plan};
use super::run::Run;
use super::view::{ContentSource, LiveView};
use super::window::{Cleared, Window};
use super::{Mirror, MirrorError, Outcome, sweep};
use ehpc_proto::replication::{Batch, EntryState, Hash, Kind, ObjectId, Timestamp};
use std::collections::HashSet;

/// Names of one directory that are rebuilt at a time.
const SLICE: usize = 1000;

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
    let children = view.children(directory, after, SLICE).map_err(MirrorError::View)?;
    let Some((last, _)) = children.last() else { return Ok(None) };
    let last = last.clone();
    let entries = children
        .into_iter()
        .map(|(name, child)| EntryState { parent: directory, name, child: Some(child) })
        .collect();
    let batch = Batch {
        number: 0,
        previous: Hash([0; 32]),
        cut: 0,
        time: Timestamp::default(),
        objects: Vec::new(),
        entries,
        destroyed: Vec::new(),
    };
    let outcome = redo_window(mirror, Window::merge(&[batch]), view, content, false)?;
    Ok(Some((last, outcome)))
}

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
