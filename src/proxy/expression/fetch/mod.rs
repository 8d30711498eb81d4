//! Fetches (7.3.2 to 7.3.6 of the manual): one table of name, arguments, type, message it looks at, function, help.

mod authorization;
mod cookies;
mod headers;
mod internal;
mod session;
mod target;

pub(in crate::proxy) use authorization::basic_credentials;

use super::arguments::{Arguments, Slot};
use super::{Context, Kind, Sample, Scope};
use crate::proxy::exchange::Side;

pub(in crate::proxy) use headers::segments as header_segments;
pub(super) use internal::{from_hex, usable};
pub(super) use target::line_words;

/// One value.
pub(super) type One = for<'e> fn(&Context<'e>, &'e Arguments) -> Option<Sample<'e>>;
/// Shows each value until the visitor says `true`; whether it did.
pub(super) type Each = for<'e> fn(&Context<'e>, &'e Arguments, &mut dyn FnMut(Sample<'e>) -> bool) -> bool;
/// Checks and compiles arguments when the file is read. The error says what is wrong.
pub(super) type Prepare = fn(&mut Arguments, &Scope<'_>) -> Result<(), String>;

/// How a fetch is evaluated.
#[derive(Clone, Copy, Debug)]
pub(super) enum Run {
    One(One),
    /// Several values for an acl, one of them for everything else.
    Many(One, Each),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    pub(super) name: &'static str,
    pub(super) slots: &'static [Slot],
    pub(super) required: usize,
    pub(super) kind: Kind,
    /// The message it needs; elsewhere it has no value.
    pub(super) side: Option<Side>,
    pub(super) run: Run,
    pub(super) prepare: Option<Prepare>,
    pub(super) help: &'static str,
}

/// Fills in what most rows have in common.
pub(super) const fn row(name: &'static str, kind: Kind, run: Run, help: &'static str) -> Fetch {
    Fetch { name, slots: &[], required: 0, kind, side: None, run, prepare: None, help }
}

impl Fetch {
    const fn takes(mut self, slots: &'static [Slot], required: usize) -> Fetch {
        self.slots = slots;
        self.required = required;
        self
    }

    const fn of(mut self, side: Side) -> Fetch {
        self.side = Some(side);
        self
    }

    const fn prepared(mut self, prepare: Prepare) -> Fetch {
        self.prepare = Some(prepare);
        self
    }
}

const TABLES: &[&[Fetch]] = &[
    target::TABLE,
    headers::TABLE,
    cookies::TABLE,
    authorization::TABLE,
    session::TABLE,
    internal::TABLE,
    internal::STATE,
];

/// All rows.
pub(super) fn all() -> impl Iterator<Item = &'static Fetch> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The row of a name.
pub(super) fn find(name: &str) -> Option<&'static Fetch> {
    all().find(|row| row.name == name)
}

/// HAProxy's fetches that are refused here: (what the name begins with, why).
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("ssl_", "TLS is not supported yet"),
    ("req.ssl", "TLS is not supported yet"),
    ("req_ssl", "TLS is not supported yet"),
    ("sc_", "rate tracking is not supported yet"),
    ("sc0_", "rate tracking is not supported yet"),
    ("sc1_", "rate tracking is not supported yet"),
    ("sc2_", "rate tracking is not supported yet"),
    ("src_get_", "rate tracking is not supported yet"),
    ("src_inc_", "rate tracking is not supported yet"),
    ("src_clr_", "rate tracking is not supported yet"),
    ("src_gp", "rate tracking is not supported yet"),
    ("src_conn_", "rate tracking is not supported yet"),
    ("src_sess_", "rate tracking is not supported yet"),
    ("src_http_", "rate tracking is not supported yet"),
    ("src_bytes_", "rate tracking is not supported yet"),
    ("src_kbytes_", "rate tracking is not supported yet"),
    ("src_updt_", "rate tracking is not supported yet"),
    ("fe_req_rate", "rates are not supported yet"),
    ("fe_sess_rate", "rates are not supported yet"),
    ("be_sess_rate", "rates are not supported yet"),
    ("srv_sess_rate", "rates are not supported yet"),
    ("req.body", "bodies are not buffered, so that nothing can be read from them"),
    ("res.body", "bodies are not buffered, so that nothing can be read from them"),
    ("req.payload", "bodies are not buffered, so that nothing can be read from them"),
    ("res.payload", "bodies are not buffered, so that nothing can be read from them"),
    ("payload", "bodies are not buffered, so that nothing can be read from them"),
    ("req.len", "bodies are not buffered, so that nothing can be read from them"),
    ("req_len", "bodies are not buffered, so that nothing can be read from them"),
    ("res.len", "bodies are not buffered, so that nothing can be read from them"),
    ("lua.", "Lua is not supported"),
    ("fc_pp", "the PROXY protocol is not supported yet"),
    ("res.cache", "there is no cache"),
    ("res.comp", "compression is not supported yet"),
    ("internal.", "it shows HAProxy's own insides"),
];
