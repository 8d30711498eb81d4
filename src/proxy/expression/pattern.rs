//! Patterns that a value is compared with (7.1.1 to 7.1.6 of the manual). Exact texts and numbers are found by hash,
//! prefixes and suffixes by a hash for each length that occurs, networks by a hash for each prefix length, texts within
//! texts by one automaton: a list of a hundred thousand costs no more than one of ten.

use super::Sample;
use super::fetch::from_hex;
use aho_corasick::AhoCorasick;
use core::net::IpAddr;
use regex::bytes::{Regex, RegexBuilder};
use std::collections::HashMap;

/// Match methods (`-m`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    Found,
    Bool,
    Integer,
    Address,
    Binary,
    Length,
    Exact,
    Begin,
    End,
    Within,
    Directory,
    Domain,
    Regex,
}

impl Method {
    pub(super) const NAMES: &'static [(&'static str, Method)] = &[
        ("found", Method::Found),
        ("bool", Method::Bool),
        ("int", Method::Integer),
        ("ip", Method::Address),
        ("bin", Method::Binary),
        ("len", Method::Length),
        ("str", Method::Exact),
        ("beg", Method::Begin),
        ("end", Method::End),
        ("sub", Method::Within),
        ("dir", Method::Directory),
        ("dom", Method::Domain),
        ("reg", Method::Regex),
    ];

    pub(super) fn find(name: &str) -> Option<Method> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }
}

/// Patterns of one method and one case rule, in order. A search returns the place of the pattern that matched: the
/// longest for networks, prefixes and suffixes, else the first.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    method: Method,
    ignore_case: bool,
    sets: Sets,
}

#[derive(Clone, Debug)]
enum Sets {
    /// No pattern is needed (`found`, `bool`).
    Nothing,
    Numbers {
        exact: HashMap<i64, usize>,
        ranges: Vec<(i64, i64, usize)>,
    },
    Texts {
        exact: HashMap<Box<[u8]>, usize>,
        lengths: Vec<usize>,
    },
    Within {
        automaton: Box<AhoCorasick>,
        empty: Option<usize>,
    },
    Words(Vec<Box<[u8]>>),
    Regexes(Vec<Regex>),
    Networks {
        v4: Vec<(u8, HashMap<u32, usize>)>,
        v6: Vec<(u8, HashMap<u128, usize>)>,
    },
}

impl Patterns {
    /// Compiles. The error names the pattern and says what is wrong with it.
    pub(super) fn new(method: Method, ignore_case: bool, texts: &[Vec<u8>]) -> Result<Patterns, String> {
        let fold = |text: &Vec<u8>| if ignore_case { text.to_ascii_lowercase() } else { text.clone() };
        let sets = match method {
            Method::Found | Method::Bool => Sets::Nothing,
            Method::Integer | Method::Length => numbers(texts)?,
            Method::Exact | Method::Begin | Method::End => texts_set(texts.iter().map(fold)),
            Method::Binary => {
                let bytes: Result<Vec<_>, String> = texts
                    .iter()
                    .map(|text| {
                        from_hex(text).ok_or_else(|| format!("`{}` is no hexadecimal block", lossy(text)))
                    })
                    .collect();
                texts_set(bytes?.into_iter())
            }
            Method::Within => {
                let automaton = AhoCorasick::builder()
                    .ascii_case_insensitive(ignore_case)
                    .build(texts)
                    .map_err(|error| format!("these patterns cannot be compiled: {error}"))?;
                Sets::Within { automaton: Box::new(automaton), empty: texts.iter().position(Vec::is_empty) }
            }
            Method::Directory | Method::Domain => {
                let delimiters = delimiters(method);
                Sets::Words(texts.iter().map(fold).map(|text| trim(&text, delimiters).into()).collect())
            }
            Method::Regex => {
                let regexes: Result<_, String> =
                    texts.iter().map(|text| compile(text, ignore_case)).collect();
                Sets::Regexes(regexes?)
            }
            Method::Address => networks(texts)?,
        };
        Ok(Patterns { method, ignore_case, sets })
    }

