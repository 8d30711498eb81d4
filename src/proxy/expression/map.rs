//! Map files (`map*` converters, 7.3.1 of the manual): a key and a value on each line.

use super::Sample;
use super::pattern::{Method, Patterns};
use super::substitution::Substitution;

/// A map, compiled.
#[derive(Debug)]
pub(super) struct Map {
    patterns: Patterns,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Value {
    Plain(Sample<'static>),
    /// `map_regm`: a text with references to groups of the key.
    Groups(Substitution),
}

/// What values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    Text,
    Integer,
    Address,
    Groups,
}

/// Lines of a pattern file: no leading or trailing white space, no empty lines, no comments.
pub(super) fn lines(content: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    content.split(|byte| *byte == b'\n').enumerate().filter_map(|(number, line)| {
        // A sharp that is not the very first character is part of a pattern.
        let text = line.trim_ascii();
        (line.first() != Some(&b'#') && !text.is_empty()).then_some((number + 1, text))
    })
}

impl Map {
    /// Reads the content of a map file. The error says which line is wrong.
    pub(super) fn read(content: &[u8], method: Method, output: Output) -> Result<Map, String> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for (number, line) in lines(content) {
            let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
            let value = line[end..].trim_ascii();
            let value =
                read_value(&line[..end], value, output).map_err(|fault| format!("line {number}: {fault}"))?;
            keys.push(line[..end].to_vec());
            values.push(value);
        }
        Ok(Map { patterns: Patterns::new(method, false, &keys)?, values })
    }

    /// Value of the key that matches.
    pub(super) fn find<'m>(&'m self, key: &Sample<'_>) -> Option<Sample<'m>> {
        match self.values.get(self.patterns.find(key)?)? {
            Value::Plain(value) => Some(value.borrow()),
            Value::Groups(substitution) => {
                let text = key.borrow().into_text();
                substitution.expand(&text).map(Sample::made)
            }
        }
    }
}

fn read_value(key: &[u8], value: &[u8], output: Output) -> Result<Value, String> {
    let text = String::from_utf8_lossy(value);
    Ok(match output {
        Output::Text => Value::Plain(Sample::made(value.to_vec())),
        Output::Integer => {
            Value::Plain(Sample::Integer(text.parse().map_err(|_| format!("`{text}` is no integer"))?))
        }
        Output::Address => {
            Value::Plain(Sample::Address(text.parse().map_err(|_| format!("`{text}` is no address"))?))
        }
        Output::Groups => Value::Groups(Substitution::new(key, value, false)?),
    })
}

/// What the name of a map converter says: method, type of the key's sample, type of the values.
pub(super) fn of_name(name: &str) -> Option<(Method, Output)> {
    let rest = name.strip_prefix("map")?;
    if rest.is_empty() {
        return Some((Method::Exact, Output::Text));
    }
    let rest = rest.strip_prefix('_')?;
    if rest == "regm" {
        return Some((Method::Regex, Output::Groups));
    }
    let (method, output) = match rest.split_once('_') {
        None => (rest, Output::Text),
        Some((method, "str")) => (method, Output::Text),
        Some((method, "int")) => (method, Output::Integer),
        Some((method, "ip")) => (method, Output::Address),
        Some(_) => return None,
    };
    let method = Method::find(method)?;
    (!matches!(method, Method::Found | Method::Bool | Method::Binary | Method::Length))
        .then_some((method, output))
}
