//! A database server as a child of this product: made, started, waited for, stopped. It listens on a socket in its data
//! directory only, knows one account of ours that nothing replicated can take away, and ends with this process.

use super::arguments::{account, path_option, role_arguments};
use super::datadir::{PRIVATE, Private, become_owner, init};
use super::error::ServerError;
use super::owner::Owner;
use super::tools::{Flavor, Tool, Tools};
use crate::database::dsn::{Dsn, Password};
use crate::host;
use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// Our account on every server that we start (`@localhost`, by a password that is made anew at each start).
pub const ACCOUNT: &str = "ehpc_standby";

/// Longest path of a socket (sockaddr_un, with its NUL).
const SOCKET_PATH: usize = 107;
/// A server that was killed reads its whole redo log first; the one before may still be shutting down.
const READY_WITHIN: Duration = Duration::from_secs(1800);
/// A server writes all its dirty pages before it ends.
const STOP_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a server is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Filled once, as fast as possible: no binary log, nothing synced before [`Mysqld::stop`].
    Scratch,
    /// Follows for years: synced, read-only. It has no binary log of its own: one that was killed within a DDL statement
    /// may find it logged and not applied, or applied and not logged.
    Standby,
    /// The primary of `up --database`: its binary log is the source, commits wait for the backup while it is there.
    /// root@localhost proves itself by the socket.
    Private,
}

/// How a server is started.
#[derive(Clone, Debug)]
pub struct MysqldOptions {
    /// Made by [`Mysqld::init`].
    pub datadir: PathBuf,
    /// What for.
    pub role: Role,
    /// `server_id`.
    pub server_id: u32,
    /// Whose server.
    pub flavor: Flavor,
    /// The socket; `None`: `mysqld.sock` in the data directory.
    pub socket: Option<PathBuf>,
    /// Further arguments, after ours.
    pub arguments: Vec<String>,
}

/// A running server. Dropped, it is asked to end, and nobody waits for that.
#[derive(Debug)]
pub struct Mysqld {
    datadir: PathBuf,
    socket: PathBuf,
    pid: rustix::process::Pid,
    password: String,
    ended: watch::Receiver<Option<String>>,
}

impl Mysqld {
    /// Makes the data directory `datadir`, which is absent or empty. It has no accounts but the server's own locked one:
    /// those of a base find nothing in their way.
    pub async fn init(datadir: &Path, tools: &Tools, flavor: Flavor) -> Result<(), ServerError> {
        let (datadir, tools) = (datadir.to_owned(), tools.clone());
        blocking(move || init(&datadir, &tools, flavor)).await
    }

    /// Starts the server and waits until it takes connections (after a crash: until it has recovered).
    pub async fn start(options: MysqldOptions, tools: &Tools) -> Result<Mysqld, ServerError> {
        let tools = tools.clone();
        let prepared = blocking(move || Prepared::new(options, &tools)).await?;
        let (datadir, socket) = (prepared.datadir.clone(), prepared.socket.clone());
        let log = prepared.log.clone();
        let (password, log_from) = (prepared.password.clone(), prepared.log_from);
        let (pid, ended) = prepared.spawn().await?;
        let mut server = Mysqld { datadir, socket, pid, password, ended };
        let ready = server.ready(&log, log_from).await;
        let _ = std::fs::remove_file(server.datadir.join(PRIVATE).join("account.sql"));
        ready?;
        Ok(server)
    }

    /// How to connect: with all privileges.
    pub fn dsn(&self) -> Dsn {
        Dsn::socket(self.socket.clone(), ACCOUNT).with_password(Password::Text(self.password.clone()))
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its data directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    pub fn has_ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// Waits until it has ended by itself; how.
    pub async fn wait(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(how) => how.clone().unwrap_or_default(),
            Err(_) => "nobody knows how".to_owned(),
        }
    }

