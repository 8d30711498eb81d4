//! Base snapshots over the replication link: into the second store of the backup.

use crate::database::base::BaseSink;
use crate::replication::connector::{ConnectorOptions, TlsConnector};
use crate::replication::link::{Connector, Hello, Link};
use bytes::Bytes;
use ehpc_proto::replication::message::Blob;
use ehpc_proto::replication::{Hash, Position, StreamId};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// What the hello says is sent.
const NAME: &str = "database";
/// A batch that is not acknowledged by then is given up: the link has long fallen.
const PATIENCE: Duration = Duration::from_secs(600);
/// Without news the link is looked at now and then.
const LOOK: Duration = Duration::from_secs(1);

/// A connection for one base. Its calls block: it belongs to a thread of its own, outside of the runtime.
pub(super) struct BaseLink {
    link: Box<dyn Link>,
    position: Position,
    news: Arc<(Mutex<()>, Condvar)>,
    end: CancellationToken,
}

impl Drop for BaseLink {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl BaseLink {
    /// Connects to the paired backup; one attempt. `options.shutdown` is this connection's own, cancelled at its end.
    pub(super) fn connect(runtime: Handle, options: ConnectorOptions) -> Result<BaseLink, String> {
        let stream = StreamId(rand::random());
        let hello = Hello { export: NAME.to_owned(), stream, position: None };
        let end = options.shutdown.clone();
        let made = TlsConnector::new(runtime, options).connect(hello);
        let (welcome, mut link) = made.map_err(|down| down.to_string())?;
        let news = Arc::new((Mutex::new(()), Condvar::new()));
        let told = Arc::clone(&news);
        link.on_event(Arc::new(move || {
            let _held = told.0.lock();
            told.1.notify_all();
        }));
        let position = welcome.position.unwrap_or_else(|| Position::start(stream));
        Ok(BaseLink { link, position, news, end })
    }
}

impl BaseSink for BaseLink {
    fn position(&self) -> Position {
        self.position
    }

    fn lacking(&mut self, hashes: &[Hash]) -> Result<Vec<bool>, String> {
        self.link.lacking(hashes).map_err(|down| down.to_string())
    }

    fn blobs(&mut self, blobs: Vec<Blob>) -> Result<(), String> {
        self.link.send_blobs(blobs).map_err(|down| down.to_string())
    }

    fn commit(&mut self, number: u64, encoded: Bytes) -> Result<(), String> {
        self.link.send_batch(number, encoded).map_err(|down| down.to_string())?;
        let until = Instant::now() + PATIENCE;
        loop {
            // Whatever comes after this look wakes the wait.
            let mut held = self.news.0.lock();
            if self.link.poll_acks().is_some_and(|acked| acked >= number) {
                return Ok(());
            }
            self.link.check().map_err(|down| down.to_string())?;
            if Instant::now() > until {
                return Err(format!("the backup did not store the base within {} s", PATIENCE.as_secs()));
            }
            self.news.1.wait_for(&mut held, LOOK);
        }
    }
}
