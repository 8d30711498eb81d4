//! A section while it is being read: names are still names, lines that refer to other sections wait in `deferred`.
//! A `defaults` section is a draft too; a new section begins as a copy of it.

use super::environment::Environment;
use super::model::{
    Bind, Captures, ConnectionMode, CookiePolicy, ErrorFile, ForwardFor, HttpCheck, Identity, LoadState,
    LogTarget, Mode, Options, Reuse, Server, ServerCheck, StickTable, Timeouts,
};
use super::surroundings::Surroundings;
use super::words::{Line, Word};
use crate::settings::Site;
use ehpc_proto::http::Version;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Which section it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Kind {
    Defaults,
    Frontend,
    Backend,
    Listen,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Defaults => "defaults",
            Kind::Frontend => "frontend",
            Kind::Backend => "backend",
            Kind::Listen => "listen",
        }
    }

    pub(crate) fn front(self) -> bool {
        matches!(self, Kind::Frontend | Kind::Listen)
    }

    pub(crate) fn back(self) -> bool {
        matches!(self, Kind::Backend | Kind::Listen)
    }
}

/// `log global` or a target of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum LogChoice {
    Global,
    Own(LogTarget),
}

/// What a log line says.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) enum FormatChoice {
    #[default]
    Default,
    Tcp,
    Http,
    HttpClf,
    /// A `log-format` line.
    Own(Line),
}

/// `balance`, its expression not compiled.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) enum BalanceChoice {
    #[default]
    RoundRobin,
    StaticRoundRobin,
    LeastConn,
    First,
    Source,
    Random,
    /// A line of one word: the expression.
    Hash(Line),
}

/// Which check, besides the parameters in [`Draft::http_check`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub(crate) enum CheckChoice {
    #[default]
    Connect,
    Http,
    Mysql {
        user: Option<Vec<u8>>,
        post_41: bool,
    },
}

/// `http-check send`: added to what `option httpchk` says, whichever stands first.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct CheckSend {
    pub(crate) method: Option<Vec<u8>>,
    pub(crate) uri: Option<Vec<u8>>,
    pub(crate) version: Option<Version>,
    pub(crate) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// `stats ...` lines; absent: no page.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct StatsDraft {
    pub(crate) uri: Option<Vec<u8>>,
    pub(crate) realm: Option<String>,
    pub(crate) users: Vec<(String, String)>,
    pub(crate) refresh: Option<Duration>,
    pub(crate) hide_version: bool,
    pub(crate) show_node: Option<String>,
    pub(crate) show_desc: Option<String>,
    pub(crate) show_legends: bool,
    pub(crate) scope: Vec<String>,
}

/// `server` or `default-server`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) struct ServerDraft {
    pub(crate) server: Server,
    pub(crate) id: Option<u32>,
    pub(crate) check: bool,
    pub(crate) timing: ServerCheck,
}

/// A name and where it stands.
pub(crate) type Named = (String, Site);

/// The section.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) site: Site,
    pub(crate) mode: Mode,
    pub(crate) disabled: bool,
    pub(crate) id: Option<u32>,
    pub(crate) description: Option<String>,

    pub(crate) binds: Vec<Bind>,
    pub(crate) maxconn: Option<u32>,
    pub(crate) backlog: Option<u32>,
    pub(crate) default_backend: Option<Named>,
    pub(crate) monitor_uri: Option<Vec<u8>>,
    pub(crate) captures: Captures,

    pub(crate) default_server: ServerDraft,
    pub(crate) servers: Vec<ServerDraft>,
    pub(crate) balance: BalanceChoice,
    pub(crate) cookie: Option<CookiePolicy>,
    pub(crate) retries: u32,
    pub(crate) redispatch: i32,
    pub(crate) fullconn: Option<u32>,
    pub(crate) load_state: LoadState,
    pub(crate) state_file_name: Option<PathBuf>,
    pub(crate) check: CheckChoice,
    pub(crate) http_check: HttpCheck,
    pub(crate) check_send: CheckSend,
    pub(crate) stick_table: Option<StickTable>,
    pub(crate) reuse: Reuse,

    pub(crate) timeouts: Timeouts,
    pub(crate) connection: ConnectionMode,
    pub(crate) options: Options,
    pub(crate) forward_for: Option<ForwardFor>,
    pub(crate) original_to: Option<ForwardFor>,
    pub(crate) stats: Option<StatsDraft>,
    pub(crate) error_files: BTreeMap<u16, ErrorFile>,
    pub(crate) logs: Vec<LogChoice>,
    pub(crate) log_tag: Option<String>,
    pub(crate) log_format: FormatChoice,
    /// Lines that are compiled when all sections are known, in order.
    pub(crate) deferred: Vec<Line>,
}