    /// Place of the pattern that matches.
    pub(super) fn find(&self, sample: &Sample<'_>) -> Option<usize> {
        match (&self.sets, self.method) {
            (Sets::Nothing, Method::Bool) => sample.to_bool()?.then_some(0),
            (Sets::Nothing, _) => Some(0),
            (Sets::Numbers { exact, ranges }, Method::Length) => {
                let length = with_text(sample, false, |text| i64::try_from(text.len()).unwrap_or(i64::MAX));
                number(exact, ranges, length)
            }
            (Sets::Numbers { exact, ranges }, _) => number(exact, ranges, sample.to_integer()?),
            (Sets::Networks { v4, v6 }, _) => network(v4, v6, sample.to_address()?),
            _ => with_text(sample, self.ignore_case, |text| self.find_text(text)),
        }
    }

    fn find_text(&self, text: &[u8]) -> Option<usize> {
        match &self.sets {
            Sets::Texts { exact, lengths } => match self.method {
                Method::Begin => by_length(lengths, text, |n| exact.get(&text[..n])),
                Method::End => by_length(lengths, text, |n| exact.get(&text[text.len() - n..])),
                _ => exact.get(text).copied(),
            },
            Sets::Within { automaton, empty } => {
                automaton.find(text).map(|found| found.pattern().as_usize()).or(*empty)
            }
            Sets::Words(words) => {
                let delimiters = delimiters(self.method);
                words.iter().position(|word| has_word(text, word, delimiters))
            }
            Sets::Regexes(regexes) => regexes.iter().position(|regex| regex.is_match(text)),
            _ => None,
        }
    }
}

/// Hands the text of a value to a function, without a copy where it is text and case matters.
fn with_text<R>(sample: &Sample<'_>, lower: bool, then: impl FnOnce(&[u8]) -> R) -> R {
    match sample {
        Sample::Text(text) | Sample::Binary(text) if !lower => then(text),
        Sample::Text(text) | Sample::Binary(text) => {
            let lowered: smallvec::SmallVec<[u8; 256]> = text.iter().map(u8::to_ascii_lowercase).collect();
            then(&lowered)
        }
        other => then(&other.borrow().into_text()),
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

/// A regular expression as HAProxy's (PCRE) reads it: bytes, anchored nowhere. What PCRE alone has (look-around, back
/// references) is refused: it cannot be matched in linear time.
pub(in crate::proxy) fn compile(text: &[u8], ignore_case: bool) -> Result<Regex, String> {
    let source = std::str::from_utf8(text).map_err(|_| format!("`{}` is not UTF-8", lossy(text)))?;
    RegexBuilder::new(source)
        .unicode(false)
        .case_insensitive(ignore_case)
        .build()
        .map_err(|error| format!("`{source}` is no regular expression: {}", last_line(&error.to_string())))
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or(text).trim_start_matches("error: ")
}

fn texts_set(texts: impl Iterator<Item = Vec<u8>>) -> Sets {
    let mut exact = HashMap::new();
    let mut lengths = Vec::new();
    for (place, text) in texts.enumerate() {
        lengths.push(text.len());
        exact.entry(text.into_boxed_slice()).or_insert(place);
    }
    // The longest first: the finest match wins.
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    Sets::Texts { exact, lengths }
}

fn by_length<'p>(lengths: &[usize], text: &[u8], find: impl Fn(usize) -> Option<&'p usize>) -> Option<usize> {
    lengths.iter().filter(|length| **length <= text.len()).find_map(|length| find(*length)).copied()
}

fn numbers(texts: &[Vec<u8>]) -> Result<Sets, String> {
    let mut exact = HashMap::new();
    let mut ranges = Vec::new();
    let mut operator = None;
    for (place, text) in texts.iter().enumerate() {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        if let "eq" | "ge" | "gt" | "le" | "lt" = text {
            operator = Some(text);
            continue;
        }
        let (low, high) = range(text, operator)?;
        if low == high {
            exact.entry(low).or_insert(place);
        } else {
            ranges.push((low, high, place));
        }
    }
    if exact.is_empty() && ranges.is_empty() && operator.is_some() {
        return Err("a number is missing after the operator".to_owned());
    }
    Ok(Sets::Numbers { exact, ranges })
}

/// `N`, `N:M`, `N:`, `:M`, with the operator before it.
fn range(text: &str, operator: Option<&str>) -> Result<(i64, i64), String> {
    let read = |text: &str| text.parse::<i64>().map_err(|_| format!("`{text}` is no integer"));
    if let Some((low, high)) = text.split_once(':') {
        if operator.is_some_and(|operator| operator != "eq") {
            return Err(format!("`{text}`: a range goes with `eq` only"));
        }
        let low = if low.is_empty() { i64::MIN } else { read(low)? };
        let high = if high.is_empty() { i64::MAX } else { read(high)? };
        return if low <= high { Ok((low, high)) } else { Err(format!("`{text}`: the range is empty")) };
    }
    let value = read(text)?;
    Ok(match operator {
        Some("ge") => (value, i64::MAX),
        Some("gt") => (value.saturating_add(1), i64::MAX),
        Some("le") => (i64::MIN, value),
        Some("lt") => (i64::MIN, value.saturating_sub(1)),
        _ => (value, value),
    })
}

fn number(exact: &HashMap<i64, usize>, ranges: &[(i64, i64, usize)], value: i64) -> Option<usize> {
    let in_range =
        || ranges.iter().find(|(low, high, _)| (*low..=*high).contains(&value)).map(|(.., place)| *place);
    exact.get(&value).copied().or_else(in_range)
}

fn delimiters(method: Method) -> &'static [u8] {
    if method == Method::Directory { b"/?" } else { b"/?.:" }
}

