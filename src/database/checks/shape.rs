//! A table's columns and primary key, and the SQL by which its rows are summed up over a range of that key. Pure but
//! for [`Shape::read`].
//!
//! A row's text holds, for each column that is stored, its length (`N` for NULL) and its value, so that no two
//! different rows have the same text; columns that may be long stand in it as a checksum of their own, for no function
//! returns more than `max_allowed_packet`. Sums (not XOR) of the rows' checksums: equal rows do not cancel out.

use super::session::{Session, rows};
use crate::database::dialect::{Dialect, Version};
use crate::database::sql::{Row, SqlError, quote_name, quote_table, quote_text};

/// A column as far as comparing goes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Column {
    name: String,
    /// `varchar`, `int`, in lower case.
    kind: String,
    charset: String,
    collation: String,
}

/// How a value is written in a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// As the server prints it.
    Number,
    /// Between quotes.
    Quoted,
    /// Its bytes, with character set and collation.
    Text,
    /// Its bytes.
    Bytes,
    /// A range of it cannot be found by an index.
    Unordered,
}

/// A key's values, ready for a statement: one literal a column.
pub(super) type Key = Vec<String>;

/// What is known of a table for comparing its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Quoted, with its database.
    table: String,
    /// Old rows are kept and compared too.
    versioned: bool,
    columns: Vec<Column>,
    /// Columns of the primary key; empty when there is none by which ranges can be told.
    key: Vec<Column>,
    dialect: Dialect,
}

impl Shape {
    /// Asks for it; `None` when the table has gone.
    pub(super) async fn read(
        session: &mut dyn Session,
        schema: &str,
        name: &str,
        versioned: bool,
    ) -> Result<Option<Shape>, SqlError> {
        let here = format!("table_schema = {} AND table_name = {}", quote_text(schema), quote_text(name));
        let dialect = session.dialect();
        let expression = match dialect {
            Dialect::MariaDb(version) if version >= Version::new(10, 2, 5) => "generation_expression",
            _ => "''",
        };
        let told = rows(
            session,
            &format!(
                "SELECT column_name, data_type, character_set_name, collation_name, extra, column_type, {expression} \
                 FROM information_schema.columns WHERE {here} ORDER BY ordinal_position"
            ),
        )
        .await?;
        let of_key = rows(
            session,
            &format!(
                "SELECT column_name, sub_part FROM information_schema.statistics \
                 WHERE {here} AND index_name = 'PRIMARY' ORDER BY seq_in_index"
            ),
        )
        .await?;
        if told.is_empty() {
            return Ok(None);
        }
        let mut columns: Vec<Column> = told.iter().filter(|row| is_compared(row)).map(column).collect();
        if versioned && !told.iter().any(|row| row.string(6) == "ROW START") {
            // They are there although they are not listed.
            columns.extend(["ROW_START", "ROW_END"].map(|name| Column {
                name: name.to_owned(),
                kind: "timestamp".to_owned(),
                charset: String::new(),
                collation: String::new(),
            }));
        }
        let is_end = |name: &str| {
            name.eq_ignore_ascii_case("row_end")
                || told.iter().any(|row| row.string(0) == name && row.string(6) == "ROW END")
        };
        // The end of a row's validity belongs to the key of a versioned table; ranges do without it.
        let key: Option<Vec<Column>> = of_key
            .iter()
            .filter(|row| !(versioned && is_end(&row.string(0))))
            .map(|row| {
                // A part of a column does not order rows by the whole of it.
                let whole = row.bytes(1).is_none();
                let found = columns.iter().find(|column| column.name == row.string(0))?;
                (whole && form(found) != Form::Unordered).then(|| found.clone())
            })
            .collect();
        Ok(Some(Shape {
            table: quote_table(schema, name),
            versioned,
            columns,
            key: key.unwrap_or_default(),
            dialect,
        }))
    }

    /// Whether another server's table can be asked the same questions.
    pub(super) fn same_columns(&self, other: &Shape) -> bool {
        let names = |shape: &Shape| {
            let mut names: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
            names.sort();
            names
        };
        names(self) == names(other)
    }

    /// Whether ranges can be told.
    pub(super) fn has_key(&self) -> bool {
        !self.key.is_empty()
    }

    fn from(&self) -> String {
        match (self.versioned, self.has_key()) {
            (true, _) => format!("{} FOR SYSTEM_TIME ALL", self.table),
            (false, true) => format!("{} FORCE INDEX (PRIMARY)", self.table),
            (false, false) => self.table.clone(),
        }
    }