impl Draft {
    /// HAProxy's own defaults (`defaults` without anything).
    pub(crate) fn new(kind: Kind, name: &str, site: Site) -> Draft {
        Draft {
            kind,
            name: name.to_owned(),
            site: site.clone(),
            mode: Mode::Tcp,
            disabled: false,
            id: None,
            description: None,
            binds: Vec::new(),
            maxconn: None,
            backlog: None,
            default_backend: None,
            monitor_uri: None,
            captures: Captures::default(),
            default_server: ServerDraft::new("", site),
            servers: Vec::new(),
            balance: BalanceChoice::default(),
            cookie: None,
            retries: 3,
            redispatch: 0,
            fullconn: None,
            load_state: LoadState::None,
            state_file_name: None,
            check: CheckChoice::default(),
            http_check: HttpCheck::default(),
            check_send: CheckSend::default(),
            stick_table: None,
            reuse: Reuse::default(),
            timeouts: Timeouts::default(),
            connection: ConnectionMode::default(),
            options: Options::default(),
            forward_for: None,
            original_to: None,
            stats: None,
            error_files: BTreeMap::new(),
            logs: Vec::new(),
            log_tag: None,
            log_format: FormatChoice::default(),
            deferred: Vec::new(),
        }
    }

    /// A new section that begins with what these defaults say.
    pub(crate) fn inherit(&self, kind: Kind, name: &str, site: Site) -> Draft {
        let mut draft = Draft { kind, name: name.to_owned(), site, ..self.clone() };
        // `disabled` and `description` in defaults: only the first is inherited by HAProxy.
        draft.description = None;
        draft.id = None;
        draft
    }
}

impl ServerDraft {
    pub(crate) fn new(name: &str, site: Site) -> ServerDraft {
        ServerDraft {
            server: Server {
                site,
                name: name.to_owned(),
                id: 0,
                address: super::model::ServerAddress::Abstract(Vec::new()),
                weight: 1,
                backup: false,
                disabled: false,
                maxconn: None,
                minconn: None,
                maxqueue: None,
                cookie: None,
                check: None,
                slowstart: None,
                shutdown_sessions_when_down: false,
                shutdown_backup_sessions_when_up: false,
                tcp_user_timeout: None,
            },
            id: None,
            check: false,
            timing: ServerCheck {
                inter: Duration::from_secs(2),
                fastinter: None,
                downinter: None,
                rise: 2,
                fall: 3,
                port: None,
                address: None,
            },
        }
    }
}

/// `no` or `default` before a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub(crate) enum Prefix {
    #[default]
    None,
    No,
    Default,
}

/// `unix-bind`: what Unix sockets get that do not say otherwise (3.1 of the manual).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct UnixBind {
    /// Put before every path.
    pub(crate) prefix: String,
    pub(crate) mode: Option<u32>,
    pub(crate) user: Option<Identity>,
    pub(crate) group: Option<Identity>,
}

/// What a handler sees besides its section and its words.
#[derive(Debug)]
pub(crate) struct Context<'c> {
    pub(crate) line: &'c Line,
    pub(crate) prefix: Prefix,
    pub(crate) surroundings: &'c Surroundings,
    /// Variables as they are at the end of all files: addresses may hold some.
    pub(crate) environment: &'c Environment,
    /// The product's stats and sockets obey these: section `global` as read so far.
    pub(crate) bufsize: usize,
    pub(crate) unix_bind: &'c mut UnixBind,
    pub(crate) warnings: &'c mut Vec<String>,
    pub(crate) without_meaning: &'c mut BTreeMap<String, usize>,
}

impl Context<'_> {
    /// Tells the operator something that HAProxy would warn of.
    pub(crate) fn warn(&mut self, site: &Site, what: &str) {
        self.warnings.push(format!("{site}: {what}"));
    }

    /// A word that means nothing here.
    pub(crate) fn meaningless(&mut self, word: &str) {
        *self.without_meaning.entry(word.to_owned()).or_default() += 1;
    }

    /// A line with one word, at the place of `like`: an expression that another spelling stands for.
    pub(crate) fn line_of(&self, text: String, like: Option<&Word>) -> Line {
        let column = like.map_or(1, |word| word.column);
        Line {
            file: self.line.file.clone(),
            number: self.line.number,
            words: vec![Word { text, column, quoted: true }],
        }
    }
}
