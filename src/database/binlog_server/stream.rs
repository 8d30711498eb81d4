//! The event stream of one replica: the archive's files from its place on, then what arrives, until one of us goes.
//!
//! What a server adds: a fake ROTATE in front of each file, the format description (as of a file's middle when the
//! replica begins there), for MariaDB's start by GTID a list of what the replica has, heartbeats.

use super::answers::Identity;
use super::feed::{Feed, FeedFile, FileFault, Head, limit};
use super::packets::PacketWriter;
use super::registry::Visit;
use super::selection::{Selection, SelectionFault};
use super::start::{Opened, StartFault, open};
use super::window::{Next, Window};
use ehpc_proto::binlog::{Checksum, Flavor, build};
use ehpc_proto::mysql::response::ServerError;
use ehpc_proto::replication::database::Place;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

/// ER_MASTER_FATAL_ERROR_READING_BINLOG: a replica that is told so stops, and does not come again by itself.
const FATAL: u16 = 1236;
/// ER_ERROR_ON_READ: as after a fallen connection, a replica comes again. Source: sql/slave.cc, `handle_slave_io` (of
/// MariaDB and MySQL): what ends it are 1236, ER_OUT_OF_RESOURCES and CR_NET_PACKET_TOO_LARGE.
const UNREADABLE: u16 = 1024;

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnd {
    /// The connection.
    #[error("the connection: {0}")]
    Connection(#[from] io::Error),
    /// The replica closed it or said something.
    #[error("the replica ended it")]
    Left,
    /// All is sent that it asked for.
    #[error("all is sent that it asked for")]
    Done,
    /// Another connection with its server_id.
    #[error("another replica with its server_id has connected")]
    Replaced,
    /// We stop.
    #[error("the binlog server stops")]
    Stopped,
    /// The archive.
    #[error(transparent)]
    Start(#[from] StartFault),
    /// A file of the archive.
    #[error(transparent)]
    File(#[from] FileFault),
    /// What the replica has does not fit.
    #[error(transparent)]
    Selection(#[from] SelectionFault),
    /// The log goes on in the file of another server.
    #[error(
        "the log of this server ends here; the archive goes on with another server's (a failover). A replica that counts in \
         positions cannot follow: initialise it again (ehpc-store db standby --init)"
    )]
    Lineage,
    /// The next file has been pruned.
    #[error("could not find next log: the file behind `{0}` has been pruned from the archive")]
    Pruned(String),
}

impl StreamEnd {
    /// Is it a file that can be mended (`verify --repair`), so that the replica should come again?
    pub fn may_pass(&self) -> bool {
        matches!(self, StreamEnd::File(_) | StreamEnd::Start(StartFault::File(_) | StartFault::Directory(_)))
    }

    /// What the replica is told, if anything.
    pub fn told(&self) -> Option<ServerError> {
        let message = match self {
            StreamEnd::Connection(_)
            | StreamEnd::Left
            | StreamEnd::Done
            | StreamEnd::Stopped
            | StreamEnd::Start(StartFault::NotYet) => return None,
            StreamEnd::Replaced => {
                "A slave with the same server_uuid/server_id as this slave has connected to the master"
                    .to_owned()
            }
            other => other.to_string(),
        };
        let number = if self.may_pass() { UNREADABLE } else { FATAL };
        Some(ServerError::new(number, "HY000", message))
    }
}

/// Serves one replica.
pub struct Streamer<'a, R, W> {
    /// What is served.
    pub feed: Arc<dyn Feed>,
    /// The replica's side, to see it go.
    pub input: &'a mut R,
    /// To the replica.
    pub output: &'a mut PacketWriter<W>,
    /// What it gets.
    pub selection: Selection,
    /// Pause after which it wants a sign of life.
    pub heartbeat: Option<Duration>,
    /// It goes when it has everything.
    pub non_blocking: bool,
    /// As which server events are made up.
    pub identity: &'a Identity,
    /// Shown to others, and ended by them.
    pub visit: &'a Visit,
    /// The file that is being sent.
    pub name: String,
    /// Events were left out since the last one that was sent.
    pub skipped: bool,
    /// How far the archive is durable, as far as is known here.
    pub end: Place,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Streamer<'_, R, W> {
    /// Sends until the end. `checksum` is what the replica was told that we use.
    pub async fn run(&mut self, opened: Opened, position: u64, checksum: Checksum) -> StreamEnd {
        match self.files(opened, position, checksum).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn files(
        &mut self,
        mut opened: Opened,
        position: u64,
        mut checksum: Checksum,
    ) -> Result<std::convert::Infallible, StreamEnd> {
        let mut offset = self.begin(&opened, position, checksum);
        self.end = self.feed.end().0;
        loop {
            checksum = opened.head.format.checksum;
            self.name.clone_from(&opened.at.name);
            self.file(&opened, offset).await?;
            opened = self.next_file(&opened.at, checksum).await?;
            self.selection.file();
            let rotate = build::fake_rotate(self.identity.server_id, &opened.at.name, 4, checksum);
            self.output.event(&rotate);
            let format = opened.head.format.clone();
            let behind = self.identity.flavor == Flavor::MariaDb && self.selection.is_behind();
            let format = if behind { format.as_continued() } else { format.with_in_use(false) };
            self.output.event(format.bytes());
            offset = opened.head.body;
        }
    }

    /// The first events; where the file goes on.
    fn begin(&mut self, opened: &Opened, position: u64, checksum: Checksum) -> u64 {
        let Head { format, body, .. } = &opened.head;
        self.output.event(&build::fake_rotate(self.identity.server_id, &opened.at.name, position, checksum));
        let format = format.clone();
        let format = match position > 4 {
            true => format.as_mid_file(),
            false if self.selection.is_behind() => format.as_continued(),
            false => format.with_in_use(false),
        };
        self.output.event(format.bytes());
        position.max(*body)
    }

    /// Sends a file from `offset` on, to its end.
    async fn file(&mut self, opened: &Opened, offset: u64) -> Result<(), StreamEnd> {
        let mut window = Window::new(opened, offset);
        let checksum = opened.head.format.checksum;
        loop {
            let (limit, complete) = limit(self.feed.as_ref(), &opened.at, self.end)?;
            while window.position() < limit {
                match window.next()? {
                    Next::Whole => self.event(&mut window, checksum)?,
                    Next::Large(header) => {
                        let sends = self.selection.event(&window.large(header))?;
                        window = self.large(window, u64::from(header.size), sends, limit).await?;
                    }
                    Next::More => window = window.fill(limit).await?,
                }
                if self.output.is_full() {
                    self.flush(opened, &window).await?;
                }
                self.stop_if_done(window.position(), checksum).await?;
            }
            self.stop_if_done(window.position(), checksum).await?;
            self.flush(opened, &window).await?;
            if complete {
                return Ok(());
            }
            let (lineage, file) = opened.at.key();
            let place = Place { lineage, file, offset: window.position() };
            if self.non_blocking && self.feed.end().0 <= place {
                return Err(StreamEnd::Done);
            }
            self.wait(place, checksum).await?;
        }
    }

    /// One event that is whole in memory.
    fn event(&mut self, window: &mut Window, checksum: Checksum) -> Result<(), StreamEnd> {
        let Some((event, bytes)) = window.take()? else { return Ok(()) };
        let sends = self.selection.event(&event)?;
        if sends {
            if std::mem::take(&mut self.skipped) && self.identity.flavor == Flavor::MySql {
                let beat = build::heartbeat(self.identity.server_id, &self.name, event.start, checksum);
                self.output.event(&beat);
            }
            self.output.event(bytes);
        } else {
            self.skipped = true;
        }
        if self.selection.take_passed() {
            self.list(false, event.end(), checksum);
        }
        Ok(())
    }

    /// MariaDB: what is in the log up to here, and where that is.
    fn list(&mut self, until_reached: bool, position: u64, checksum: Checksum) {
        let gtids: Vec<_> = self.selection.log().map(|log| log.iter().collect()).unwrap_or_default();
        let list = build::gtid_list(self.identity.server_id, &gtids, until_reached, position, checksum);
        self.output.event(&list);
    }

    /// One event that is larger than the window, piece by piece.
    async fn large(
        &mut self,
        mut window: Window,
        size: u64,
        sends: bool,
        limit: u64,
    ) -> Result<Window, StreamEnd> {
        if sends {
            self.output.begin_event(size);
        }
        loop {
            let (bytes, ends) = window.piece()?;
            if sends {
                self.output.more(bytes);
            }
            if ends {
                return Ok(window);
            }
            self.output.flush().await?;
            window = window.fill(limit).await?;
        }
    }

    async fn flush(&mut self, opened: &Opened, window: &Window) -> Result<(), StreamEnd> {
        self.visit.progress(&opened.at, window.position());
        self.visit.ended()?;
        Ok(self.output.flush().await?)
    }

    /// MariaDB's `START SLAVE UNTIL master_gtid_pos`: the end is said by a list with a flag.
    async fn stop_if_done(&mut self, position: u64, checksum: Checksum) -> Result<(), StreamEnd> {
        if !self.selection.is_done() {
            return Ok(());
        }
        self.list(true, position, checksum);
        self.output.flush().await?;
        Err(StreamEnd::Done)
    }

    /// Waits until the archive is past `place`, with signs of life.
    async fn wait(&mut self, place: Place, checksum: Checksum) -> Result<(), StreamEnd> {
        let feed = Arc::clone(&self.feed);
        let mut past = feed.past(place);
        let far = Duration::from_secs(86_400);
        let mut word = [0; 1];
        let mut beat = Instant::now() + self.heartbeat.unwrap_or(far);
        loop {
            tokio::select! {
                end = &mut past => {
                    self.end = end;
                    return Ok(());
                }
                // Whatever it says now: a stream is ended by closing it.
                _ = self.input.read(&mut word) => return Err(StreamEnd::Left),
                () = self.visit.cancelled() => self.visit.ended()?,
                () = tokio::time::sleep_until(beat) => {
                    beat = Instant::now() + self.heartbeat.unwrap_or(far);
                    if self.heartbeat.is_some() {
                        self.output.event(&build::heartbeat(self.identity.server_id, &self.name, place.offset, checksum));
                        self.output.flush().await?;
                    }
                }
            }
        }
    }

    /// The file behind `at`, once its first event is there.
    async fn next_file(&mut self, at: &FeedFile, checksum: Checksum) -> Result<Opened, StreamEnd> {
        let feed = Arc::clone(&self.feed);
        let (after, end) = (at.clone(), self.end);
        let found = tokio::task::spawn_blocking(move || {
            let files = feed.files().map_err(StartFault::Directory)?;
            let next = files.into_iter().find(|file| file.key() > after.key());
            let next = next.ok_or_else(|| StreamEnd::Pruned(after.name.clone()))?;
            Ok::<_, StreamEnd>(open(feed.as_ref(), &next, end)?.ok_or(next))
        });
        let opened = match found.await.map_err(io::Error::other)?? {
            Ok(opened) => opened,
            Err(next) => {
                let place = Place { lineage: next.lineage, file: next.file, offset: 0 };
                self.wait(place, checksum).await?;
                return Box::pin(self.next_file(at, checksum)).await;
            }
        };
        if opened.at.lineage == at.lineage {
            let follows = opened.at.file == at.file + 1;
            return if follows { Ok(opened) } else { Err(StreamEnd::Pruned(at.name.clone())) };
        }
        let Some(state) = self.selection.state() else { return Err(StreamEnd::Lineage) };
        match &opened.head.initial {
            Some(initial) if state.contains_all(initial) => Ok(opened),
            _ => Err(StartFault::TooOld.into()),
        }
    }
}
