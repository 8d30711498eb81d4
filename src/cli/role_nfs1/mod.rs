//! The nfs1 role: the share, what notices its changes, and what sends them.

mod actions;

use super::assemble::{Launch, Role};
use super::daemon::listen;
use super::database_source::{DatabaseSource, SourceParts};
use super::prove::Prover;
use super::rate::Rate;
use super::shares::Shares;
use super::unprivileged;
use crate::change::{
    self, CaptureOptions, ChangeCapture, DirtySet, ShadowNotes, ShadowReader, WatchChoice, watch::Watcher,
};
use crate::host::{self, Tree, mounts};
use crate::nfs::portmap::{self, Portmap};
use crate::nfs::{self, HandleKey, LockOptions};
use crate::replication::channel::DialOptions;
use crate::replication::connector::{Asker, ConnectorOptions, LinkMonitor, LinkState, TlsConnector};
use crate::replication::identity::{Identity, Peers};
use crate::replication::sender::{self, SenderControl, SenderParts};
use crate::replication::transport::ALPN_STORE;
use crate::settings::{Cluster, Durability, Nfs1, PortmapMode, WatcherChoice};
use crate::vfs::{LocalOptions, LocalVfs};
use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The mounts of this machine are looked at so often.
const MOUNTS_LOOKED_AT: Duration = Duration::from_secs(5);
/// The fence at a stop.
const LAST_FENCE: Duration = Duration::from_secs(5);
/// The sender closes its index within this time.
const SENDER_PATIENCE: Duration = Duration::from_secs(5);

/// A running nfs1.
pub(super) struct Nfs1Role {
    cluster: Cluster,
    settings: Nfs1,
    server: nfs::Server,
    shares: Arc<Shares>,
    /// What cannot be done for want of privileges.
    notes: Vec<String>,
    stop_nfs: CancellationToken,
    beside: tokio::sync::Mutex<Beside>,
    rate: Arc<Mutex<Rate>>,
    prover: Arc<Prover>,
    /// Set at a stop: a verification that runs ends early.
    stop_verify: Arc<AtomicBool>,
    capture: Mutex<Option<ChangeCapture>>,
    dirty: Arc<DirtySet>,
    sender: SenderControl,
    link: Link,
    /// The database beside the share.
    database: Option<Arc<DatabaseSource>>,
}

/// The link to the backup.
struct Link {
    monitor: LinkMonitor,
    /// Ends waits and connections.
    stop: CancellationToken,
}

impl Nfs1Role {
    /// Opens the export, starts noticing changes, then serves it.
    pub(super) async fn start(launch: &Launch, stop: CancellationToken) -> Result<Nfs1Role> {
        let settings = launch.cluster.nfs1.clone().context("the settings have no nfs1")?;
        let listener = listen(&launch.cluster, "nfs1.listen", settings.listen).await?;
        let path = &settings.export.path;
        let tree = Tree::open(path).with_context(|| format!("opening the export {}", path.display()))?;
        let tree = Arc::new(tree);
        let dirty = DirtySet::new();
        let index = settings.state.join("shadow.sqlite");
        tree.set_hints(Arc::new(sender::prepare_shadow(&index)?));
        let readers = {
            let index = index.clone();
            Arc::new(move || ShadowReader::open(&index))
        };
        let (control, seat) = SenderControl::new();
        let notes: ShadowNotes = {
            let control = control.clone();
            Arc::new(move |note| control.note(note))
        };
        let options = capture_options(&settings, launch.accept_new_export);
        let capture = ChangeCapture::start(&tree, &dirty, readers, notes, &settings.state, &options)?;
        require_watcher(&settings, &capture)?;
        if launch.accept_removal {
            capture.scans().consent();
        }
        let (connector, asker, link, dial) = connector(&settings)?;
        let scans = Arc::clone(capture.scans());
        let parts = SenderParts {
            export: settings.export.name.clone(),
            tree: Arc::clone(&tree),
            dirty: Arc::clone(&dirty),
            directories: Arc::clone(capture.directories()),
            shadow: index.clone(),
            connector: Box::new(connector),
            scan: Arc::new(move || scans.demand()),
        };
        sender::spawn(parts, seat)?;
        let database = launch.cluster.database.clone().map(|database| {
            let (fence, sender) = (capture.fence().clone(), control.clone());
            let parts = SourceParts { settings: database, dial, fence, sender, dirty: Arc::clone(&dirty) };
            Arc::new(DatabaseSource::start(parts))
        });
        let prover = Prover {
            tree: Arc::clone(&tree),
            index,
            scans: Arc::clone(capture.scans()),
            fence: capture.fence().clone(),
            sender: control.clone(),
            asker,
            runtime: Handle::current(),
            last: Mutex::default(),
        };
        let stop_nfs = CancellationToken::new();
        let mut notes = unprivileged::notes(host::privileges(), capture.status().watch.why.as_deref());
        let served = serve(&settings, tree, Arc::clone(&dirty), listener, stop_nfs.clone(), &mut notes);
        let (server, shares) = served.await?;
        notes.iter().for_each(|note| tracing::info!("{note}"));
        let beside = Beside::start(&settings, &server, &stop_nfs).await?;
        let rate = Arc::default();
        tokio::spawn(sample(Arc::clone(&rate), server.clone(), stop));
        Ok(Nfs1Role {
            cluster: launch.cluster.clone(),
            settings,
            server,
            shares,
            notes,
            stop_nfs,
            beside: tokio::sync::Mutex::new(beside),
            rate,
            prover: Arc::new(prover),
            stop_verify: Arc::default(),
            capture: Mutex::new(Some(capture)),
            dirty,
            sender: control,
            link,
            database,
        })
    }

