//! Events to groups: what a server commits as one, from its first event to its last. A replica may stop and start
//! between groups only.
//!
//! MariaDB begins every group with its GTID, which also says how it ends; MySQL with a GTID or, before 5.7 and with
//! `GTID_MODE=OFF`, with nothing but `BEGIN`.
//! Source: MariaDB's `sql/sql_repl.cc` (how its dump thread skips a group), MySQL's `Transaction_boundary_parser`.

use super::event::{
    BodyFault, GtidList, MariaGtid, MySqlGtidEvent, Query, XaPrepare, Xid, decode_previous_gtids,
};
use super::format::Flavor;
use super::gtid::{GroupGtid, GtidState};
use super::header::Kind;
use super::scan::Event;
use thiserror::Error;

/// What a group does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupKind {
    /// A statement that commits by itself; nearly always data definition.
    Ddl,
    /// Rows and statements up to their COMMIT.
    Transaction,
    /// A branch was prepared: its rows are here, nothing of it can be seen until it is ended.
    XaPrepare(Xid),
    /// A prepared branch was committed or rolled back.
    XaEnd(Xid),
    /// Anything else, such as an incident.
    Other,
}

/// What a server committed as one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Offset of its first event.
    pub start: u64,
    /// Offset behind its last event.
    pub end: u64,
    /// Which transaction it is, when the server counts them.
    pub gtid: Option<GroupGtid>,
    /// Seconds since 1970 in the header of its last event.
    pub time: u32,
    /// When the server that wrote this file committed it, in microseconds since 1970 (MySQL 8.0 and later).
    pub commit_micros: Option<u64>,
    /// What it does.
    pub kind: GroupKind,
}

/// An event that cannot be part of a group.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum GroupFault {
    /// The body.
    #[error("the event at {at}: {fault}")]
    Body {
        /// Where.
        at: u64,
        /// What.
        fault: BodyFault,
    },
    /// A list of more than 65,536 intervals.
    #[error("the list of GTIDs at {at} is longer than 1 MiB")]
    TooLong {
        /// Where.
        at: u64,
    },
    /// MySQL 8.3 and later.
    #[error(
        "the event at {at} is a tagged GTID (MySQL 8.3 and later, GTID_NEXT=AUTOMATIC:tag): they are not supported"
    )]
    Tagged {
        /// Where.
        at: u64,
    },
}

/// How the open group ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// With the first event that is more than a preparation; a BEGIN makes it `WithCommit`.
    Unknown,
    /// The same, whatever the statement says.
    WithStatement,
    /// XID, COMMIT, ROLLBACK or XA_PREPARE.
    WithCommit,
}

#[derive(Clone, Debug)]
struct Open {
    start: u64,
    gtid: Option<GroupGtid>,
    commit_micros: Option<u64>,
    kind: Option<GroupKind>,
    ends: Ends,
}

/// Reads the events of one file. A file can also be begun in its middle, between two groups.
#[derive(Clone, Debug, Default)]
pub struct Grouper {
    open: Option<Open>,
    initial: Option<GtidState>,
}

impl Grouper {
    /// Before a file's first event or between two groups.
    pub fn new() -> Grouper {
        Grouper::default()
    }

    /// Where the group begins that is not complete yet.
    pub fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.start)
    }

    /// What happened before the file, once its GTID_LIST or PREVIOUS_GTIDS has been read.
    pub fn initial(&self) -> Option<&GtidState> {
        self.initial.as_ref()
    }

    /// The file's next event; the group that it completes.
    ///
    /// # Errors
    ///
    /// A body that is not what its kind says, or that is not supported.
    pub fn event(&mut self, event: &Event<'_>) -> Result<Option<Group>, GroupFault> {
        let at = event.start;
        let ends = match event.header.kind {
            Kind::FORMAT_DESCRIPTION
            | Kind::ROTATE
            | Kind::STOP
            | Kind::BINLOG_CHECKPOINT
            | Kind::HEARTBEAT
            | Kind::HEARTBEAT_V2 => return Ok(None),
            Kind::GTID_LIST | Kind::PREVIOUS_GTIDS => {
                self.initial = Some(initial(event)?);
                return Ok(None);
            }
            Kind::GTID_TAGGED => return Err(GroupFault::Tagged { at }),
            Kind::MARIA_GTID | Kind::GTID | Kind::ANONYMOUS_GTID => {
                self.open = Some(begun(event).map_err(|fault| GroupFault::Body { at, fault })?);
                return Ok(None);
            }
            _ => self.step(event).map_err(|fault| GroupFault::Body { at, fault })?,
        };
        if !ends {
            return Ok(None);
        }
        Ok(self.open.take().map(|open| Group {
            start: open.start,
            end: event.end(),
            gtid: open.gtid,
            time: event.header.timestamp,
            commit_micros: open.commit_micros,
            kind: open.kind.unwrap_or(GroupKind::Other),
        }))
    }

    /// An event inside a group: does it end it?
    fn step(&mut self, event: &Event<'_>) -> Result<bool, BodyFault> {
        let open = self.open.get_or_insert(Open {
            start: event.start,
            gtid: None,
            commit_micros: None,
            kind: None,
            ends: Ends::Unknown,
        });
        match event.header.kind {
            Kind::XID => {
                open.kind.get_or_insert(GroupKind::Transaction);
                Ok(true)
            }
            Kind::XA_PREPARE => {
                let prepare = XaPrepare::decode(event.body)?;
                open.kind = Some(match prepare.one_phase {
                    true => GroupKind::Transaction,
                    false => GroupKind::XaPrepare(prepare.xid),
                });
                Ok(true)
            }
            Kind::TRANSACTION_PAYLOAD => {
                open.kind = Some(GroupKind::Transaction);
                Ok(true)
            }
            Kind::QUERY => open.query(event),
            // Never BEGIN or COMMIT: those are too short to be compressed.
            Kind::QUERY_COMPRESSED | Kind::EXECUTE_LOAD_QUERY | Kind::INCIDENT => {
                if event.header.kind != Kind::INCIDENT && open.ends != Ends::WithCommit {
                    open.kind.get_or_insert(GroupKind::Ddl);
                }
                Ok(open.ends != Ends::WithCommit || event.header.kind == Kind::INCIDENT)
            }
            // Variables, table maps, rows and what is ignorable prepare or continue.
            _ => Ok(false),
        }
    }
}