    /// An orderly shutdown.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.signal(rustix::process::Signal::TERM);
        if timeout(STOP_WITHIN, self.wait()).await.is_ok() {
            let _ = std::fs::remove_dir_all(self.datadir.join(PRIVATE));
            return Ok(());
        }
        self.signal(rustix::process::Signal::KILL);
        self.wait().await;
        Err(ServerError::Killed { datadir: self.datadir.clone(), seconds: STOP_WITHIN.as_secs() })
    }

    /// Ends it at once, as a crash: for scratch servers that nobody needs any more.
    pub async fn discard(mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.wait().await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        // Its number belongs to it until its thread has collected it and said so.
        if self.ended.borrow().is_none() {
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    async fn ready(&mut self, log: &Path, log_from: u64) -> Result<(), ServerError> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.has_ended() {
                let (datadir, log) = (self.datadir.clone(), tail(log, log_from));
                return Err(ServerError::Ended { datadir, status, log });
            }
            if greets(&self.socket).await {
                return Ok(());
            }
            if Instant::now() > until {
                self.signal(rustix::process::Signal::KILL);
                let (datadir, log) = (self.datadir.clone(), tail(log, log_from));
                return Err(ServerError::Late { datadir, seconds: READY_WITHIN.as_secs(), log });
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
    }
}

/// A server that greets (protocol version 10) takes connections.
async fn greets(socket: &Path) -> bool {
    let mut head = [0; 5];
    let greeting = async {
        let mut stream = tokio::net::UnixStream::connect(socket).await?;
        stream.read_exact(&mut head).await
    };
    matches!(timeout(Duration::from_secs(5), greeting).await, Ok(Ok(_))) && head[4] == 10
}

/// Everything that a start needs.
struct Prepared {
    command: Command,
    datadir: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    log_from: u64,
    password: String,
}

impl Prepared {
    fn new(options: MysqldOptions, tools: &Tools) -> Result<Prepared, ServerError> {
        let program = tools.find(Tool::Server, options.flavor)?;
        let datadir =
            options.datadir.canonicalize().map_err(ServerError::file("cannot open", &options.datadir))?;
        let socket = options.socket.clone().unwrap_or_else(|| datadir.join("mysqld.sock"));
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH {
            return Err(ServerError::SocketPath { path: socket, length });
        }
        let owner = Owner::of(&datadir);
        let password = random_password();
        let private = Private::make(&datadir)?;
        write_private(&private.account, &account(program.flavor, options.role, &password))?;
        owner.give_all(&datadir)?;
        let log = datadir.join("mysqld.err");
        let log_from = log.metadata().map_or(0, |found| found.len());
        let mut command = program.command();
        command
            .arg("--no-defaults")
            .arg(path_option("datadir", &datadir))
            .arg(path_option("socket", &socket))
            .arg(path_option("pid-file", &datadir.join("mysqld.pid")))
            .arg(path_option("log-error", &log))
            .arg(path_option("init-file", &private.account))
            // A server that starts removes the temporary tables of all others in the same directory.
            .arg(path_option("tmpdir", &private.temporary))
            // What a replicated statement may read and write of files.
            .arg(path_option("secure-file-priv", &private.files))
            // Without --skip-name-resolve: accounts whose host is a name must be there as on the primary.
            .args(["--skip-networking", "--event-scheduler=OFF"])
            .args(["--max-allowed-packet=1G", "--skip-slave-start"])
            .arg(format!("--server-id={}", options.server_id));
        command.args(role_arguments(options.role, program.flavor)).args(&options.arguments);
        become_owner(&mut command, owner);
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(&datadir);
        host::end_with_parent(&mut command);
        let _ = std::fs::remove_file(&socket);
        Ok(Prepared { command, datadir, socket, log, log_from, password })
    }

    /// A thread of its own starts the process and waits for its end: the kernel's signal at the parent's end is sent
    /// when the *thread* that started it ends.
    async fn spawn(mut self) -> Result<(rustix::process::Pid, watch::Receiver<Option<String>>), ServerError> {
        let (end, ended) = watch::channel(None);
        let (started, start) = oneshot::channel();
        let program = PathBuf::from(self.command.get_program());
        let fault = |source| ServerError::Start { program: program.clone(), source };
        let thread = move || match self.command.spawn() {
            Ok(mut child) => {
                let _ = started.send(Ok(child.id()));
                let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                end.send_replace(Some(status));
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        };
        std::thread::Builder::new().name("mysqld".into()).spawn(thread).map_err(fault)?;
        let pid =
            start.await.map_err(|_| fault(std::io::Error::other("its thread ended")))?.map_err(fault)?;
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        Ok((pid.ok_or_else(|| fault(std::io::Error::other("it has no process number")))?, ended))
    }
}

fn random_password() -> String {
    let mut text = String::new();
    for byte in rand::random::<[u8; 20]>() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
fn write_private(path: &Path, text: &str) -> Result<(), ServerError> {
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(ServerError::file("cannot write", path))
}

/// The end of a log, from `from` on at most.
fn tail(log: &Path, from: u64) -> String {
    let read = || {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(4096))))?;
        let mut bytes = Vec::new();
        file.take(8192).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    };
    match read() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) => format!("({}: {error})", log.display()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServerError> + Send + 'static,
) -> Result<T, ServerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ServerError::Stopped),
    }
}