    /// Where NFS listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

/// What runs beside the connections: MOUNT and locks over UDP, and what lets clients find the ports.
#[derive(Default)]
struct Beside {
    portmap: Option<Portmap>,
    datagrams: Option<JoinHandle<()>>,
}

impl Beside {
    async fn start(settings: &Nfs1, server: &nfs::Server, stop: &CancellationToken) -> Result<Beside> {
        let address = server.address();
        let mut beside = Beside::default();
        let udp = match UdpSocket::bind(address).await {
            Ok(socket) => {
                beside.datagrams = Some(server.serve_datagrams(socket, stop.clone())?);
                Some(address)
            }
            Err(error) if settings.portmap == PortmapMode::Off => {
                tracing::warn!(%address, %error, "no UDP: MOUNT and locks are served over TCP only");
                None
            }
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot listen on UDP {address} for MOUNT and locks: is another NFS server running?"
                    )
                });
            }
        };
        let services = server.services(udp);
        beside.portmap = match portmap::start(settings.portmap, services, address.ip()).await {
            Ok(portmap) => portmap,
            Err(error) if settings.portmap == PortmapMode::Auto => {
                tracing::warn!(%error, "clients must be told the ports: -o vers=3,port=P,mountport=P");
                None
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(portmap) = &beside.portmap {
            tracing::info!(how = portmap.how(), "clients find the ports of NFS, MOUNT and locks");
        }
        Ok(beside)
    }

    async fn stop(&mut self) {
        if let Some(portmap) = self.portmap.take() {
            portmap.stop().await;
        }
        if let Some(datagrams) = self.datagrams.take()
            && datagrams.await.is_err()
        {
            tracing::error!("MOUNT and locks over UDP ended with a fault");
        }
    }
}

/// What connects to the backup, and the handles on it.
fn connector(settings: &Nfs1) -> Result<(TlsConnector, Asker, Link, DialOptions)> {
    let backup = settings
        .backup
        .as_ref()
        .context("nfs1 has no backup: say --backup ADDR:PORT, or add [backup] to the cluster file")?;
    let stop = CancellationToken::new();
    let options = ConnectorOptions {
        address: backup.to_string(),
        alpn: ALPN_STORE,
        identity: Arc::new(Identity::load_or_create(&settings.state, &settings.host)?),
        peers: Peers::of(&settings.state),
        shutdown: stop.clone(),
        seed: rand::random(),
    };
    let dial = DialOptions {
        address: options.address.clone(),
        identity: Arc::clone(&options.identity),
        peers: options.peers.clone(),
    };
    let connector = TlsConnector::new(Handle::current(), options);
    let (asker, link) = (connector.asker(), Link { monitor: connector.monitor(), stop });
    Ok((connector, asker, link, dial))
}

fn capture_options(settings: &Nfs1, accept_new_export: bool) -> CaptureOptions {
    let watch = match settings.watcher {
        WatcherChoice::Auto | WatcherChoice::Fanotify => WatchChoice::Best,
        WatcherChoice::Notify => WatchChoice::Inotify,
    };
    CaptureOptions { scan_every: settings.scan_interval.0, accept_new_export, watch }
}

