//! The sender: one thread that owns the shadow and turns the dirty set into acknowledged batches.
//!
//! It waits for changes, resolves them to states (`resolve`), closes batches (`build`) and hands them to the link. When
//! the link breaks, batches that the backup does not have are sent again, or made anew if their content is gone
//! from the disk. A shadow that is behind the backup is caught up, one of another history is rebuilt (`catch_up`).

pub(crate) mod acks;
mod catch_up;
mod control;
pub(crate) mod outlet;
pub(crate) mod queue;
mod resend;
pub(crate) mod sink;
pub mod status;

use super::link::{Connector, Hello, Link, LinkDown, Welcome};
use super::overlay::View;
use super::resolve::{Fault, Resolver};
use crate::change::directories::DirectorySet;
use crate::change::shadow::Shadow;
use crate::change::touch::{Entry, Touch};
use crate::change::watermark::ShadowNote;
use crate::change::{Change, DirtySet, ShadowReader, Source};
use crate::host::Tree;
use acks::{Acks, InFlight};
use crossbeam_channel::Receiver;
use ehpc_proto::replication::{ObjectId, Position, StreamId};
use queue::Work;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use control::Request;
pub use control::{SenderControl, SenderError, SenderSeat};
pub use status::{FileProgress, SenderReport, SenderState, SenderStatus, Unreadable};
use tokio::sync::{Notify, oneshot};

/// Changes taken from the dirty set at once.
const TAKE: usize = 2_000;
/// What could not be read is tried again this often.
const RETRY_UNREADABLE: Duration = Duration::from_secs(30);
/// After a refusal a connection is tried again after this.
const RETRY_REFUSED: Duration = Duration::from_secs(2);
/// After a fault of the shadow it is opened again after this.
const RETRY_SHADOW: Duration = Duration::from_secs(5);

/// What the sender works with.
pub struct SenderParts {
    /// Name of the export, as configured.
    pub export: String,
    /// The export.
    pub tree: Arc<Tree>,
    /// Where changes come from.
    pub dirty: Arc<DirtySet>,
    /// The directories that are watched.
    pub directories: Arc<DirectorySet>,
    /// The shadow's file.
    pub shadow: PathBuf,
    /// Makes connections.
    pub connector: Box<dyn Connector>,
    /// Has the tree scanned: the shadow was rebuilt, or is not trusted.
    pub scan: Arc<dyn Fn() + Send + Sync>,
}

/// Makes sure that a shadow exists at `path`, so that readers can be opened before the sender runs.
pub fn prepare_shadow(path: &Path) -> Result<ShadowReader, SenderError> {
    Ok(Shadow::open(path)?.reader()?)
}

/// Starts the sender's thread.
pub fn spawn(parts: SenderParts, seat: SenderSeat) -> Result<JoinHandle<()>, SenderError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(SenderError::Thread)?;
    let shadow = Shadow::open(&parts.shadow)?;
    let sender = Sender::new(parts, seat, shadow);
    std::thread::Builder::new()
        .name("sender".to_owned())
        .spawn(move || sender.run(&runtime))
        .map_err(SenderError::Thread)
}

/// Why a session ended.
enum End {
    Link(LinkDown),
    Stop,
    Rebuild,
}

struct Sender {
    export: String,
    shadow_path: PathBuf,
    dirty: Arc<DirtySet>,
    connector: Box<dyn Connector>,
    scan: Arc<dyn Fn() + Send + Sync>,
    requests: Receiver<Request>,
    wake: Arc<Notify>,
    status: Arc<SenderStatus>,
    resolver: Resolver,
    /// Newest batch: acknowledged, or in flight.
    last: Option<Position>,
    /// Number that must be reached before objects without a name are dropped, and the last one looked at.
    orphans: Option<(u64, ObjectId)>,
    /// `ShadowNote::Export` with dead keys, or a rebuild of another root: the root must be taken over.
    accepted_root: bool,
    retry_unreadable: Instant,
    stopping: Vec<oneshot::Sender<()>>,
    rebuild: bool,
}

impl Sender {
    fn new(parts: SenderParts, seat: SenderSeat, shadow: Shadow) -> Sender {
        let SenderParts { export, tree, dirty, directories, shadow: shadow_path, connector, scan } = parts;
        let next = shadow.meta().position.map_or(1, |position| position.number + 1);
        let last = shadow.meta().position;
        let acks = Acks::new(Arc::clone(&dirty), Arc::clone(&seat.status));
        let view = View::new(shadow, next);
        let resolver = Resolver::new(tree, directories, Arc::clone(&seat.status), view, acks);
        Sender {
            export,
            shadow_path,
            dirty,
            connector,
            scan,
            requests: seat.requests,
            wake: seat.wake,
            status: seat.status,
            resolver,
            last,
            orphans: None,
            accepted_root: false,
            retry_unreadable: Instant::now() + RETRY_UNREADABLE,
            stopping: Vec::new(),
            rebuild: false,
        }
    }

