//! Arguments of fetches and converters: `(a,"b,c",3)` split as HAProxy splits them (2.2 of the manual), then typed.

use super::credentials::Credentials;
use super::map::Map;
use super::substitution::Substitution;
use super::{Scope, Variable};
use crate::proxy::config::model::{ProxyIndex, ServerIndex};
use crate::proxy::exchange::Side;
use core::net::IpAddr;
use std::sync::Arc;

/// What an argument may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    Text,
    Integer,
    /// Lowered.
    HeaderName,
    /// A section with servers; the line's own when it is not given.
    Backend,
    /// A section that accepts connections; the line's own when it is not given.
    Frontend,
    /// `backend/server`, or `server` of the line's own section.
    Server,
    /// Section with a stick table; the line's own when it is not given.
    Table,
    Userlist,
    Variable,
    /// A number, or the name of a variable that holds one.
    Number,
    Address4,
    Address6,
    Mask4,
    Mask6,
}

/// One argument, read.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    Absent,
    Text(Vec<u8>),
    Integer(i64),
    Section(ProxyIndex),
    Server(ProxyIndex, ServerIndex),
    Userlist(Arc<Credentials>),
    Variable(Variable),
    Address(IpAddr),
    Substitution(Box<Substitution>),
    Map(Arc<Map>),
}

/// The arguments of one fetch or converter.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    list: Vec<Argument>,
    /// Which message the fetch looks at; absent: the one that is being handled.
    pub(super) side: Option<Side>,
}

impl Arguments {
    pub(super) fn get(&self, index: usize) -> Option<&Argument> {
        self.list.get(index).filter(|argument| !matches!(argument, Argument::Absent))
    }

    /// Text at a place; empty when it was not given.
    pub(super) fn text(&self, index: usize) -> &[u8] {
        match self.list.get(index) {
            Some(Argument::Text(text)) => text,
            _ => b"",
        }
    }

