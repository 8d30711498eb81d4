//! What comparing a database has found: for people, and the same as JSON.

use super::catalog::Item;
use super::position::Position;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A row that differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyDifference {
    /// Its primary key.
    pub key: String,
    /// In which way.
    pub what: String,
}

/// A range of a primary key whose rows differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangeDifference {
    /// Behind this key; `None`: from the start.
    pub after: Option<String>,
    /// Up to this key; `None`: to the end.
    pub to: Option<String>,
    /// Rows on the primary and on the standby.
    pub rows: (u64, u64),
    /// Their checksums.
    pub sums: (String, String),
    /// The first rows that differ.
    pub keys: Vec<KeyDifference>,
    /// How many differ; `None`: not counted (no primary key).
    pub differing: Option<u64>,
}

/// How the rows of a table differ.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RowsDiffer {
    /// Rows on the primary and on the standby.
    pub rows: (u64, u64),
    /// Ranges that differ.
    pub ranges: Vec<RangeDifference>,
    /// How many more do.
    pub more_ranges: u64,
}

/// In which way something differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The standby does not have it.
    Missing,
    /// Only the standby has it.
    Extra,
    /// The servers describe it differently.
    Definition,
    /// Its rows differ.
    Rows(RowsDiffer),
    /// `CHECKSUM TABLE` of the primary and of the standby, of a table that a snapshot does not cover.
    Sums(String, String),
    /// The next value of a sequence: the primary's, the standby's.
    Next(i64, i64),
}

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// What differs.
    pub item: Item,
    /// How.
    pub way: Way,
}

/// Something that was not compared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unchecked {
    /// What.
    pub item: Item,
    /// Why.
    pub reason: String,
}

/// The checksum of a table at the position, as `CHECKSUM TABLE` tells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSum {
    /// Its database.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its checksum.
    pub checksum: String,
}

/// The comparison of two servers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The position at which both were read (that of the last round).
    pub at: Position,
    /// The servers: address and version.
    pub primary: String,
    /// The other one.
    pub standby: String,
    /// Tables that were compared.
    pub tables: u64,
    /// Bytes of them, about.
    pub bytes: u64,
    /// Tables whose rows were compared by ranges, and their rows.
    pub by_rows: (u64, u64),
    /// Views, routines, triggers, events, accounts and definitions of tables.
    pub objects: u64,
    /// Every table was compared row by row with MD5.
    pub deep: bool,
    /// Rounds that it took.
    pub rounds: u32,
    /// Seconds that it took.
    pub seconds: f64,
    /// What is different.
    pub differences: Vec<Difference>,
    /// What was not compared.
    pub unchecked: Vec<Unchecked>,
    /// Checksums of the tables that are equal.
    pub sums: Vec<TableSum>,
}

impl Comparison {
    /// Whether everything that was compared is equal.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for RangeDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = match (&self.after, &self.to) {
            (None, None) => "all rows".to_owned(),
            (Some(after), None) => format!("rows behind {after}"),
            (None, Some(to)) => format!("rows up to {to}"),
            (Some(after), Some(to)) => format!("rows behind {after}, up to {to}"),
        };
        write!(
            f,
            "      {range}: {} rows with checksum {} on the primary, {} with {} on the standby",
            self.rows.0, self.sums.0, self.rows.1, self.sums.1
        )?;
        for key in &self.keys {
            write!(f, "\n        {}: {}", key.key, key.what)?;
        }
        match self.differing.map(|count| count.saturating_sub(self.keys.len() as u64)) {
            Some(more) if more > 0 => write!(f, "\n        and {more} rows more"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: ", self.item)?;
        match &self.way {
            Way::Missing => f.write_str("only on the primary"),
            Way::Extra => f.write_str("only on the standby"),
            Way::Definition => f.write_str("its definition differs (compare SHOW CREATE on both)"),
            Way::Sums(primary, standby) => {
                write!(f, "CHECKSUM TABLE is {primary} on the primary, {standby} on the standby")
            }
            Way::Next(primary, standby) => {
                write!(f, "its next value is {primary} on the primary, {standby} on the standby")
            }
            Way::Rows(differ) => {
                write!(f, "{} rows on the primary, {} on the standby", differ.rows.0, differ.rows.1)?;
                for range in &differ.ranges {
                    write!(f, "\n{range}")?;
                }
                match differ.more_ranges {
                    0 => Ok(()),
                    more => write!(f, "\n      and {more} ranges more"),
                }
            }
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  tables    {}, {} and {} definitions, at {}",
            self.tables,
            crate::observe::words::bytes(self.bytes),
            self.objects,
            self.at
        )?;
        let proof = match (self.deep, self.by_rows) {
            (true, (_, rows)) => format!("{rows} rows by MD5 (--deep)"),
            (false, (0, _)) => "CHECKSUM TABLE (32 bits a table; --deep compares all rows by MD5)".to_owned(),
            (false, (tables, rows)) => {
                format!(
                    "CHECKSUM TABLE (32 bits a table), {tables} tables by their {rows} rows; --deep compares all by MD5"
                )
            }
        };
        writeln!(f, "  proof     {proof}")?;
        writeln!(f, "  between   {} and {}, in {:.1} s", self.primary, self.standby, self.seconds)?;
        if !self.differences.is_empty() {
            writeln!(f, "differences in the database ({}):", self.differences.len())?;
            for difference in &self.differences {
                writeln!(f, "{difference}")?;
            }
        }
        if !self.unchecked.is_empty() {
            writeln!(f, "unchecked in the database ({}):", self.unchecked.len())?;
            for unchecked in &self.unchecked {
                writeln!(f, "  {}: {}", unchecked.item, unchecked.reason)?;
            }
        }
        Ok(())
    }
}
