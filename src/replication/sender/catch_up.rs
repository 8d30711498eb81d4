//! A shadow that is not where the backup is: caught up by what was touched since, or rebuilt from all that is live.

use super::Sender;
use super::queue::Work;
use super::resend::row_of_backup;
use crate::change::touch::{Content, Touch};
use crate::replication::link::{Link, LinkDown};
use crate::replication::resolve::Fault;
use crate::replication::sender::status::SenderState;
use ehpc_proto::replication::message::{Answer, Query, Version};
use ehpc_proto::replication::{Kind, ObjectId, Position};
use std::collections::{BTreeMap, BTreeSet};

/// Objects in one question for versions.
const VERSIONS: usize = 256;
/// Objects in one answer of what is live.
const LIVE: u32 = 2_048;

/// What a touched object may differ in: anything.
fn look_at_all(kind: Kind) -> Touch {
    match kind {
        Kind::Directory => Touch::LISTING,
        _ => Touch { content: Content::All, ..Touch::default() },
    }
}

fn unexpected(answer: &Answer) -> Fault {
    let reason = match answer {
        Answer::Failed { reason } => format!("it could not answer: {reason}"),
        _ => "the answer does not fit the question".to_owned(),
    };
    Fault::Link(LinkDown::Protocol { reason })
}

impl Sender {
    /// Objects that batches after `since` touched, or names in them, with the object numbers after `after`.
    fn touched(&mut self, since: u64, link: &mut dyn Link) -> Result<BTreeSet<ObjectId>, Fault> {
        let mut touched = BTreeSet::new();
        let mut after = ObjectId(0);
        loop {
            let (objects, entries) = match link.ask(Query::Touched { since, after })? {
                Answer::Touched { objects, entries } => (objects, entries),
                other => return Err(unexpected(&other)),
            };
            let ids = objects.iter().map(|(id, _)| *id).chain(entries.iter().map(|(parent, _)| *parent));
            let last = ids.clone().max();
            touched.extend(ids);
            match last {
                Some(last) if last > after => after = last,
                _ => return Ok(touched),
            }
        }
    }

    /// Brings the shadow from its own position, which is in the backup's history, to `there`.
    pub(super) fn catch_up(&mut self, there: Position, link: &mut dyn Link) -> Result<(), Fault> {
        let since = self.resolver.view.shadow().meta().position.map_or(0, |position| position.number);
        tracing::info!(from = since, to = there.number, "the shadow is behind the backup and is caught up");
        self.status.set_state(SenderState::Rebuilding);
        let ids: Vec<ObjectId> = self.touched(since, link)?.into_iter().collect();
        let mut work = Vec::new();
        for asked in ids.chunks(VERSIONS) {
            let query = Query::Versions { objects: asked.to_vec(), from: there.number, to: there.number };
            let versions = match link.ask(query)? {
                Answer::Versions(versions) if versions.len() == asked.len() => versions,
                Answer::Failed { reason } => {
                    // A listing that is longer than an answer may be. All that is live comes in small pieces.
                    tracing::warn!(%reason, "the shadow cannot be caught up");
                    return self.rebuild_shadow(there, link);
                }
                other => return Err(unexpected(&other)),
            };
            for (id, versions) in asked.iter().zip(versions) {
                self.take_version(*id, versions.into_iter().next_back(), &mut work)?;
            }
        }
        let shadow = self.resolver.view.shadow();
        if let Some(last) = ids.last() {
            shadow.raise_next_id(*last);
        }
        shadow.set_position(there)?;
        shadow.commit()?;
        self.resolver.view.renumber(there.number + 1);
        self.last = Some(there);
        let acknowledged = self.resolver.acks.cut;
        self.resolver.queue.redo(acknowledged, work);
        Ok(())
    }

    /// One touched object as it is on the backup, a directory with all its names; it is to be read again.
    fn take_version(
        &mut self,
        id: ObjectId,
        version: Option<Version>,
        work: &mut Vec<Work>,
    ) -> Result<(), Fault> {
        let view = &mut self.resolver.view;
        let (state, listing) = version.map_or((None, Vec::new()), |version| (version.state, version.entries));
        let row = state.as_ref().and_then(row_of_backup);
        let former = view.shadow().entries(id)?;
        let listed: BTreeMap<&[u8], ObjectId> =
            listing.iter().map(|(name, child)| (name.as_slice(), *child)).collect();
        for (name, _) in former.iter().filter(|(name, _)| !listed.contains_key(name.as_slice())) {
            view.shadow().put_entry(id, name, None)?;
        }
        let former: BTreeMap<&[u8], ObjectId> =
            former.iter().map(|(name, child)| (name.as_slice(), *child)).collect();
        for (name, child) in listed.iter().filter(|(name, child)| former.get(*name) != Some(*child)) {
            view.shadow().put_entry(id, name, Some(*child))?;
        }
        if let Some(row) = &row {
            work.push(Work::Object(row.key.clone(), look_at_all(row.kind)));
            self.resolver.know(row);
        }
        self.resolver.view.replace_acknowledged(id, row.as_ref())?;
        Ok(())
    }

    /// Throws the shadow away and makes it anew from what is live on the backup. The disk is scanned afterwards.
    pub(super) fn rebuild_shadow(&mut self, there: Position, link: &mut dyn Link) -> Result<(), Fault> {
        tracing::warn!(
            batch = there.number,
            "the shadow is not of the backup's history and is rebuilt from it"
        );
        self.status.set_state(SenderState::Rebuilding);
        let acknowledged = self.resolver.acks.cut;
        let export = self.resolver.view.shadow().meta().clone();
        self.begin_anew(acknowledged);
        self.replace_view(there)?;
        let mut after = ObjectId(0);
        loop {
            let (objects, entries) = match link.ask(Query::Live { after, limit: LIVE })? {
                Answer::Live { objects, entries } => (objects, entries),
                other => return Err(unexpected(&other)),
            };
            let Some(last) = objects.last().map(|state| state.id).filter(|last| *last > after) else { break };
            after = last;
            for row in objects.iter().filter_map(row_of_backup) {
                self.resolver.know(&row);
                self.resolver.view.shadow().put(&row)?;
            }
            for entry in entries {
                self.resolver.view.shadow().put_entry(entry.parent, &entry.name, Some(entry.child))?;
            }
            self.resolver.view.shadow().commit_if_due()?;
        }
        let highest = self.highest_ever(after, link)?;
        let shadow = self.resolver.view.shadow();
        shadow.raise_next_id(highest);
        if let Some(root_key) = &export.root_key {
            shadow.set_export(root_key, &export.filesystem_id)?;
        }
        shadow.set_position(there)?;
        shadow.commit()?;
        let root = self.resolver.tree.root_key().clone();
        self.resolver.queue.extra(vec![Work::Object(root, Touch::LISTING)]);
        (self.scan)();
        Ok(())
    }

    /// The highest number that any batch used, also for what is gone by now: none is used twice.
    fn highest_ever(&mut self, live: ObjectId, link: &mut dyn Link) -> Result<ObjectId, Fault> {
        let mut highest = live;
        loop {
            let last = match link.ask(Query::Touched { since: 0, after: highest })? {
                Answer::Touched { objects, .. } => objects.last().map(|(id, _)| *id),
                other => return Err(unexpected(&other)),
            };
            match last {
                Some(last) if last > highest => highest = last,
                _ => return Ok(highest),
            }
        }
    }
}
