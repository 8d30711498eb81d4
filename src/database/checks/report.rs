//! What comparing a database has found: for people, and the same as JSON.

use super::catalog::Item;
use super::position::Position;
use crate::database::sql::quote_table;
use serde::{Deserialize, Serialize};
use std::fmt;

/// So many tables are named where their proof is another one.
const NAMED: usize = 5;

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

/// A table that is equal, and how that was proved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSum {
    /// Its database.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What `CHECKSUM TABLE` tells on both sides: 32 bits. `None`: it differs although the rows do not (another version, another
    /// format of rows).
    pub checksum: Option<String>,
    /// So many rows were compared by their MD5.
    pub rows: Option<u64>,
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
    /// The tables that are equal, each with its proof.
    pub sums: Vec<TableSum>,
    /// What is never compared, for it is each server's own.
    pub left_out: Vec<String>,
}

impl Comparison {
    /// Whether everything that was compared is equal.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    /// How the tables that are equal were proved to be.
    fn proof(&self) -> String {
        let by_rows: Vec<&TableSum> = self.sums.iter().filter(|table| table.rows.is_some()).collect();
        let (by_sum, rows) = (self.sums.len() - by_rows.len(), self.by_rows.1);
        let more = if self.deep { "" } else { "; --deep compares all rows by MD5" };
        let sums = format!("{by_sum} by CHECKSUM TABLE (32 bits each)");
        match by_rows.as_slice() {
            [] => format!("{sums}{more}"),
            _ if by_sum == 0 => format!("all by MD5 of their {rows} rows"),
            few if few.len() <= NAMED => {
                let names: Vec<String> =
                    few.iter().map(|table| quote_table(&table.schema, &table.name)).collect();
                format!("{sums}, {} by MD5 of their {rows} rows ({}){more}", few.len(), names.join(", "))
            }
            many => format!("{sums}, {} by MD5 of their {rows} rows (--json names them){more}", many.len()),
        }
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
        writeln!(f, "  proof     {}", self.proof())?;
        writeln!(f, "  left out  {}: each server's own", self.left_out.join(", "))?;
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
