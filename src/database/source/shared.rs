//! What the source's tasks and those who ask about it share.

use super::SourceOptions;
use super::dump::{self, Dump};
use super::fault::SourceFault;
use super::lane::{Exchange, UnderWay};
use super::semisync::SemiSyncWatch;
use crate::database::dsn::Dsn;
use crate::database::sql::{Sql, SqlError};
use crate::observe::status::DatabaseSourceStatus;
use crate::observe::words::now_ms;
use ehpc_proto::replication::database::{ArchivedFile, DbAnswer, DbQuery, Place};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Times of what is on its way are not kept finer than this.
const FINE: Duration = Duration::from_millis(1);

/// Time until the server is asked again.
const AGAIN: Duration = Duration::from_millis(100);

/// Where the stream is: bytes of this file up to `place` were handed to the lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cursor {
    pub(super) name: String,
    pub(super) place: Place,
}

#[derive(Default)]
struct Words {
    state: &'static str,
    server: String,
    version: String,
    gtid: String,
    last_error: Option<String>,
    reconnects: u64,
    /// Times that streaming began.
    sessions: u64,
    /// The present one, while it streams.
    session: Option<Session>,
}

/// A connection that streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Session {
    /// Its number.
    pub(super) number: u64,
    /// Whether the server wants acknowledgements over it; `None`: nothing has come yet.
    pub(super) acknowledges: Option<bool>,
}

pub(super) struct Shared {
    pub(super) options: SourceOptions,
    pub(super) exchange: Arc<Exchange>,
    /// End of the last whole group handed to the lane.
    pub(super) end: watch::Sender<Option<Place>>,
    pub(super) cursor: watch::Sender<Option<Cursor>>,
    /// The server that is used, and the lineage that is shipped from it.
    pub(super) server: watch::Sender<Option<(Dsn, u32)>>,
    words: Mutex<Words>,
    /// What was handed to the lane and is not durable yet, and when.
    under_way: Mutex<VecDeque<(Place, Instant)>>,
    /// Since when the server may have what was not read: nothing streams, or what streams is old.
    behind: Mutex<Option<Instant>>,
    /// Time of the newest event of this session by the server's clock, in seconds; 0: none yet.
    newest: AtomicU64,
    /// The server that is streamed, or was.
    followed: Mutex<Option<Dsn>>,
    pub(super) semi_sync: Mutex<SemiSyncWatch>,
    /// The connection to the server must be made anew.
    pub(super) renew: Notify,
    pub(super) bytes: AtomicU64,
    pub(super) events: AtomicU64,
    accept_loss: AtomicBool,
    /// Try again now.
    pub(super) again: Notify,
}

impl Shared {
    pub(super) fn new(options: SourceOptions) -> Shared {
        let words = Words { state: "starting", ..Words::default() };
        Shared {
            options,
            exchange: Arc::new(Exchange::new()),
            end: watch::channel(None).0,
            cursor: watch::channel(None).0,
            server: watch::channel(None).0,
            words: Mutex::new(words),
            under_way: Mutex::new(VecDeque::new()),
            behind: Mutex::new(Some(Instant::now())),
            newest: AtomicU64::new(0),
            followed: Mutex::new(None),
            semi_sync: Mutex::new(SemiSyncWatch::default()),
            renew: Notify::new(),
            bytes: AtomicU64::new(0),
            events: AtomicU64::new(0),
            accept_loss: AtomicBool::new(false),
            again: Notify::new(),
        }
    }

    pub(super) fn accept_loss(&self) {
        self.accept_loss.store(true, Ordering::Relaxed);
        self.again.notify_one();
    }

    pub(super) fn may_lose(&self) -> bool {
        self.accept_loss.load(Ordering::Relaxed)
    }

    /// A new lineage was begun with that permission, or a stream went well; it does not hold for the next trouble.
    pub(super) fn lost(&self) {
        self.accept_loss.store(false, Ordering::Relaxed);
    }

    pub(super) fn connecting(&self, state: &'static str) {
        self.words.lock().state = state;
    }