/// Who asks for fanotify by name must get it.
fn require_watcher(settings: &Nfs1, capture: &ChangeCapture) -> Result<()> {
    let watch = capture.status().watch;
    if settings.watcher == WatcherChoice::Fanotify && watch.watcher != Watcher::Fanotify {
        let why = watch.why.unwrap_or_default();
        bail!("watcher = \"fanotify\" cannot be had: {why}; run as root, or say \"auto\" or \"notify\"");
    }
    Ok(())
}

/// Serves what the exports say.
async fn serve(
    settings: &Nfs1,
    tree: Arc<Tree>,
    dirty: Arc<DirtySet>,
    listener: tokio::net::TcpListener,
    stop: CancellationToken,
    notes: &mut Vec<String>,
) -> Result<(nfs::Server, Arc<Shares>)> {
    let vfs = LocalVfs::new(tree, LocalOptions::default());
    notes.extend(vfs.notes());
    let durability = match settings.export.durability {
        Durability::Local => change::Durability::Local,
        Durability::Remote => change::Durability::Remote,
    };
    let shares = Arc::new(Shares::new(settings, vfs, dirty, durability));
    let first = {
        let shares = Arc::clone(&shares);
        tokio::task::spawn_blocking(move || shares.first()).await??
    };
    let limits = &settings.limits;
    let options = nfs::Options {
        manage_gids: settings.manage_gids,
        connections: limits.connections,
        in_flight: limits.in_flight,
        memory: usize::try_from(limits.memory.0).unwrap_or(usize::MAX),
        slow_request: limits.slow_request.0,
        locks: Some(LockOptions { grace: settings.grace.0, ..LockOptions::new(settings.state.clone()) }),
        ..nfs::Options::new(HandleKey::load_or_create(&settings.state)?)
    };
    let server = nfs::serve(listener, first, options, stop.clone())?;
    tokio::spawn(follow_mounts(Arc::clone(&shares), server.clone(), stop));
    Ok((server, shares))
}

/// Has the exports follow the mounts of this machine.
async fn follow_mounts(shares: Arc<Shares>, server: nfs::Server, stop: CancellationToken) {
    let mut every = tokio::time::interval(MOUNTS_LOOKED_AT);
    let mut seen = mounts::table().unwrap_or_default();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = mounts::table().unwrap_or_default();
        if now != seen {
            seen = now;
            let (shares, server) = (Arc::clone(&shares), server.clone());
            let looked = tokio::task::spawn_blocking(move || shares.look_again(server.exports())).await;
            if let Err(error) = looked {
                tracing::error!(%error, "following the mounts failed");
            }
        }
    }
}

/// Looks at the counter now and then, so that whoever asks gets a rate at once.
async fn sample(rate: Arc<Mutex<Rate>>, server: nfs::Server, stop: CancellationToken) {
    let mut every = tokio::time::interval(Duration::from_secs(2));
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        rate.lock().per_second(server.stats().requests, Instant::now());
    }
}

impl Nfs1Role {
    /// Everything on the backup, if it can be reached at all.
    async fn last_fence(&self) {
        if self.link.monitor.status().state != LinkState::Up {
            tracing::warn!(
                "the link is down at this stop: the backup gets the last changes after the next start"
            );
            return;
        }
        if let Err(error) = self.prover.fence.wait(LAST_FENCE).await {
            tracing::warn!("the backup does not have everything at this stop: {error}");
        }
    }

    /// The mark of a clean stop is written by the sender's thread, so capture ends first.
    async fn end_capture(&self) {
        let capture = self.capture.lock().take();
        let stopped = tokio::task::spawn_blocking(move || capture.map_or(Ok(()), ChangeCapture::stop)).await;
        if let Ok(Err(error)) = stopped {
            tracing::warn!(%error, "the export could not be synced at this stop");
        }
    }
}

impl Role for Nfs1Role {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.stop_nfs.cancel();
            self.stop_verify.store(true, Ordering::Relaxed);
            self.server.stopped().await;
            self.beside.lock().await.stop().await;
            self.last_fence().await;
            if let Some(database) = &self.database {
                database.stop().await;
            }
            self.end_capture().await;
            self.link.stop.cancel();
            if tokio::time::timeout(SENDER_PATIENCE, self.sender.stop()).await.is_err() {
                tracing::warn!("the sender did not end in time; its index will be caught up from the backup");
            }
        })
    }
}
