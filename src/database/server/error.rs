//! What can be wrong with a server or one of its programs, for people.

use super::tools::ToolMissing;
use std::io;
use std::path::PathBuf;

/// Why a server does not run, or a program did not do its work.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServerError {
    #[error(transparent)]
    Tool(#[from] ToolMissing),
    #[error("{program} does not start: {source}")]
    Start { program: PathBuf, source: io::Error },
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the socket's path {path} has {length} bytes, and the system allows 107: choose a data directory with a \
         shorter path"
    )]
    SocketPath { path: PathBuf, length: usize },
    #[error("{path} is not empty: a new data directory is made in an empty or absent one")]
    NotEmpty { path: PathBuf },
    #[error("the server in {datadir} ended ({status}); its log ends:\n{log}")]
    Ended { datadir: PathBuf, status: String, log: String },
    #[error("the server in {datadir} is not ready after {seconds} s; its log ends:\n{log}")]
    Late { datadir: PathBuf, seconds: u64, log: String },
    #[error("the server in {datadir} did not end within {seconds} s of SIGTERM and was killed")]
    Killed { datadir: PathBuf, seconds: u64 },
    #[error("{program} failed ({status}): {said}")]
    Failed { program: PathBuf, status: String, said: String },
    #[error(
        "{program} is of version {version}, which has no --initialize: make the data directory with its own \
         mysql_install_db, and use `mode = \"external\"`"
    )]
    NoInitialize { program: PathBuf, version: String },
    #[error("what is to be loaded cannot be read: {0}")]
    Source(io::Error),
    #[error("{0}")]
    Password(String),
    #[error("stopped: this daemon is shutting down, or the request was withdrawn")]
    Stopped,
}

impl ServerError {
    /// An error of a file operation, as a closure for `map_err`.
    pub(super) fn file(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> ServerError {
        let path = path.to_owned();
        move |source| ServerError::File { what, path, source }
    }
}