    pub(super) fn streaming(&self, dsn: &Dsn, lineage: u32, version: &str, gtid: String) {
        *self.followed.lock() = Some(dsn.clone());
        self.newest.store(0, Ordering::Relaxed);
        self.server.send_replace(Some((dsn.clone(), lineage)));
        let mut words = self.words.lock();
        words.sessions += 1;
        words.session = Some(Session { number: words.sessions, acknowledges: None });
        words.state = "streaming";
        words.server = dsn.server.to_string();
        words.version = version.to_owned();
        words.gtid = gtid;
        words.last_error = None;
    }

    pub(super) fn grown(&self, gtid: String) {
        self.words.lock().gtid = gtid;
    }

    pub(super) fn failed(&self, fault: &SourceFault) {
        // Who waits for a change is not woken by one more attempt that fails.
        self.server.send_if_modified(|server| server.take().is_some());
        self.behind();
        self.under_way.lock().clear();
        {
            let mut words = self.words.lock();
            words.session = None;
            words.state = fault.state();
            words.reconnects += 1;
            words.last_error = Some(fault.to_string());
        }
        self.semi_sync.lock().interrupted(now_ms());
    }

    /// What the stream's first packet said of this session.
    pub(super) fn acknowledges(&self, acknowledges: bool) {
        if let Some(session) = &mut self.words.lock().session {
            session.acknowledges = Some(acknowledges);
        }
    }

    /// The session that streams now. Never asked with the state of semi-sync behind it in line: that one
    /// is locked first.
    pub(super) fn session(&self) -> Option<Session> {
        self.words.lock().session
    }

    /// The server that is streamed, or was last; the only one that there is; `None`: nobody knows which of several.
    pub(super) fn followed(&self) -> Option<Dsn> {
        let followed = self.followed.lock().clone();
        followed.or_else(|| match &self.options.servers[..] {
            [only] => Some(only.clone()),
            _ => None,
        })
    }

    /// From now on the server may have what was not read, at most since the oldest of what is on its way.
    pub(super) fn behind(&self) {
        let oldest = self.under_way.lock().front().map(|(_, since)| *since);
        self.behind.lock().get_or_insert_with(|| oldest.unwrap_or_else(Instant::now));
    }

    /// What the server has was read, up to now.
    pub(super) fn live(&self) {
        *self.behind.lock() = None;
    }

    /// Bytes up to here were handed to the lane; `newest`: the time of their newest event.
    pub(super) fn handed(&self, place: Place, newest: u32) {
        let now = Instant::now();
        self.newest.store(u64::from(newest), Ordering::Relaxed);
        let mut under_way = self.under_way.lock();
        match under_way.back_mut() {
            Some((newest, since)) if now.duration_since(*since) < FINE => *newest = place,
            _ => under_way.push_back((place, now)),
        }
        drop_durable(&mut under_way, *self.exchange.durable().borrow());
    }

    fn lag(&self) -> Duration {
        let mut under_way = self.under_way.lock();
        drop_durable(&mut under_way, *self.exchange.durable().borrow());
        let handed = under_way.front().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let Some(behind) = *self.behind.lock() else { return handed };
        // What was not read is younger than what was read last; that is as good as the server's clock.
        let unread = match (self.session(), self.newest.load(Ordering::Relaxed)) {
            (None, _) | (_, 0) => behind.elapsed(),
            (Some(_), newest) => {
                let age = now_ms().saturating_sub(newest.saturating_mul(1000));
                behind.elapsed().min(Duration::from_millis(age))
            }
        };
        handed.max(unread)
    }

