//! The private database server of `up --database`: made, started, started again when it ends by itself.

use super::assemble::{Launch, Role};
use crate::database::dsn::Dsn;
use crate::database::server::{Flavor, Mysqld, MysqldOptions, Role as ServerRole, Tools};
use crate::database::sql::{Sql, quote_text};
use crate::observe::control::{Action, Outcome, Progress};
use crate::observe::status::ChildStatus;
use crate::observe::{Control, NodeStatus, Refusal, words};
use crate::settings::Database;
use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::Value;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Its number among replicas; those of the source and the standby are others.
const SERVER_ID: u32 = 1;
/// Pause before it is started again.
const PAUSE: Duration = Duration::from_secs(2);

/// The running server.
pub(super) struct MariaDbRole {
    status: Arc<Mutex<ChildStatus>>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    socket: PathBuf,
}

impl MariaDbRole {
    /// Makes the data directory if there is none, and starts the server on it; `None`: the settings want no such server.
    pub(super) async fn start(launch: &Launch) -> Result<Option<MariaDbRole>> {
        let Some(database) = &launch.cluster.database else { return Ok(None) };
        let Some(datadir) = database.private.clone() else { return Ok(None) };
        let server =
            Server { datadir, user: database.user.clone(), tools: Tools::new(database.tools.clone()) };
        let running = server.start().await.context(
            "--database needs a MariaDB server (Debian: apt-get install mariadb-server); without it start `up` without \
             --database",
        )?;
        let status =
            Arc::new(Mutex::new(ChildStatus { name: "mariadbd".to_owned(), ..ChildStatus::default() }));
        note(&status, &running);
        let socket = running.socket().to_owned();
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(server, running, Arc::clone(&status), stop.clone()));
        Ok(Some(MariaDbRole { status, stop, task: Mutex::new(Some(task)), socket }))
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The server that is to run.
struct Server {
    datadir: PathBuf,
    user: String,
    tools: Tools,
}

impl Server {
    async fn start(&self) -> Result<Mysqld> {
        if !self.datadir.join("mysql").is_dir() {
            Mysqld::init(&self.datadir, &self.tools, Flavor::MariaDb).await?;
        }
        let options = MysqldOptions {
            datadir: self.datadir.clone(),
            role: ServerRole::Private,
            server_id: SERVER_ID,
            flavor: Flavor::MariaDb,
            socket: None,
            // A primary runs its events.
            arguments: vec!["--event-scheduler=ON".to_owned()],
        };
        let running = Mysqld::start(options, &self.tools).await?;
        self.let_in(&running.dsn()).await.context("making the account of the person who runs this")?;
        Ok(running)
    }

    /// The account of the user who runs this, proved by the socket. Not logged: it is this machine's affair.
    async fn let_in(&self, dsn: &Dsn) -> Result<()> {
        let mut sql = Sql::connect(dsn).await?;
        let account = format!("{}@localhost", quote_text(&self.user));
        sql.run("SET SESSION sql_log_bin = 0").await?;
        sql.run(&format!("CREATE USER IF NOT EXISTS {account} IDENTIFIED VIA unix_socket")).await?;
        sql.run(&format!("GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION")).await?;
        sql.close().await;
        Ok(())
    }
}

fn note(status: &Mutex<ChildStatus>, running: &Mysqld) {
    let mut status = status.lock();
    status.pid = Some(running.pid());
    status.since_ms = words::now_ms();
    status.address = Some(running.socket().display().to_string());
}

async fn keep(server: Server, mut running: Mysqld, status: Arc<Mutex<ChildStatus>>, stop: CancellationToken) {
    loop {
        let ended = tokio::select! {
            ended = running.wait() => ended,
            () = stop.cancelled() => {
                if let Err(error) = running.stop().await {
                    tracing::warn!("{error}");
                }
                return;
            }
        };
        tracing::warn!(ended, "the database server ended and is started again");
        {
            let mut status = status.lock();
            status.pid = None;
            status.restarts += 1;
            status.last_end = Some(ended);
        }
        running = loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return,
            }
            match server.start().await {
                Ok(running) => break running,
                Err(error) => status.lock().last_end = Some(format!("{error:#}")),
            }
        };
        note(&status, &running);
    }
}

impl Role for MariaDbRole {
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.stop.cancel();
            let task = self.task.lock().take();
            if let Some(task) = task {
                // It bounds its own time.
                let _ = task.await;
            }
        })
    }
}

impl Control for MariaDbRole {
    fn describe(&self, status: &mut NodeStatus) {
        status.children.push(self.status.lock().clone());
    }

    fn actions(&self) -> Vec<Action> {
        Vec::new()
    }

    fn act(&self, action: &str, _arguments: Value, _progress: Progress) -> Outcome {
        let refusal = Refusal::Failed(format!("the database server cannot do `{action}`"));
        Box::pin(async move { Err(refusal) })
    }
}

/// What to try with it.
pub(super) fn advice(database: &Database) -> Option<String> {
    let private = database.private.as_ref()?;
    Some(format!("  the database  mariadb -S {}", private.join("mysqld.sock").display()))
}
