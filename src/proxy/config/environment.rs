//! Environment variables as a configuration sees and changes them (2.3 of the manual; 3.1 `setenv`, `presetenv`,
//! `unsetenv`, `resetenv`). The process's own environment stays as it is.

use super::words::{Parsed, Words};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Variables by name. Values are bytes: only what a word uses must be UTF-8.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Environment {
    /// These variables, `std::env::vars_os()` for those of the process.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
        let now = variables.into_iter().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
        Environment { now }
    }

    /// Those of the process.
    pub fn of_process() -> Environment {
        Environment::new(std::env::vars_os())
    }

    /// A variable's value.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.now.get(name).map(Vec::as_slice)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.now.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
    }

    /// `text` with `$NAME` and `${NAME}` replaced: addresses may hold variables outside of quotes too, as with HAProxy. A
    /// variable that is not set is empty. The error says what is wrong.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.extend_from_slice(before.as_bytes());
            let (brace, after) = after.strip_prefix('{').map_or((false, after), |after| (true, after));
            let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return Err(format!("`{text}` has a `$` without a name"));
            }
            out.extend_from_slice(self.get(name.as_bytes()).unwrap_or_default());
            rest = match brace {
                false => after,
                true => after.strip_prefix('}').ok_or_else(|| format!("`{text}` has a `{{` without `}}`"))?,
            };
        }
        out.extend_from_slice(rest.as_bytes());
        String::from_utf8(out).map_err(|_| format!("a variable in `{text}` is not UTF-8"))
    }

    /// All variables now, for `show env` and the fetch `env()`.
    pub fn variables(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.now.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Does what a line of section `global` says if its first word (already taken) is one of the four; `false`: it is not.
    pub fn obey(&mut self, first: &str, words: &mut Words<'_>) -> Parsed<bool> {
        match first {
            "setenv" | "presetenv" => {
                let name = words.demand("a variable's name")?;
                let value = words.demand("its value; \"\" cannot be set, use `unsetenv`")?;
                words.end()?;
                if first == "setenv" || self.get(name.as_bytes()).is_none() {
                    self.set(name, value);
                }
            }
            "unsetenv" => {
                words.clone().demand("names of variables")?;
                for word in words.rest() {
                    self.now.remove(word.text.as_bytes());
                }
            }
            "resetenv" => {
                let keep: Vec<&[u8]> = words.rest().iter().map(|word| word.text.as_bytes()).collect();
                self.now.retain(|name, _| keep.contains(&name.as_slice()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