fn trim<'t>(text: &'t [u8], delimiters: &[u8]) -> &'t [u8] {
    let start = text.iter().position(|byte| !delimiters.contains(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !delimiters.contains(byte)).map_or(start, |at| at + 1);
    &text[start..end]
}

/// Whether `word` stands in `text` between delimiters or ends.
fn has_word(text: &[u8], word: &[u8], delimiters: &[u8]) -> bool {
    if word.is_empty() || word.len() > text.len() {
        return false;
    }
    let mut from = 0;
    while let Some(found) = memchr::memmem::find(&text[from..], word) {
        let at = from + found;
        let before = at == 0 || delimiters.contains(&text[at - 1]);
        let after = text.get(at + word.len()).is_none_or(|byte| delimiters.contains(byte));
        if before && after {
            return true;
        }
        from = at + 1;
    }
    false
}

/// An address with an optional prefix length or mask.
pub(in crate::proxy) fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, mask) = match text.split_once('/') {
        Some((address, mask)) => (address, Some(mask)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let length = match mask {
        None => width,
        Some(mask) => match (mask.parse::<u8>(), mask.parse::<core::net::Ipv4Addr>()) {
            (Ok(length), _) if length <= width => length,
            (_, Ok(mask)) if width == 32 => {
                let mask = u32::from(mask);
                let length = mask.leading_ones();
                (mask.count_ones() == length).then(|| u8::try_from(length).ok())??
            }
            _ => return None,
        },
    };
    Some((address, length))
}

fn networks(texts: &[Vec<u8>]) -> Result<Sets, String> {
    let mut v4: Vec<(u8, HashMap<u32, usize>)> = Vec::new();
    let mut v6: Vec<(u8, HashMap<u128, usize>)> = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        let text = lossy(text);
        let network = parse_network(&text).ok_or_else(|| format!("`{text}` is no address or network"))?;
        match network {
            (IpAddr::V4(address), length) => {
                let key = u32::from(address) & mask4(length);
                table(&mut v4, length).entry(key).or_insert(place);
            }
            (IpAddr::V6(address), length) => {
                let key = u128::from(address) & mask6(length);
                table(&mut v6, length).entry(key).or_insert(place);
            }
        }
    }
    v4.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    v6.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    Ok(Sets::Networks { v4, v6 })
}

fn table<K>(tables: &mut Vec<(u8, HashMap<K, usize>)>, length: u8) -> &mut HashMap<K, usize> {
    let at = tables.iter().position(|(known, _)| *known == length).unwrap_or_else(|| {
        tables.push((length, HashMap::new()));
        tables.len() - 1
    });
    &mut tables[at].1
}

fn mask4(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

fn mask6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

fn network(
    v4: &[(u8, HashMap<u32, usize>)],
    v6: &[(u8, HashMap<u128, usize>)],
    address: IpAddr,
) -> Option<usize> {
    let find4 =
        |address: u32| v4.iter().find_map(|(length, table)| table.get(&(address & mask4(*length)))).copied();
    let find6 =
        |address: u128| v6.iter().find_map(|(length, table)| table.get(&(address & mask6(*length)))).copied();
    match address {
        IpAddr::V4(address) => find4(address.into()).or_else(|| find6(address.to_ipv6_mapped().into())),
        IpAddr::V6(address) => find6(address.into())
            .or_else(|| address.to_ipv4_mapped().and_then(|address| find4(address.into()))),
    }
}
