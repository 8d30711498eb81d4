//! Which events of the log a replica gets: all from a place on, or by GTID those that it has not, up to those that it
//! wants no more.
//!
//! Source: MariaDB's `sql/sql_repl.cc` (`send_event_to_slave`, `check_slave_start_position`).

use ehpc_proto::binlog::{
    Event, GroupFault, GroupGtid, Grouper, Gtid, GtidState, Kind, MariaGtid, MariaState, MySqlGtidEvent,
};

/// Why a replica's state does not fit the log. In a server's own words, which tools and people look for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SelectionFault {
    /// It has what the log never had.
    #[error(
        "Error: connecting slave requested to start from GTID {0}, which is not in the master's binlog. Since the \
         master's binlog contains GTIDs with higher sequence numbers, it probably means that the slave has diverged due \
         to executing extra erroneous transactions"
    )]
    Diverged(Gtid),
    /// An event that is not understood.
    #[error(transparent)]
    Group(#[from] GroupFault),
}

/// By GTID.
#[derive(Clone, Debug)]
struct ByGtid {
    /// What the replica has or is being sent.
    state: GtidState,
    /// Domains of MariaDB whose starting transaction has not been seen in the log yet.
    unseen: MariaState,
    /// What is left to send, domain by domain; `None`: without end.
    until: Option<MariaState>,
    grouper: Grouper,
    /// What is in the log up to here.
    log: MariaState,
    /// The open group is left out.
    skips: bool,
    /// The open group is the last that the replica has of its domain.
    ends_have: bool,
    /// Such a group has been passed.
    passed: bool,
    /// The open group is the last that is sent of its domain.
    last_of: Option<u32>,
}

/// A replica's choice. Events are to be shown in the order of the log.
#[derive(Clone, Debug)]
pub struct Selection {
    annotate: bool,
    by_gtid: Option<ByGtid>,
}

impl Selection {
    /// Everything from a place on. `annotate`: with ANNOTATE_ROWS events (statements as comments).
    pub fn everything(annotate: bool) -> Selection {
        Selection { annotate, by_gtid: None }
    }

    /// What is not in `state`, up to and with `until`, from a file on before which `initial` had happened.
    pub fn by_gtid(
        state: GtidState,
        initial: Option<&GtidState>,
        until: Option<MariaState>,
        annotate: bool,
    ) -> Selection {
        let located = |gtid: &Gtid| match initial {
            Some(GtidState::Maria(initial)) => initial.domain(gtid.domain) == Some(*gtid),
            _ => false,
        };
        let unseen = match &state {
            GtidState::Maria(state) => state.iter().filter(|gtid| !located(gtid)).collect(),
            GtidState::MySql(_) => MariaState::default(),
        };
        // Of a domain that the replica has wholly, nothing is left to send.
        let left = |gtid: &Gtid| !state.contains(&GroupGtid::Maria(*gtid));
        let until = until.map(|until| until.iter().filter(left).collect());
        let log = match initial {
            Some(GtidState::Maria(initial)) => initial.clone(),
            _ => MariaState::default(),
        };
        let by = ByGtid {
            state,
            unseen,
            until,
            grouper: Grouper::new(),
            log,
            skips: false,
            ends_have: false,
            passed: false,
            last_of: None,
        };
        Selection { annotate, by_gtid: Some(by) }
    }

    /// The replica started by GTID.
    pub fn is_by_gtid(&self) -> bool {
        self.by_gtid.is_some()
    }

    /// What the replica has or was sent, when it started by GTID.
    pub fn state(&self) -> Option<&GtidState> {
        self.by_gtid.as_ref().map(|by| &by.state)
    }

    /// The replica has more of the log than what comes next: it must keep its temporary tables.
    pub fn is_behind(&self) -> bool {
        self.by_gtid.as_ref().is_some_and(|by| match &by.state {
            GtidState::Maria(_) => !by.unseen.is_empty(),
            GtidState::MySql(state) => !state.is_empty(),
        })
    }

