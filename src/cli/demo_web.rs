//! `ehpc-store demo-web`: the demonstration web node.

use super::{Verdict, say};
use crate::demo_web::{self, Settings, Share};
use crate::observe::log;
use crate::settings::{Bytes, HostPort, LogFormat, LogLevel};
use anyhow::{Context, Result};
use clap::Args;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Run a small web node that uploads, lists and serves files of the share through NFS
///
/// It needs neither a mount nor root. Behind the proxy it stands in for the application: each page says which node
/// answered it. `ehpc-store up` starts two of them.
#[derive(Args)]
pub(super) struct DemoWeb {
    /// Where browsers or the proxy connect
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The NFS server (NFS and MOUNT on one port)
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:12049")]
    nfs: HostPort,
    /// Path that the server exports
    #[arg(long, value_name = "PATH", default_value = "/share")]
    export: String,
    /// Name of this node, shown on its pages and sent as X-Served-By
    #[arg(long, value_name = "NAME", default_value = "web1")]
    name: String,
    /// Largest upload that is taken
    #[arg(long, value_name = "SIZE", default_value = "4 GiB")]
    max_upload: Bytes,
    /// Least severe log lines: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
    /// How log lines look: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
}

impl DemoWeb {
    pub(super) fn run(self) -> Result<Verdict> {
        log::start(self.log_level.word(), self.log_format == LogFormat::Json)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")?;
        runtime.block_on(self.live())
    }

    async fn live(self) -> Result<Verdict> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(self.listen).await;
        let listener = listener.with_context(|| {
            format!("listening on {}: name a free address of this machine with --listen", self.listen)
        })?;
        let address = listener.local_addr()?;
        let share = Share::new(&self.nfs.to_string(), &self.export);
        if let Err(fault) = share.check().await {
            // It may come; until then `/healthz` and every page say so.
            tracing::warn!("{fault}");
        }
        let stop = CancellationToken::new();
        let settings =
            Settings { name: self.name.clone(), max_upload: self.max_upload.0, patience: demo_web::PATIENCE };
        let serving = tokio::spawn(demo_web::serve(listener, settings, share, stop.clone()));
        say(&format!("ready {}={address}", self.name))?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending: requests under way are finished");
        stop.cancel();
        let grace = std::time::Duration::from_secs(5);
        match tokio::time::timeout(grace, serving).await {
            Ok(ended) => ended.context("serving")?.context("serving")?,
            Err(_) => tracing::warn!("some requests did not end within 5 s and were cut"),
        }
        Ok(Verdict::Good)
    }
}