    pub(super) fn integer(&self, index: usize) -> Option<i64> {
        match self.list.get(index) {
            Some(Argument::Integer(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn section(&self, index: usize) -> Option<ProxyIndex> {
        match self.list.get(index) {
            Some(Argument::Section(value)) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn address(&self, index: usize) -> Option<IpAddr> {
        match self.list.get(index) {
            Some(Argument::Address(value)) => Some(*value),
            _ => None,
        }
    }

    /// Puts another argument at a place: what `prepare` functions make of the text.
    pub(super) fn put(&mut self, index: usize, argument: Argument) {
        while self.list.len() <= index {
            self.list.push(Argument::Absent);
        }
        self.list[index] = argument;
    }

    /// Types the words of a list. The error says what is wrong.
    pub(super) fn read(
        words: &[Vec<u8>],
        called: bool,
        slots: &[Slot],
        required: usize,
        scope: &Scope<'_>,
    ) -> Result<Arguments, String> {
        // `()` is one empty argument where one is needed.
        let empty = [Vec::new()];
        let words = if words.is_empty() && called && required > 0 { &empty[..] } else { words };
        if words.len() > slots.len() {
            return Err(match slots.len() {
                0 => "it takes no argument".to_owned(),
                n => format!("it takes at most {n} arguments, not {}", words.len()),
            });
        }
        if words.len() < required {
            return Err(format!("it needs {required} arguments, not {}", words.len()));
        }
        let mut list = Vec::with_capacity(slots.len());
        for (place, slot) in slots.iter().enumerate() {
            let word = words.get(place).map(Vec::as_slice);
            let argument =
                read_one(word, *slot, scope).map_err(|fault| format!("argument {}: {fault}", place + 1))?;
            list.push(argument);
        }
        Ok(Arguments { list, side: None })
    }
}

fn read_one(word: Option<&[u8]>, slot: Slot, scope: &Scope<'_>) -> Result<Argument, String> {
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return absent(word.is_some(), slot, scope);
    };
    let text = || std::str::from_utf8(word).map_err(|_| "it is not UTF-8".to_owned());
    Ok(match slot {
        Slot::Text => Argument::Text(word.to_vec()),
        Slot::HeaderName => Argument::Text(word.to_ascii_lowercase()),
        Slot::Integer => Argument::Integer(
            text()?.parse().map_err(|_| format!("`{}` is no integer", text().unwrap_or("")))?,
        ),
        Slot::Number => match text()?.parse() {
            Ok(number) => Argument::Integer(number),
            Err(_) => Argument::Variable(scope.variables.borrow_mut().variable(text()?)?),
        },
        Slot::Variable => Argument::Variable(scope.variables.borrow_mut().variable(text()?)?),
        Slot::Backend => Argument::Section(
            scope
                .names
                .backend(text()?)
                .ok_or_else(|| format!("there is no backend `{}`", text().unwrap_or("")))?,
        ),
        Slot::Frontend => Argument::Section(
            scope
                .names
                .frontend(text()?)
                .ok_or_else(|| format!("there is no frontend `{}`", text().unwrap_or("")))?,
        ),
        Slot::Table => {
            let name = text()?;
            let known = scope.names.proxies.iter().position(|section| section.name == name && section.table);
            Argument::Section(
                known.ok_or_else(|| format!("there is no section `{name}` with a stick-table"))?,
            )
        }
        Slot::Server => server(text()?, scope)?,
        Slot::Userlist => {
            let name = text()?;
            let list = scope.names.userlist(name).ok_or_else(|| format!("there is no userlist `{name}`"))?;
            Argument::Userlist(Arc::new(Credentials::new(Arc::clone(list))))
        }
        Slot::Address4 => Argument::Address(IpAddr::V4(
            text()?.parse().map_err(|_| format!("`{}` is no IPv4 address", text().unwrap_or("")))?,
        )),
        Slot::Address6 => Argument::Address(IpAddr::V6(
            text()?.parse().map_err(|_| format!("`{}` is no IPv6 address", text().unwrap_or("")))?,
        )),
        Slot::Mask4 => Argument::Address(mask(text()?, 32, u128::from(u32::MAX))?),
        Slot::Mask6 => Argument::Address(mask(text()?, 128, u128::MAX)?),
    })
}

/// An argument that is missing, or empty between its commas.
fn absent(empty: bool, slot: Slot, scope: &Scope<'_>) -> Result<Argument, String> {
    match (slot, scope.proxy) {
        (Slot::Backend | Slot::Frontend | Slot::Table, Some(own)) if !empty => Ok(Argument::Section(own)),
        (Slot::Text | Slot::HeaderName, _) if empty => Ok(Argument::Text(Vec::new())),
        (Slot::Server | Slot::Userlist, _) if empty => Err("it is empty".to_owned()),
        _ => Ok(Argument::Absent),
    }
}

fn server(text: &str, scope: &Scope<'_>) -> Result<Argument, String> {
    let (backend, name) = match text.split_once('/') {
        Some((section, name)) => {
            (scope.names.backend(section).ok_or_else(|| format!("there is no backend `{section}`"))?, name)
        }
        None => (scope.proxy.ok_or_else(|| format!("`{text}` does not say which backend"))?, text),
    };
    match scope.names.server(backend, name) {
        Some(server) => Ok(Argument::Server(backend, server)),
        None => Err(format!("there is no server `{text}`")),
    }
}

/// A mask as a number of bits or as an address.
fn mask(text: &str, width: u32, all: u128) -> Result<IpAddr, String> {
    if let Ok(bits) = text.parse::<u32>() {
        if bits > width {
            return Err(format!("a mask has at most {width} bits, not {bits}"));
        }
        let value = if bits == 0 { 0 } else { (all >> (width - bits)) << (width - bits) };
        return Ok(match u32::try_from(value) {
            Ok(value) if width == 32 => IpAddr::V4(value.into()),
            _ => IpAddr::V6(value.into()),
        });
    }
    match text.parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() == (width == 32) => Ok(address),
        _ => Err(format!("`{text}` is no mask of {width} bits")),
    }
}

/// Splits what stands behind an opening parenthesis. Returns the arguments and where the closing parenthesis is; `None`
/// when there is none. Quotes and backslashes protect; `()` is no argument.
pub(super) fn split(text: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    let mut at = 0;
    while let Some(byte) = text.get(at).copied() {
        let next = text.get(at + 1).copied();
        match (byte, quote) {
            (b'\\', None | Some(b'"')) => {
                at += 1;
                match next {
                    Some(b'n') => word.push(b'\n'),
                    Some(b'r') => word.push(b'\r'),
                    Some(b't') => word.push(b'\t'),
                    Some(b @ (b'\\' | b'"' | b'\'' | b' ' | b',' | b'(' | b')')) => word.push(b),
                    Some(other) => word.extend([b'\\', other]),
                    None => word.push(b'\\'),
                }
            }
            (b'"' | b'\'', None) => quote = Some(byte),
            (byte, Some(open)) if byte == open => quote = None,
            (b',', None) => words.push(std::mem::take(&mut word)),
            (b')', None) => {
                if !(words.is_empty() && word.is_empty()) {
                    words.push(word);
                }
                return Some((words, at));
            }
            _ => word.push(byte),
        }
        at += 1;
    }
    None
}