    fn run(mut self, runtime: &tokio::runtime::Runtime) {
        loop {
            match self.session(runtime) {
                Ok(End::Stop) => break,
                Ok(End::Rebuild) => self.rebuild = true,
                Ok(End::Link(down)) => {
                    tracing::warn!(reason = %down, "no link to the backup");
                    self.status.set_state(SenderState::Waiting(down.to_string()));
                    // The connector waits between attempts that fail; what it cannot mend needs no haste.
                    if !matches!(down, LinkDown::Lost { .. } | LinkDown::Unreachable { .. }) {
                        self.pause(runtime, RETRY_REFUSED);
                    }
                }
                Err(fault) => {
                    tracing::error!(%fault, "the sender cannot go on and begins again");
                    self.status.set_state(SenderState::Failed(fault.to_string()));
                    self.pause(runtime, RETRY_SHADOW);
                    self.reopen_shadow();
                }
            }
            if self.handle_requests().is_err() {
                break;
            }
        }
        if let Err(error) = self.resolver.view.shadow().commit() {
            tracing::error!(%error, "the shadow could not be closed in order; it will be caught up from the backup");
        }
        self.status.set_state(SenderState::Stopped);
        let stopping = std::mem::take(&mut self.stopping);
        drop(self);
        for done in stopping {
            let _ = done.send(());
        }
    }

    /// After a fault nothing in memory is trusted: the shadow's file is, and a scan finds what it does not hold.
    fn reopen_shadow(&mut self) {
        match Shadow::open(&self.shadow_path) {
            Ok(shadow) => {
                let acknowledged = self.resolver.acks.cut;
                self.last = shadow.meta().position;
                let next = self.last.map_or(1, |position| position.number + 1);
                self.resolver.view = View::new(shadow, next);
                self.begin_anew(acknowledged);
                (self.scan)();
            }
            Err(error) => tracing::error!(%error, "the shadow cannot be opened"),
        }
    }

    /// Forgets all work; the cut waits for a scan.
    fn begin_anew(&mut self, acknowledged: u64) {
        self.resolver.forget_draft();
        self.resolver.acks.in_flight.clear();
        self.resolver.queue.hold(acknowledged);
        self.resolver.queue.clear();
    }