    /// What is in the log up to here, when the replica started by MariaDB's GTID.
    pub fn log(&self) -> Option<&MariaState> {
        self.by_gtid.as_ref().filter(|by| matches!(by.state, GtidState::Maria(_))).map(|by| &by.log)
    }

    /// Since the last call, the log has passed the last transaction that the replica has of a domain: it is told where
    /// in the file that is.
    pub fn take_passed(&mut self) -> bool {
        self.by_gtid.as_mut().is_some_and(|by| std::mem::take(&mut by.passed))
    }

    /// Everything that the replica wanted is sent.
    pub fn is_done(&self) -> bool {
        let until = |by: &ByGtid| by.until.as_ref().is_some_and(MariaState::is_empty) && by.last_of.is_none();
        self.by_gtid.as_ref().is_some_and(until)
    }

    /// A new file begins; a group that was open has lost its end.
    pub fn file(&mut self) {
        if let Some(by) = &mut self.by_gtid {
            by.grouper = Grouper::new();
            (by.skips, by.ends_have, by.last_of) = (false, false, None);
        }
    }

    /// Is this event sent? Its body may be cut (`complete`).
    ///
    /// # Errors
    ///
    /// The replica's state does not fit the log; an event that is not understood.
    pub fn event(&mut self, event: &Event<'_>) -> Result<bool, SelectionFault> {
        let wanted = self.annotate || event.header.kind != Kind::ANNOTATE_ROWS;
        match &mut self.by_gtid {
            None => Ok(wanted),
            Some(by) => Ok(by.event(event)? && wanted),
        }
    }
}

impl ByGtid {
    fn event(&mut self, event: &Event<'_>) -> Result<bool, SelectionFault> {
        let group = self.grouper.event(event)?;
        if let Some(gtid) = begun(event)? {
            self.begin(gtid)?;
        } else if group.is_none() && self.grouper.open().is_none() {
            return Ok(true); // between groups: ROTATE, STOP, lists
        }
        let sent = !self.skips;
        if let Some(group) = group {
            if let Some(gtid) = group.gtid.filter(|gtid| sent && !self.state.contains(gtid)) {
                self.state.add(&gtid);
            }
            if let (Some(domain), Some(until)) = (self.last_of.take(), &mut self.until) {
                *until = until.iter().filter(|gtid| gtid.domain != domain).collect();
            }
            if let Some(GroupGtid::Maria(gtid)) = group.gtid {
                self.log.add(gtid);
            }
            self.passed |= std::mem::take(&mut self.ends_have);
            self.skips = false;
        }
        Ok(sent)
    }

    fn begin(&mut self, gtid: GroupGtid) -> Result<(), SelectionFault> {
        self.skips = self.state.contains(&gtid);
        (self.last_of, self.ends_have) = (None, false);
        let GroupGtid::Maria(gtid) = gtid else { return Ok(()) };
        if let Some(start) = self.unseen.domain(gtid.domain) {
            if gtid.seq > start.seq {
                return Err(SelectionFault::Diverged(start));
            }
            if gtid == start {
                self.ends_have = true;
                self.unseen = self.unseen.iter().filter(|unseen| unseen.domain != gtid.domain).collect();
            }
        }
        if let Some(until) = self.until.as_ref().filter(|_| !self.skips) {
            match until.domain(gtid.domain) {
                // The end of this domain has been reached, or none of it is wanted.
                None => self.skips = true,
                Some(end) if gtid.seq >= end.seq => {
                    self.last_of = Some(gtid.domain);
                    self.skips = gtid.seq > end.seq;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The transaction that the event begins.
fn begun(event: &Event<'_>) -> Result<Option<GroupGtid>, SelectionFault> {
    let bad = |fault| SelectionFault::Group(GroupFault::Body { at: event.start, fault });
    Ok(match event.header.kind {
        Kind::MARIA_GTID => {
            Some(GroupGtid::Maria(MariaGtid::decode(&event.header, event.body).map_err(bad)?.gtid))
        }
        Kind::GTID => Some(GroupGtid::MySql(MySqlGtidEvent::decode(event.body).map_err(bad)?.gtid)),
        _ => None,
    })
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
