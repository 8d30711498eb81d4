//! Builds a managed standby: a fresh data directory, the newest base snapshot that leads to the archive's end, and the branches
//! that were prepared at its place. Replication does the rest.

use super::Parts;
use super::error::StandbyError;
use super::record::Record;
use crate::database::archive::Target;
use crate::database::restore::{RestoreError, Route, Vault};
use crate::database::server::{Flavor, Mysqld, MysqldOptions, Role, ServerError, Tool};
use crate::database::sql::{Sql, quote_text};
use crate::settings::DatabaseAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;

/// Whether this is to end is looked at so often.
const LOOK: Duration = Duration::from_millis(100);

/// Told how far it is.
pub type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// The options of the server that is the standby.
pub(super) fn options(parts: &Parts) -> MysqldOptions {
    let settings = &parts.settings;
    let mut arguments = Vec::new();
    let socket = match &settings.address {
        DatabaseAddress::Socket(path) => Some(path.clone()),
        DatabaseAddress::Tcp(at) => {
            arguments.extend([
                "--skip-networking=0".to_owned(),
                format!("--bind-address={}", at.host),
                format!("--port={}", at.port),
            ]);
            None
        }
    };
    arguments.extend(settings.options.iter().cloned());
    MysqldOptions {
        datadir: settings.datadir.clone(),
        role: Role::Standby,
        server_id: settings.server_id,
        flavor: Flavor::MariaDb,
        socket,
        arguments,
    }
}

/// Builds it, in place of what is in the data directory when `force`.
pub(super) async fn build(
    parts: &Arc<Parts>,
    force: bool,
    tell: &Tell,
    stop: &Arc<AtomicBool>,
) -> Result<(Record, Mysqld), StandbyError> {
    let datadir = parts.settings.datadir.clone();
    let cleared = datadir.clone();
    // A large one takes its time.
    let clear = tokio::task::spawn_blocking(move || clear(&cleared, force)).await;
    clear.map_err(|_| StandbyError::Stopped)??;
    tell(format!("making {}", datadir.display()));
    Mysqld::init(&datadir, &parts.tools, Flavor::MariaDb).await?;
    let server = start(parts, stop).await?;
    match load(parts, &server, tell, stop).await {
        Ok(record) => {
            record.store(&datadir)?;
            Ok((record, server))
        }
        Err(error) => {
            server.discard().await;
            Err(error)
        }
    }
}

/// Starts its server. After a crash that may take long: a stop ends the wait.
pub(super) async fn start(parts: &Parts, stop: &AtomicBool) -> Result<Mysqld, StandbyError> {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        started = Mysqld::start(options(parts), &parts.tools) => Ok(started?),
        () = stopped => Err(StandbyError::Stopped),
    }
}

/// Everything to build from is there: a base snapshot, the binary logs after it, the programs. Nothing is touched.
pub(super) async fn check(parts: &Arc<Parts>) -> Result<(), StandbyError> {
    with_vault(parts, |vault| {
        let route = route(vault)?;
        vault.means(&route)?;
        vault.tools.find(Tool::Server, route.flavor).map_err(ServerError::from)?;
        Ok(())
    })
    .await
}

async fn load(
    parts: &Arc<Parts>,
    server: &Mysqld,
    tell: &Tell,
    stop: &Arc<AtomicBool>,
) -> Result<Record, StandbyError> {
    let (tell, stop, dsn) = (tell.clone(), stop.clone(), server.dsn());
    let loaded = with_vault(parts, move |vault| {
        let route = route(vault)?;
        let means = vault.means(&route)?;
        // A standby has no history of its own: nothing of it goes into a binary log.
        vault.load_base((&route, &means), &dsn, true, &*tell, &stop)?;
        let gtid = vault.archive.gtid_at(route.place).map_err(RestoreError::from)?;
        Ok((route.base.number, gtid.to_string()))
    });
    let (base, gtid) = loaded.await?;
    let mut sql = Sql::connect(&server.dsn()).await?;
    sql.run(&format!("SET GLOBAL gtid_slave_pos = {}", quote_text(&gtid))).await?;
    sql.close().await;
    Ok(Record { base, stopped: false, running: true, failed_at: None })
}

/// The newest base snapshot that leads to the archive's end, and the way there.
fn route(vault: &Vault<'_>) -> Result<Route, StandbyError> {
    let end = vault.archive.find(&Target::Latest).map_err(RestoreError::from)?;
    let route = vault.route(&end)?;
    if route.flavor == Flavor::MariaDb { Ok(route) } else { Err(StandbyError::NotMaria) }
}

/// Does what blocks.
async fn with_vault<T: Send + 'static>(
    parts: &Arc<Parts>,
    work: impl FnOnce(&Vault<'_>) -> Result<T, StandbyError> + Send + 'static,
) -> Result<T, StandbyError> {
    let (parts, runtime) = (parts.clone(), Handle::current());
    let work = move || {
        let Parts { archive, bases, tools, .. } = &*parts;
        work(&Vault { archive, bases, tools, runtime: &runtime })
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| StandbyError::Stopped)?
}

/// The data directory is absent or empty after this.
fn clear(datadir: &Path, force: bool) -> Result<(), StandbyError> {
    if is_there(datadir) && !force {
        return Err(StandbyError::Exists { datadir: datadir.to_owned() });
    }
    // From here on there is no standby, whenever this ends.
    Record::remove(datadir)?;
    match std::fs::remove_dir_all(datadir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StandbyError::File { what: "cannot remove", path: datadir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// A standby, or anything else in its directory.
pub(super) fn is_there(datadir: &Path) -> bool {
    let is_empty = std::fs::read_dir(datadir).map_or(true, |mut entries| entries.next().is_none());
    !is_empty || Record::load(datadir).is_ok_and(|record| record.is_some())
}