impl Open {
    fn query(&mut self, event: &Event<'_>) -> Result<bool, BodyFault> {
        let statement = Query::decode(event.body)?.statement;
        let is = |text: &[u8]| event.complete && statement.eq_ignore_ascii_case(text);
        let begins = |text: &[u8]| statement.get(..text.len()).is_some_and(|s| s.eq_ignore_ascii_case(text));
        match self.ends {
            Ends::WithCommit => {
                let ends = is(b"COMMIT") || is(b"ROLLBACK");
                if ends {
                    self.kind.get_or_insert(GroupKind::Transaction);
                }
                Ok(ends)
            }
            Ends::Unknown if is(b"BEGIN") || begins(b"XA START ") || begins(b"XA BEGIN ") => {
                self.ends = Ends::WithCommit;
                Ok(false)
            }
            Ends::Unknown | Ends::WithStatement => {
                let end = ["XA COMMIT ", "XA ROLLBACK "].into_iter().find(|text| begins(text.as_bytes()));
                let xid = end.and_then(|text| Xid::parse(&statement[text.len()..]));
                self.kind.get_or_insert(xid.map_or(GroupKind::Ddl, GroupKind::XaEnd));
                Ok(true)
            }
        }
    }
}

/// A GTID event begins a group; one that was open has lost its end (its server was killed).
fn begun(event: &Event<'_>) -> Result<Open, BodyFault> {
    let start = event.start;
    if event.header.kind != Kind::MARIA_GTID {
        let begin = MySqlGtidEvent::decode(event.body)?;
        let gtid = (event.header.kind == Kind::GTID).then_some(GroupGtid::MySql(begin.gtid));
        return Ok(Open { start, gtid, commit_micros: begin.commit_micros, kind: None, ends: Ends::Unknown });
    }
    let begin = MariaGtid::decode(&event.header, event.body)?;
    let kind = match begin.xid {
        Some(xid) if begin.flags & MariaGtid::PREPARED_XA != 0 => Some(GroupKind::XaPrepare(xid)),
        Some(xid) => Some(GroupKind::XaEnd(xid)),
        None if begin.flags & MariaGtid::DDL != 0 => Some(GroupKind::Ddl),
        None => None,
    };
    let standalone = begin.flags & MariaGtid::STANDALONE != 0;
    let ends = if standalone { Ends::WithStatement } else { Ends::WithCommit };
    Ok(Open { start, gtid: Some(GroupGtid::Maria(begin.gtid)), commit_micros: None, kind, ends })
}

fn initial(event: &Event<'_>) -> Result<GtidState, GroupFault> {
    let at = event.start;
    if !event.complete {
        return Err(GroupFault::TooLong { at });
    }
    let state = match event.header.kind {
        Kind::GTID_LIST => {
            GtidList::decode(event.body).map(|list| GtidState::Maria(list.gtids.into_iter().collect()))
        }
        _ => decode_previous_gtids(event.body).map(GtidState::MySql),
    };
    state.map_err(|fault| GroupFault::Body { at, fault })
}

impl Group {
    /// The family of its GTID.
    pub fn flavor(&self) -> Option<Flavor> {
        self.gtid.map(|gtid| match gtid {
            GroupGtid::Maria(_) => Flavor::MariaDb,
            GroupGtid::MySql(_) => Flavor::MySql,
        })
    }
}
