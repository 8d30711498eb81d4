//! The standby: a stock server on the backup that replicates from the archive's binlog server. Managed, it is built, started and
//! kept going here; external, it is only looked at.

mod build;
mod crash;
mod error;
mod health;
mod record;
#[cfg(test)]
pub(crate) mod tests;
mod watch;

pub use build::Tell;
pub use error::StandbyError;

use crate::database::archive::Archive;
use crate::database::base::BaseStore;
use crate::database::dsn::Dsn;
use crate::database::server::{Flavor, Tools};
use crate::database::sql::quote_text;
use crate::observe::status::DatabaseStandbyStatus;
use crate::settings;
use parking_lot::Mutex;
use record::Record;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{RwLock, mpsc, oneshot};
use watch::Keeper;

/// The binlog server that is followed.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens, as the standby reaches it.
    pub address: SocketAddr,
    /// Its account.
    pub user: String,
    /// That account's password.
    pub password: String,
}

impl Upstream {
    /// How a MariaDB follows it.
    pub(crate) fn change_master(&self) -> String {
        format!(
            "CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, MASTER_SSL = 0, \
             MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = 5",
            quote_text(&self.address.ip().to_string()),
            self.address.port(),
            quote_text(&self.user),
            quote_text(&self.password)
        )
    }

    /// The statements with which a server of the operator's own follows, after the newest base snapshot was loaded into it.
    pub(crate) fn sql(&self, bases: &BaseStore) -> String {
        let Some(base) = bases.list().pop() else {
            return format!(
                "-- There is no base snapshot yet (`ehpc-store db snapshot`): this is for an empty server.\n{};\nSTART SLAVE;\n",
                self.change_master()
            );
        };
        let at = format!("{}:{}", base.place.file, base.place.offset);
        let load = format!(
            "-- Load base snapshot {} into it first: ehpc-store db restore --position {at} --to DSN\n",
            base.number
        );
        match base.flavor {
            Flavor::MariaDb => format!(
                "{load}SET GLOBAL gtid_slave_pos = {};\n{};\nSTART SLAVE;\n",
                quote_text(&base.gtid),
                self.change_master()
            ),
            Flavor::MySql => format!(
                "{load}CHANGE MASTER TO MASTER_HOST = {}, MASTER_PORT = {}, MASTER_USER = {}, MASTER_PASSWORD = {}, \
                 MASTER_LOG_FILE = {}, MASTER_LOG_POS = {}, MASTER_CONNECT_RETRY = 1;\nSTART SLAVE;\n",
                quote_text(&self.address.ip().to_string()),
                self.address.port(),
                quote_text(&self.user),
                quote_text(&self.password),
                quote_text(&base.place.file),
                base.place.offset
            ),
        }
    }
}

/// What a standby is made of.
pub struct Parts {
    /// `[database.standby]`.
    pub settings: settings::Standby,
    /// Where the server's programs are.
    pub tools: Tools,
    /// What it follows.
    pub upstream: Upstream,
    /// The binary logs.
    pub archive: Arc<Archive>,
    /// The base snapshots.
    pub bases: Arc<BaseStore>,
    /// Read-locked while one is built: nothing of these is pruned then.
    pub in_use: Arc<RwLock<()>>,
}

/// What the task and those who ask share.
struct Shared {
    status: Mutex<DatabaseStandbyStatus>,
    dsn: Mutex<Option<Dsn>>,
    stop: Arc<AtomicBool>,
}

enum Command {
    Init { force: bool, tell: Tell, reply: oneshot::Sender<Result<(), StandbyError>> },
    Start { reply: oneshot::Sender<Result<(), StandbyError>> },
    Stop { reply: oneshot::Sender<Result<(), StandbyError>> },
    Shutdown { reply: oneshot::Sender<()> },
}

/// The standby in our hands.
pub struct Standby {
    parts: Arc<Parts>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Standby {
    /// Takes it in hand; a managed one that is built, and was not stopped by a person, is started. Call it in the
    /// runtime.
    pub fn start(parts: Parts) -> Result<Standby, StandbyError> {
        let record = Record::load(&parts.settings.datadir)?;
        let status = DatabaseStandbyStatus {
            state: "starting".to_owned(),
            address: parts.settings.address.to_string(),
            ..DatabaseStandbyStatus::default()
        };
        let parts = Arc::new(parts);
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared { status: Mutex::new(status), dsn: Mutex::new(None), stop });
        let (commands, receiver) = mpsc::channel(4);
        tokio::spawn(Keeper::new(parts.clone(), shared.clone(), record).run(receiver));
        Ok(Standby { parts, shared, commands })
    }

    /// As it was a second ago.
    pub fn status(&self) -> DatabaseStandbyStatus {
        self.shared.status.lock().clone()
    }

    /// How to connect to it, with all privileges; `None` while it does not run.
    pub fn dsn(&self) -> Option<Dsn> {
        self.shared.dsn.lock().clone()
    }

    /// Builds it from a base snapshot and starts it. `force`: in place of what is there.
    pub async fn init(&self, force: bool, tell: Tell) -> Result<(), StandbyError> {
        self.ask(|reply| Command::Init { force, tell, reply }).await?
    }

    /// Runs it (again).
    pub async fn resume(&self) -> Result<(), StandbyError> {
        self.ask(|reply| Command::Start { reply }).await?
    }

    /// Ends it; it stays stopped, also after a restart of this daemon, until it is resumed.
    pub async fn stop(&self) -> Result<(), StandbyError> {
        self.ask(|reply| Command::Stop { reply }).await?
    }

    /// The statements with which a server of the operator's own follows.
    pub fn sql(&self) -> String {
        self.parts.upstream.sql(&self.parts.bases)
    }

    /// Ends everything in order.
    pub async fn shutdown(&self) {
        // A build in hand ends at the next piece.
        self.shared.stop.store(true, Ordering::Relaxed);
        let _ = self.ask(|reply| Command::Shutdown { reply }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, StandbyError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StandbyError::Stopped)?;
        answer.await.map_err(|_| StandbyError::Stopped)
    }
}