    fn key_list(&self) -> String {
        self.key.iter().map(|column| quote_name(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The key of the row that is `rows` rows behind `after`.
    pub(super) fn border(&self, after: Option<&Key>, rows: u64) -> String {
        format!(
            "SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}, 1",
            self.key_values(),
            self.from(),
            self.within(after, None),
            self.key_list(),
            rows.saturating_sub(1)
        )
    }

    /// Columns that [`Shape::key_of`] understands.
    fn key_values(&self) -> String {
        let value = |column: &Column| {
            let name = quote_name(&column.name);
            match form(column) {
                Form::Text | Form::Bytes => format!("HEX({name})"),
                _ if column.kind == "bit" => format!("{name} + 0"),
                _ => format!("CAST({name} AS CHAR)"),
            }
        };
        self.key.iter().map(value).collect::<Vec<_>>().join(", ")
    }

    /// The key in the first columns of a row; `None` when it does not have them.
    pub(super) fn key_of(&self, row: &Row) -> Option<Key> {
        let literal = |(at, column): (usize, &Column)| {
            let value = row.text(at)?;
            Some(match form(column) {
                Form::Number | Form::Unordered => value.into_owned(),
                Form::Quoted => quote_text(&value),
                Form::Bytes => format!("x'{value}'"),
                Form::Text => format!("_{} x'{value}' COLLATE {}", column.charset, column.collation),
            })
        };
        self.key.iter().enumerate().map(literal).collect()
    }

    /// A key for people.
    pub(super) fn shown(&self, key: &Key) -> String {
        let one = |(column, literal): (&Column, &String)| {
            let value = match form(column) {
                Form::Text => text_of(literal).unwrap_or_else(|| literal.clone()),
                _ => literal.clone(),
            };
            format!("{} = {value}", quote_name(&column.name))
        };
        self.key.iter().zip(key).map(one).collect::<Vec<_>>().join(", ")
    }

    /// The condition "behind `after` and up to `to`".
    fn within(&self, after: Option<&Key>, to: Option<&Key>) -> String {
        let mut parts = Vec::new();
        if let Some(after) = after {
            parts.push(self.compared(after, ">", ">"));
        }
        if let Some(to) = to {
            parts.push(self.compared(to, "<", "<="));
        }
        if parts.is_empty() { "TRUE".to_owned() } else { parts.join(" AND ") }
    }

    /// The key against a value, spelled out: servers do not find a range by `(a, b) > (1, 2)`.
    fn compared(&self, key: &Key, strict: &str, last: &str) -> String {
        let names: Vec<String> = self.key.iter().map(|column| quote_name(&column.name)).collect();
        let mut condition = String::new();
        for (at, (name, value)) in names.iter().zip(key).enumerate().rev() {
            condition = if at + 1 == names.len() {
                format!("{name} {last} {value}")
            } else {
                format!("{name} {strict}= {value} AND ({name} {strict} {value} OR ({condition}))")
            };
        }
        format!("({condition})")
    }

    /// (rows, sum, sum) of a range: both halves of the MD5 of each row.
    pub(super) fn sums(&self, after: Option<&Key>, to: Option<&Key>) -> String {
        // A row whose text is too long for the server would count as nothing: it shows itself by a huge sum.
        format!(
            "SELECT COUNT(*), COALESCE(SUM(IFNULL(CAST(CONV(SUBSTRING(h, 1, 16), 16, 10) AS UNSIGNED), {TOO_LONG})), 0), \
             COALESCE(SUM(CAST(CONV(SUBSTRING(h, 17, 16), 16, 10) AS UNSIGNED)), 0) \
             FROM (SELECT MD5({}) AS h FROM {} WHERE {}) AS r",
            self.row_text(),
            self.from(),
            self.within(after, to)
        )
    }

    /// Key and checksum of each row of a range, in the key's order.
    pub(super) fn each(&self, after: Option<&Key>, to: Option<&Key>) -> String {
        format!(
            "SELECT {}, MD5({}) FROM {} WHERE {} ORDER BY {}",
            self.key_values(),
            self.row_text(),
            self.from(),
            self.within(after, to),
            self.key_list()
        )
    }

    /// Columns of the key in a row of [`Shape::each`]; the checksum follows.
    pub(super) fn key_len(&self) -> usize {
        self.key.len()
    }

    fn row_text(&self) -> String {
        let parts: Vec<String> = self
            .columns
            .iter()
            .map(|column| {
                let value = self.value(column);
                format!("IFNULL(LENGTH({}), 'N'), {value}", self.measured(column))
            })
            .collect();
        // NULLs are left out by CONCAT_WS; their `N` is not.
        format!("CONCAT_WS('#', {})", parts.join(", "))
    }

    /// What tells a column's length.
    fn measured(&self, column: &Column) -> String {
        match kind_of(column) {
            Content::Long | Content::Plain => quote_name(&column.name),
            Content::Json => format!("CAST({} AS CHAR)", quote_name(&column.name)),
            Content::Inexact | Content::Bits | Content::Text | Content::Place => self.value(column),
        }
    }

    fn value(&self, column: &Column) -> String {
        let name = quote_name(&column.name);
        let sum = |text: &str| format!("MD5({text})");
        match kind_of(column) {
            // The text of a FLOAT has six digits; its value as a DOUBLE has all of them.
            Content::Inexact => format!("({name} + 0e0)"),
            Content::Bits => format!("({name} + 0)"),
            Content::Text => format!("CAST({name} AS BINARY)"),
            Content::Plain => format!("CAST({name} AS CHAR)"),
            Content::Long => sum(&name),
            Content::Json if self.dialect.is_mariadb() => sum(&name),
            Content::Json => sum(&format!("CAST({name} AS CHAR)")),
            Content::Place => {
                let old = matches!(self.dialect, Dialect::MySql(version) if version < Version::new(5, 7, 0));
                let (srid, bytes) = if old { ("SRID", "AsWKB") } else { ("ST_SRID", "ST_AsWKB") };
                format!("CONCAT({srid}({name}), '/', {})", sum(&format!("{bytes}({name})")))
            }
        }
    }
}

/// What stands for a row that could not be summed; no sum of 2^32 checksums of 32 bits reaches it.
const TOO_LONG: &str = "1000000000000000000000000000000";

/// Whether a sum holds a row that could not be summed.
pub(super) fn is_too_long(sum: &str) -> bool {
    sum.len() > 29
}

/// Kinds of content.
enum Content {
    Inexact,
    Bits,
    Text,
    Long,
    Json,
    Place,
    Plain,
}

fn kind_of(column: &Column) -> Content {
    match column.kind.as_str() {
        "float" | "double" | "real" => Content::Inexact,
        "bit" => Content::Bits,
        "char" | "varchar" | "binary" | "varbinary" | "enum" | "set" => Content::Text,
        "tinyblob" | "blob" | "mediumblob" | "longblob" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            Content::Long
        }
        "json" => Content::Json,
        "point" | "linestring" | "polygon" | "geometry" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => Content::Place,
        _ => Content::Plain,
    }
}

fn form(column: &Column) -> Form {
    match column.kind.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "bit" => Form::Number,
        "date" | "datetime" | "timestamp" | "time" | "uuid" | "inet4" | "inet6" => Form::Quoted,
        "char" | "varchar" if !column.charset.is_empty() => Form::Text,
        "binary" | "varbinary" => Form::Bytes,
        // FLOAT is not what it prints, ENUM and SET are ordered by number and compared as text.
        _ => Form::Unordered,
    }
}

/// Computed columns are what the others make them. The transaction numbers by which some versioned tables know when a
/// row was valid are each server's own.
fn is_compared(row: &Row) -> bool {
    let is_virtual = row.string(4).to_ascii_uppercase().contains("VIRTUAL GENERATED");
    let is_own_number = matches!(row.string(6).as_str(), "ROW START" | "ROW END")
        && row.string(5).to_ascii_lowercase().starts_with("bigint");
    !is_virtual && !is_own_number
}

fn column(row: &Row) -> Column {
    Column {
        name: row.string(0),
        kind: row.string(1).to_ascii_lowercase(),
        charset: row.string(2),
        collation: row.string(3),
    }
}

/// The text of `_utf8mb4 x'..' COLLATE ..`, where it is UTF-8 or ASCII.
fn text_of(literal: &str) -> Option<String> {
    let hex = literal.split('\'').nth(1)?;
    let bytes: Option<Vec<u8>> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()).collect();
    let text = String::from_utf8(bytes?).ok()?;
    let readable = text.is_ascii() || literal.starts_with("_utf8");
    (readable && !text.chars().any(char::is_control)).then(|| quote_text(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        let column = |name: &str, kind: &str| Column {
            name: name.into(),
            kind: kind.into(),
            charset: if kind == "varchar" { "utf8mb4".into() } else { String::new() },
            collation: if kind == "varchar" { "utf8mb4_bin".into() } else { String::new() },
        };
        let key = vec![column("a", "int"), column("b`c", "varchar")];
        Shape {
            table: "`s`.`t`".into(),
            versioned: false,
            columns: key.clone(),
            key,
            dialect: Dialect::MariaDb(Version::new(10, 11, 0)),
        }
    }

    #[test]
    fn ranges_are_spelled_out() {
        let key = vec!["5".to_owned(), "_utf8mb4 x'6a27' COLLATE utf8mb4_bin".to_owned()];
        let shape = shape();
        assert_eq!(
            shape.within(Some(&key), None),
            "(`a` >= 5 AND (`a` > 5 OR (`b``c` > _utf8mb4 x'6a27' COLLATE utf8mb4_bin)))"
        );
        assert_eq!(
            shape.within(None, Some(&key)),
            "(`a` <= 5 AND (`a` < 5 OR (`b``c` <= _utf8mb4 x'6a27' COLLATE utf8mb4_bin)))"
        );
        assert_eq!(shape.shown(&key), "`a` = 5, `b``c` = 'j'''");
        assert_eq!(shape.within(None, None), "TRUE");
    }

    #[test]
    fn huge_sums_are_recognised() {
        assert!(is_too_long(TOO_LONG) && !is_too_long("340282366920938463463374607431"[1..].trim()));
        // 2^32 rows of 64 bits.
        assert!(!is_too_long(&(u128::from(u64::MAX) << 32).to_string()));
    }
}