    pub(super) fn status(&self) -> DatabaseSourceStatus {
        let lag = self.lag();
        let cursor = self.cursor.borrow().clone();
        let semi_sync = self.options.semi_sync.then(|| self.semi_sync.lock().status());
        let words = self.words.lock();
        let first = || self.options.servers.first().map(|dsn| dsn.server.to_string()).unwrap_or_default();
        DatabaseSourceStatus {
            state: words.state.to_owned(),
            well: words.state == "streaming",
            address: if words.server.is_empty() { first() } else { words.server.clone() },
            version: words.version.clone(),
            file: cursor.as_ref().map(|cursor| cursor.name.clone()).unwrap_or_default(),
            offset: cursor.map_or(0, |cursor| cursor.place.offset),
            gtid: words.gtid.clone(),
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            bytes: self.bytes.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            reconnects: words.reconnects,
            semi_sync,
            findings: Vec::new(),
            last_error: words.last_error.clone(),
        }
    }

    /// Waits until the server's present end was handed to the lane; for the stream, too, while there is none.
    pub(super) async fn fresh(&self) -> Result<Place, String> {
        let mut server = self.server.subscribe();
        loop {
            let used = server.wait_for(Option::is_some).await.map(|used| used.clone());
            let Ok(Some((dsn, lineage))) = used else { return Err("the source has ended".to_owned()) };
            match present_end(&dsn).await {
                Ok((file, position)) => match self.handed_over(lineage, &file, position).await {
                    Some(place) => {
                        if let Ok(place) = place {
                            // A server's end is never within a group.
                            self.whole(place);
                        }
                        return place;
                    }
                    // Another server is followed now: its end counts.
                    None => continue,
                },
                Err(error) if error.is_connection() => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// A whole group ends here, and was handed to the lane.
    pub(super) fn whole(&self, place: Place) {
        self.end.send_if_modified(|end| {
            let newer = end.is_none_or(|end| end < place);
            if newer {
                *end = Some(place);
            }
            newer
        });
    }

    /// The server of that lineage, and that file of it as the archive knows it.
    async fn held(&self, lineage: u32, ordinal: u32) -> Result<(Dsn, ArchivedFile), String> {
        let used = self.server.borrow().clone().filter(|(_, current)| *current == lineage);
        let dsn = used.map(|(dsn, _)| dsn);
        let dsn = dsn.ok_or_else(|| {
            format!("there is no connection to the server that lineage {lineage} of the archive is from")
        })?;
        let files = self.exchange.ask(DbQuery::Files { from: (lineage, ordinal) }).await?;
        let file = files.into_iter().find_map(|answer| match answer {
            DbAnswer::Files(files) => files.into_iter().next(),
            _ => None,
        });
        let file = file.filter(|file| (file.lineage, file.ordinal) == (lineage, ordinal));
        let file = file.ok_or_else(|| format!("the archive has no file {ordinal} in lineage {lineage}"))?;
        Ok((dsn, file))
    }

    /// Fetches a whole complete file anew, also one that the archive has lost.
    pub(super) async fn refetch_file(&self, lineage: u32, ordinal: u32) -> Result<(), String> {
        let (dsn, file) = self.held(lineage, ordinal).await?;
        let mut sql = Sql::connect(&dsn).await.map_err(|error| error.to_string())?;
        let listed = sql.rows("SHOW BINARY LOGS").await.map_err(|error| error.to_string())?;
        sql.close().await;
        let listed = listed.iter().find(|row| row.string(0) == file.name).and_then(|row| row.number(1));
        let end = match listed {
            None => return Err("the server has purged it (SHOW BINARY LOGS)".to_owned()),
            Some(len) if len == file.len => len,
            // What a killed server left half written is counted there, and is not part of the log.
            Some(_) => dump::end(&dsn, &file.name).await.map_err(|fault| fault.to_string())?,
        };
        self.refetch(lineage, ordinal, 0, end).await
    }

    /// Fetches a range of a complete file anew.
    pub(super) async fn refetch(&self, lineage: u32, ordinal: u32, from: u64, to: u64) -> Result<(), String> {
        let (dsn, file) = self.held(lineage, ordinal).await?;
        let dump = Dump::open(&dsn, &file.name, from, Some(to)).await;
        let mut dump = dump.map_err(|fault| fault.to_string())?;
        let query = DbQuery::Refetch { lineage, ordinal, from, to };
        let (id, answer) = self.exchange.question(query).await?;
        let patches = async {
            let mut under_way = UnderWay::default();
            while let Some((offset, bytes)) = dump.next().await.map_err(|fault| fault.to_string())? {
                self.exchange.patch(id, offset, bytes, &mut under_way).await?;
            }
            Ok::<(), String>(())
        };
        tokio::pin!(answer);
        let answer = tokio::select! {
            // Refused at once: nobody waits for the rest.
            answer = &mut answer => answer?,
            sent = patches => {
                sent?;
                answer.await?
            }
        };
        match answer.into_iter().next() {
            Some(DbAnswer::Refetched) => Ok(()),
            Some(DbAnswer::Failed { reason }) => Err(reason),
            other => Err(format!("the archive answers {other:?}")),
        }
    }

    /// Waits until the stream has passed that place of a lineage. `None`: the lineage ended before. (Until the first
    /// bytes of a new lineage, the cursor is in the one before it.)
    pub(super) async fn handed_over(
        &self,
        lineage: u32,
        file: &str,
        position: u64,
    ) -> Option<Result<Place, String>> {
        let found = |at: &Cursor| match at.place.lineage.cmp(&lineage) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => place_of(file, position, at).map(Some),
            std::cmp::Ordering::Greater => Some(None),
        };
        let mut cursor = self.cursor.subscribe();
        let reached = cursor.wait_for(|at| at.as_ref().and_then(found).is_some()).await;
        match reached {
            Ok(at) => at.as_ref().and_then(found)?.map(Ok),
            Err(_) => Some(Err("the source has ended".to_owned())),
        }
    }
}

/// The end of a server's log, at the last transaction that is committed. MariaDB is not asked for its log's own end:
/// that question waits with the commits that wait for a semi-synchronous replica (`LOCK_log`), and such commits are none
/// yet.
async fn present_end(dsn: &Dsn) -> Result<(String, u64), SqlError> {
    let mut sql = Sql::connect(dsn).await?;
    let statement = sql.dialect().binary_log_status();
    let place = match sql.dialect().snapshot_tells_position() {
        true => sql.snapshot_place().await?,
        false => sql.row(statement).await?.and_then(|row| Some((row.string(0), row.number(1)?))),
    };
    place.ok_or_else(|| SqlError::Answer {
        statement: statement.to_owned(),
        what: "nothing: the server has no binary log".to_owned(),
    })
}

fn drop_durable(under_way: &mut VecDeque<(Place, Instant)>, durable: Option<Place>) {
    while under_way.front().is_some_and(|(place, _)| durable.is_some_and(|durable| *place <= durable)) {
        under_way.pop_front();
    }
}

/// A place of the server's log as a place of the archive, once the stream has passed it. Files are numbered without
/// gaps on both sides.
fn place_of(file: &str, position: u64, at: &Cursor) -> Option<Place> {
    let number = |name: &str| name.rsplit_once('.').and_then(|(_, digits)| digits.parse::<u64>().ok());
    let ahead = number(&at.name)?.checked_sub(number(file)?)?;
    if ahead == 0 && at.place.offset < position {
        return None;
    }
    let ordinal = at.place.file.checked_sub(u32::try_from(ahead).ok()?)?;
    Some(Place { lineage: at.place.lineage, file: ordinal, offset: position })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_the_log_is_found_once_the_stream_has_passed_it() {
        let at = Cursor { name: "bin.000012".into(), place: Place { lineage: 2, file: 5, offset: 700 } };
        let place = |file, offset| Some(Place { lineage: 2, file, offset });
        assert_eq!(place_of("bin.000012", 700, &at), place(5, 700));
        assert_eq!(place_of("bin.000012", 701, &at), None);
        assert_eq!(place_of("bin.000010", 90_000, &at), place(3, 90_000));
        assert_eq!(place_of("bin.000013", 4, &at), None);
        assert_eq!(place_of("bin.000001", 4, &at), None, "before the lineage");
    }
}
