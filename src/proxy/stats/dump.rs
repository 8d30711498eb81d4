//! Rows as CSV, as `typed` lines and as JSON (management manual 9.1 and 9.2).

use super::columns::{At, COLUMNS, Column, MODULES};
use super::rows::{Kind, Row};
use super::value::Value;
use std::fmt::Write as _;

/// How `show stat` and `show info` are shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Form {
    #[default]
    Csv,
    Typed,
    Json,
}

/// Rows in one of the forms; `describe` adds what each field means (`desc`) where the form has room for it.
pub fn dump(rows: &[Row], form: Form, describe: bool) -> String {
    match form {
        Form::Csv => csv(rows),
        Form::Typed => typed(rows, describe),
        Form::Json => json(rows),
    }
}

/// The header line and a line a row, each field followed by a comma.
pub fn csv(rows: &[Row]) -> String {
    let mut out = String::with_capacity(1_600 + rows.len() * 400);
    out.push_str("# ");
    let separator = |out: &mut String, at: usize| {
        if at == MODULES {
            out.push_str("-,");
        }
    };
    for (at, column) in COLUMNS.iter().enumerate() {
        separator(&mut out, at);
        let _ = write!(out, "{},", column.name);
    }
    out.push('\n');
    for row in rows {
        for (at, value) in row.values.iter().enumerate() {
            separator(&mut out, at);
            match value {
                Value::Text(text) => quoted(&mut out, text),
                other => {
                    let _ = write!(out, "{other}");
                }
            }
            out.push(',');
        }
        out.push('\n');
    }
    out
}

/// A CSV field (RFC 4180): quoted when it holds a comma, a quote or a line break.
fn quoted(out: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) {
        let _ = write!(out, "\"{}\"", text.replace('"', "\"\"").replace(['\n', '\r'], " "));
    } else {
        out.push_str(text);
    }
}

/// A line a field that is not empty.
pub fn typed(rows: &[Row], describe: bool) -> String {
    let mut out = String::with_capacity(rows.len() * 4_000);
    for row in rows {
        let letter = row.kind.letter();
        for (at, column, value) in present(row) {
            let name = column.name;
            let (tags, kind) = (tags(row.kind, at, column), value.kind());
            let _ = write!(out, "{letter}.{}.{}.{at}.{name}.1:{tags}:{kind}:", row.proxy, row.id);
            match value {
                Value::Text(text) => out.extend(text.chars().map(|c| if c.is_control() { ' ' } else { c })),
                number => {
                    let _ = write!(out, "{number}");
                }
            }
            if describe {
                let _ = write!(out, ":\"{}\"", column.help);
            }
            out.push('\n');
        }
    }
    out
}

fn present(row: &Row) -> impl Iterator<Item = (usize, &'static Column, &Value)> {
    let pairs = COLUMNS.iter().zip(&row.values).enumerate();
    pairs.map(|(at, (column, value))| (at, column, value)).filter(|(_, _, value)| !value.is_empty())
}

/// A column's tags; those of a few differ with what the row is of.
fn tags(kind: Kind, at: usize, column: &'static Column) -> &'static str {
    const GAUGES: &[At] = &[At::Act, At::Bck, At::Rate, At::RateMax];
    let gauge = kind == Kind::Backend && GAUGES.iter().any(|gauge| *gauge as usize == at);
    if gauge { "MGP" } else { column.tags }
}

/// An array of rows, each an array of fields.
pub fn json(rows: &[Row]) -> String {
    let mut out = String::with_capacity(rows.len() * 12_000);
    out.push('[');
    for (number, row) in rows.iter().enumerate() {
        out.push_str(if number > 0 { ",[" } else { "[" });
        for (index, (at, column, value)) in present(row).enumerate() {
            if index > 0 {
                out.push(',');
            }
            let object = match row.kind {
                Kind::Frontend => "Frontend",
                Kind::Backend => "Backend",
                Kind::Server => "Server",
                Kind::Listener => "Listener",
            };
            let _ = write!(out, "{{\"objType\":\"{object}\",\"proxyId\":{},\"id\":{},", row.proxy, row.id);
            json_field(&mut out, at, column.name, tags(row.kind, at, column), value);
            out.push('}');
        }
        out.push(']');
    }
    out.push_str("]\n");
    out
}

/// `"field":...,"processNum":1,"tags":...,"value":...`: the part that `show stat json` and `show info json` share.
pub(super) fn json_field(out: &mut String, at: usize, name: &str, tags: &str, value: &Value) {
    let [origin, nature, scope] = tag_words(tags);
    let _ = write!(
        out,
        "\"field\":{{\"pos\":{at},\"name\":\"{name}\"}},\"processNum\":1,\"tags\":{{\"origin\":\"{origin}\",\
         \"nature\":\"{nature}\",\"scope\":\"{scope}\"}},\"value\":{{\"type\":\"{}\",\"value\":",
        value.kind()
    );
    match value {
        Value::Text(text) => json_text(out, text),
        other => {
            let _ = write!(out, "{other}");
        }
    }
    out.push('}');
}

/// A JSON string (RFC 8259 section 7).
fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Words of the three letters of a field's tags.
fn tag_words(tags: &str) -> [&'static str; 3] {
    let mut letters = tags.bytes();
    let mut next = || letters.next().unwrap_or(b'?');
    let origin = match next() {
        b'M' => "Metric",
        b'S' => "Status",
        b'K' => "Key",
        b'C' => "Config",
        _ => "Product",
    };
    let nature = match next() {
        b'L' => "Limit",
        b'm' => "Min",
        b'M' => "Max",
        b'R' => "Rate",
        b'C' => "Counter",
        b'D' => "Duration",
        b'A' => "Age",
        b'T' => "Time",
        b'N' => "Name",
        b'O' => "Output",
        b'a' => "Avg",
        _ => "Gauge",
    };
    let scope = match next() {
        b'C' => "Cluster",
        b'S' => "Service",
        _ => "Process",
    };
    [origin, nature, scope]
}