    fn session(&mut self, runtime: &tokio::runtime::Runtime) -> Result<End, Fault> {
        let mut link = match self.connect()? {
            Ok(link) => link,
            Err(down) => return Ok(End::Link(down)),
        };
        self.status.set_state(SenderState::Running);
        loop {
            match self.turn(&mut *link) {
                Ok(Ok(deferred)) => {
                    if self.resolver.queue.is_idle() && self.dirty.pending() == 0 {
                        self.wait(runtime, deferred);
                    }
                }
                Ok(Err(end)) => return Ok(end),
                Err(Fault::Link(down)) => {
                    self.link_broke(&mut *link)?;
                    return Ok(End::Link(down));
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// One attempt at a connection on which both sides stand at one position.
    fn connect(&mut self) -> Result<Result<Box<dyn Link>, LinkDown>, Fault> {
        let position = self.resolver.view.shadow().meta().position;
        let position = if self.rebuild { None } else { position };
        let stream = position.or(self.last).map_or_else(new_stream, |position| position.stream);
        let hello = Hello { export: self.export.clone(), stream, position };
        let (welcome, mut link) = match self.connector.connect(hello) {
            Ok(connected) => connected,
            Err(down) => return Ok(Err(down)),
        };
        let wake = Arc::clone(&self.wake);
        link.on_event(Arc::new(move || wake.notify_one()));
        self.resolver.outlet.reset();
        match self.greet(welcome, stream, &mut *link) {
            Ok(()) => Ok(Ok(link)),
            Err(Fault::Link(down)) => {
                self.link_broke(&mut *link)?;
                Ok(Err(down))
            }
            Err(fault) => Err(fault),
        }
    }

    /// The batch under construction is lost with the link; those in flight may not be.
    fn link_broke(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        // Acknowledgements that came before it broke still count.
        self.resolver.acks.poll(link, &mut self.resolver.view)?;
        let open = self.resolver.view.open_number();
        let reached = self.resolver.acks.cut_below(open);
        self.resolver.abandon(open, reached)?;
        self.resolver.outlet.reset();
        Ok(())
    }

    /// Brings both sides to one position.
    fn greet(&mut self, welcome: Welcome, stream: StreamId, link: &mut dyn Link) -> Result<(), Fault> {
        let acks = &self.resolver.acks;
        // Batches may have arrived of which the acknowledgement did not.
        let ours = |there| acks.in_flight.iter().any(|batch| batch.position == there);
        let first_is_ours = acks.in_flight.front().is_some_and(|batch| batch.position.number == 1);
        match welcome.position {
            None if first_is_ours && !self.rebuild => self.resume(Position::start(stream), link)?,
            None => self.start_stream(Position::start(stream))?,
            Some(there) if (welcome.shadow_known || ours(there)) && !self.rebuild => self.resume(there, link)?,
            Some(there) => self.rebuild_shadow(there, link)?,
        }
        self.rebuild = false;
        self.adopt_root(link)
    }

    /// The backup holds nothing: everything is new.
    fn start_stream(&mut self, start: Position) -> Result<(), Fault> {
        if self.resolver.view.shadow().meta().position.is_some() || self.resolver.view.in_flight() > 0 {
            tracing::warn!("the backup is empty: everything is sent anew");
        }
        let acknowledged = self.resolver.acks.cut;
        let export = self.resolver.view.shadow().meta().clone();
        self.replace_view(start)?;
        let shadow = self.resolver.view.shadow();
        if let Some(root_key) = &export.root_key {
            shadow.set_export(root_key, &export.filesystem_id)?;
        }
        if let Some(watermark) = export.watermark {
            shadow.set_watermark(watermark)?;
        }
        shadow.set_boot_id(&export.boot_id)?;
        shadow.commit()?;
        self.begin_anew(acknowledged);
        // The root is not known and will be adopted: listing it finds all the rest.
        self.resolver.queue.unhold();
        Ok(())
    }

    /// An empty shadow, and the batch after `position` under construction.
    fn replace_view(&mut self, position: Position) -> Result<(), Fault> {
        let next = position.number + 1;
        self.resolver.view.reset(next)?;
        self.last = Some(position);
        Ok(())
    }

    /// The root is object 1, whatever its key was.
    fn adopt_root(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        let root_key = self.resolver.tree.root_key().clone();
        let known = self.resolver.view.row(ObjectId::ROOT)?;
        if known.as_ref().is_some_and(|row| row.key == root_key) {
            return Ok(());
        }
        if known.is_some() && !self.accepted_root {
            let reason = "the export's root is not the directory that the backup holds; is its disk mounted? If it is \
                          meant, start with --accept-new-export";
            return Err(Fault::Link(LinkDown::Refused { reason: reason.to_owned() }));
        }
        self.resolver.add_root(known, link)?;
        self.accepted_root = false;
        let acknowledged = self.resolver.acks.cut;
        self.resolver.queue.redo(acknowledged, vec![Work::Object(root_key, Touch::LISTING)]);
        Ok(())
    }

    // At work.

    /// One round: acknowledgements, requests, and at most one batch. When deferred work is due next.
    fn turn(&mut self, link: &mut dyn Link) -> Result<Result<Option<Instant>, End>, Fault> {
        self.resolver.acks.poll(link, &mut self.resolver.view)?;
        link.check()?;
        self.resolver.view.shadow().commit_if_due()?;
        if let Err(end) = self.handle_requests() {
            self.link_broke(link)?;
            return Ok(Err(end));
        }
        let deferred = self.resolver.queue.wake_deferred(Instant::now());
        self.take();
        self.drop_orphans(link)?;
        self.resolver.work(link)?;
        self.ship(link)?;
        let listings = self.resolver.queue.listings_len() as u64;
        self.status.update(|report| report.directories_to_list = listings);
        Ok(Ok(deferred))
    }

    /// Takes from the dirty set what fits into a batch.
    fn take(&mut self) {
        let waiting = self.resolver.queue.work_len();
        if waiting < TAKE {
            let taken = self.dirty.take(TAKE);
            self.resolver.queue.add(taken.cut, taken.changes);
        }
        if Instant::now() >= self.retry_unreadable {
            self.retry_unreadable = Instant::now() + RETRY_UNREADABLE;
            let entries: Vec<Work> = self.status.retry().into_iter().map(one_entry).collect();
            self.resolver.queue.extra(entries);
        }
    }

    fn ship(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        let Some(last) = self.last else { return Ok(()) };
        let reached = self.resolver.queue.reached();
        let Some(closed) = self.resolver.close(last, link)? else {
            self.resolver.acks.reached(reached.min(self.resolver.queue.reached()));
            return Ok(());
        };
        self.last = Some(closed.position);
        let batch = InFlight { position: closed.position, encoded: closed.encoded.clone(), cut: closed.cut };
        // From here on it counts as in flight: if the link breaks now, it is sent again.
        self.resolver.acks.sent(batch, closed.objects);
        self.resolver.outlet.flush(link)?;
        link.send_batch(closed.position.number, closed.encoded)?;
        Ok(())
    }

    /// Until there is something to do.
    fn wait(&mut self, runtime: &tokio::runtime::Runtime, deferred: Option<Instant>) {
        let shadow = self.resolver.view.shadow().commit_due();
        let unreadable = self.status.has_unreadable().then_some(self.retry_unreadable);
        let due = [deferred, shadow, unreadable].into_iter().flatten().min();
        let (dirty, wake) = (Arc::clone(&self.dirty), Arc::clone(&self.wake));
        runtime.block_on(async move {
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = dirty.wait() => {}
                () = wake.notified() => {}
                () = sleep => {}
            }
        });
    }

    /// Waits for a request, at most so long.
    fn pause(&self, runtime: &tokio::runtime::Runtime, long: Duration) {
        runtime.block_on(async { tokio::time::timeout(long, self.wake.notified()).await }).ok();
    }

    /// Objects without any name are dropped once everything that a scan found was looked at.
    fn drop_orphans(&mut self, link: &mut dyn Link) -> Result<(), Fault> {
        let Some((after_change, mut after)) = self.orphans else { return Ok(()) };
        if self.resolver.queue.reached() < after_change {
            return Ok(());
        }
        while !self.resolver.wants_closing() {
            match self.resolver.drop_orphans(after, link)? {
                Some(last) => after = last,
                None => {
                    self.orphans = None;
                    return Ok(());
                }
            }
        }
        self.orphans = Some((after_change, after));
        Ok(())
    }

    // Requests.

    /// `Err`: the session ends.
    fn handle_requests(&mut self) -> Result<(), End> {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Note(note) => self.take_note(note),
                Request::Rebuild => {
                    self.rebuild = true;
                    return Err(End::Rebuild);
                }
                Request::Stop(done) => {
                    self.stopping.push(done);
                    return Err(End::Stop);
                }
                Request::Flush(done) => {
                    if let Err(error) = self.resolver.view.shadow().commit() {
                        tracing::error!(%error, "the shadow could not be committed");
                    }
                    let _ = done.send(());
                }
                Request::Reship(objects, done) => {
                    objects.into_iter().for_each(|id| self.reship(id));
                    let _ = done.send(());
                }
            }
        }
        Ok(())
    }

    fn reship(&mut self, id: ObjectId) {
        match self.resolver.distrust(id) {
            Ok(Some(key)) => {
                let touch = Touch { listing: true, ..Touch::SETTLED_CONTENT };
                self.dirty.note_from(Source::Other, Change::Object(key, touch));
            }
            Ok(None) => {}
            Err(fault) => tracing::error!(%fault, object = id.0, "an object cannot be shipped anew"),
        }
    }

    fn take_note(&mut self, note: ShadowNote) {
        let shadow = self.resolver.view.shadow();
        let result = match note {
            ShadowNote::Stable { boot_id, watermark } => {
                shadow.set_boot_id(&boot_id).and_then(|()| shadow.set_watermark(watermark))
            }
            ShadowNote::CleanStop(clean) => shadow.set_clean_stop(clean).and_then(|()| shadow.commit()),
            ShadowNote::Export { root_key, filesystem_id, keys_are_dead } => {
                self.accepted_root = true;
                shadow.set_export(&root_key, &filesystem_id).and_then(|()| {
                    if keys_are_dead { shadow.kill_keys() } else { Ok(()) }
                })
            }
            ShadowNote::Scanned { current } => {
                self.status.scanned();
                self.resolver.queue.scanned(current);
                self.orphans = Some((current, ObjectId(0)));
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::error!(%error, "a note to the shadow is lost; more will be read again after a restart");
        }
    }
}

fn one_entry(entry: Entry) -> Work {
    Work::Entries([entry].into_iter().collect())
}

fn new_stream() -> StreamId {
    StreamId(rand::random())
}

#[cfg(test)]
mod fake_backup;
#[cfg(test)]
mod tests;
