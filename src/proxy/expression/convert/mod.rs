//! Converters (7.3.1 of the manual): one table of name, arguments, types, function, help.

mod bytes;
mod hashes;
mod language;
mod lookup;
mod numbers;
mod texts;
mod times;

use super::arguments::{Arguments, Slot};
use super::fetch::Prepare;
use super::{Context, Kind, Sample};

/// What a converter does with a value that has been cast to its input type.
pub(super) type Run = for<'e> fn(Sample<'e>, &'e Arguments, &Context<'e>) -> Option<Sample<'e>>;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Converter {
    pub(super) name: &'static str,
    pub(super) slots: &'static [Slot],
    pub(super) required: usize,
    pub(super) input: Kind,
    pub(super) output: Kind,
    pub(super) run: Run,
    pub(super) prepare: Option<Prepare>,
    pub(super) help: &'static str,
}

const fn row(name: &'static str, input: Kind, output: Kind, run: Run, help: &'static str) -> Converter {
    Converter { name, slots: &[], required: 0, input, output, run, prepare: None, help }
}

impl Converter {
    const fn takes(mut self, slots: &'static [Slot], required: usize) -> Converter {
        self.slots = slots;
        self.required = required;
        self
    }

    const fn prepared(mut self, prepare: Prepare) -> Converter {
        self.prepare = Some(prepare);
        self
    }
}

/// For the test that a fault in one connection ends no other.
#[cfg(test)]
const FAULTY: Converter =
    row("test_panic", Kind::Text, Kind::Text, |_, _, _| panic!("a fault, on purpose"), "panics");

const TABLES: &[&[Converter]] = &[
    texts::TABLE,
    numbers::TABLE,
    bytes::TABLE,
    hashes::TABLE,
    lookup::TABLE,
    times::TABLE,
    language::TABLE,
];

/// All rows (map converters are made by `map_row`).
pub(super) fn all() -> impl Iterator<Item = &'static Converter> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The row of a name.
pub(super) fn find(name: &str) -> Option<&'static Converter> {
    #[cfg(test)]
    if name == FAULTY.name {
        return Some(&FAULTY);
    }
    all().find(|row| row.name == name)
}

/// Reads `map_..._...(file[,default])`.
pub(super) use lookup::{map, prepare_map};

/// HAProxy's converters that are refused here: (name or beginning of it, why).
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("table_", "rate tracking is not supported yet"),
    ("set-var", "use the rule `set-var`"),
    ("unset-var", "use the rule `unset-var`"),
    ("capture-req", "use the rule `capture`"),
    ("capture-res", "use the rule `capture`"),
    ("aes_gcm_dec", "cryptography is not supported in expressions"),
    ("digest", "cryptography is not supported in expressions"),
    ("hmac", "cryptography is not supported in expressions"),
    ("sha1", "cryptography is not supported in expressions"),
    ("sha2", "cryptography is not supported in expressions"),
    ("secure_memcmp", "cryptography is not supported in expressions"),
    ("jwt_", "cryptography is not supported in expressions"),
    ("json_query", "JSON is not read in expressions"),
    ("mqtt_", "MQTT is not supported"),
    ("fix_", "FIX is not supported"),
    ("protobuf", "gRPC is not supported"),
    ("ungrpc", "gRPC is not supported"),
    ("lua.", "Lua is not supported"),
    ("debug", "there is no debugging buffer"),
];

/// Casts a value as HAProxy does.
pub(super) fn cast(sample: Sample<'_>, kind: Kind) -> Option<Sample<'_>> {
    match kind {
        Kind::Any => Some(sample),
        Kind::Bool => sample.to_bool().map(Sample::Bool),
        Kind::Integer => sample.to_integer().map(Sample::Integer),
        Kind::Address => sample.to_address().map(Sample::Address),
        Kind::Text | Kind::Method => Some(Sample::Text(sample.into_text())),
        Kind::Binary => sample.into_binary().map(Sample::Binary),
    }
}
