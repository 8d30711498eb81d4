//! Builds a managed standby: a fresh data directory, the newest base snapshot that leads to the archive's end, and the branches
//! that were prepared at its place. Replication does the rest.

use super::Parts;
use super::error::StandbyError;
use super::record::Record;
use crate::database::archive::Target;
use crate::database::restore::{RestoreError, Vault};
use crate::database::server::{Flavor, Mysqld, MysqldOptions, Role};
use crate::database::sql::{Sql, quote_text};
use crate::settings::DatabaseAddress;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::runtime::Handle;

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
    // Before what is there is given up.
    route_known(parts).await?;
    clear(&datadir, force)?;
    tell(format!("making {}", datadir.display()));
    Mysqld::init(&datadir, &parts.tools, Flavor::MariaDb).await?;
    let server = Mysqld::start(options(parts), &parts.tools).await?;
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

/// There is a base snapshot to build from, and the binary logs after it.
async fn route_known(parts: &Arc<Parts>) -> Result<(), StandbyError> {
    let (shared, runtime) = (parts.clone(), Handle::current());
    let work = move || {
        let Parts { archive, bases, tools, .. } = &*shared;
        let vault = Vault { archive, bases, tools, runtime: &runtime };
        let end = archive.find(&Target::Latest).map_err(RestoreError::from)?;
        let route = vault.route(&end)?;
        if route.flavor == Flavor::MariaDb { Ok(()) } else { Err(StandbyError::NotMaria) }
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| StandbyError::Stopped)?
}

async fn load(
    parts: &Arc<Parts>,
    server: &Mysqld,
    tell: &Tell,
    stop: &Arc<AtomicBool>,
) -> Result<Record, StandbyError> {
    let (shared, tell, stop, dsn) = (parts.clone(), tell.clone(), stop.clone(), server.dsn());
    let runtime = Handle::current();
    let work = move || {
        let Parts { archive, bases, tools, .. } = &*shared;
        let vault = Vault { archive, bases, tools, runtime: &runtime };
        let end = archive.find(&Target::Latest).map_err(RestoreError::from)?;
        let route = vault.route(&end)?;
        if route.flavor != Flavor::MariaDb {
            return Err(StandbyError::NotMaria);
        }
        // A standby has no history of its own: nothing of it goes into a binary log.
        vault.load_base(&route, &dsn, true, &*tell, &stop)?;
        Ok((route.base.number, route.base.gtid))
    };
    let loaded = tokio::task::spawn_blocking(work).await;
    let (base, gtid) = loaded.map_err(|_| StandbyError::Stopped)??;
    let mut sql = Sql::connect(&server.dsn()).await?;
    sql.run(&format!("SET GLOBAL gtid_slave_pos = {}", quote_text(&gtid))).await?;
    sql.close().await;
    Ok(Record { base, stopped: false })
}

/// The data directory is absent or empty after this.
fn clear(datadir: &Path, force: bool) -> Result<(), StandbyError> {
    let is_empty = std::fs::read_dir(datadir).map_or(true, |mut entries| entries.next().is_none());
    let there = Record::load(datadir).is_ok_and(|record| record.is_some());
    if (there || !is_empty) && !force {
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
