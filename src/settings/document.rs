//! TOML with positions: typed reading that collects every problem instead of stopping at the first.

use super::problem::{Problem, Problems, Site, nearest};
use super::units::{Bytes, HostPort, Seconds};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// Reads one file; collects problems and where each key was written.
pub(crate) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
    /// What is wrong so far.
    pub(crate) problems: Problems,
    /// Key path ("nfs1.listen") to the place of its value.
    pub(crate) sites: BTreeMap<String, Site>,
}

/// A table of the document that is being read.
pub(crate) struct Section<'a, 't> {
    /// Key path: "nfs1.export".
    pub(crate) name: String,
    /// Where its header stands.
    pub(crate) site: Site,
    table: &'a DeTable<'t>,
}

/// A value that can be read from a setting.
pub(crate) trait Setting: Sized {
    /// "an address with a port in quotes, such as ...".
    fn expected() -> String;
    /// The value, or what it is instead ("`x` has no port"); `None` when the type is wrong.
    fn read(value: &DeValue<'_>) -> Result<Self, Option<String>>;
}

impl<'t> Document<'t> {
    /// Parses; what is not TOML becomes problems, the rest is still read.
    pub(crate) fn parse(file: &'t Path, text: &'t str) -> (Document<'t>, DeTable<'t>) {
        let mut document = Document { file, text, problems: Problems::default(), sites: BTreeMap::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let site = error.span().map_or(Site::Whole(file.to_path_buf()), |span| document.site(span));
            document.report(site, format!("not TOML: {}", error.message()), "", "correct the line");
        }
        (document, table.into_inner())
    }

    /// Line and column of a span's start.
    fn site(&self, span: Range<usize>) -> Site {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Site::At {
            file: self.file.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// Adds a problem.
    pub(crate) fn report(
        &mut self,
        site: Site,
        what: String,
        expected: impl Into<String>,
        next: impl Into<String>,
    ) {
        self.problems.0.push(Problem { site, what, expected: expected.into(), next: next.into() });
    }

    /// Where `key` was written; the whole file if it was not.
    pub(crate) fn site_of(&self, key: &str) -> Site {
        self.sites.get(key).cloned().unwrap_or_else(|| Site::Whole(self.file.to_path_buf()))
    }

    /// The top of the file as a section with these keys.
    pub(crate) fn top<'a>(&mut self, table: &'a DeTable<'t>, keys: &[&str]) -> Section<'a, 't> {
        let section = Section { name: String::new(), site: Site::Whole(self.file.to_path_buf()), table };
        self.known(&section, keys);
        section
    }

    /// A sub-table with these keys; `None` if it is not there or not a table.
    pub(crate) fn section<'a>(
        &mut self,
        of: &Section<'a, 't>,
        key: &str,
        keys: &[&str],
    ) -> Option<Section<'a, 't>> {
        let section = self.open(of, key)?;
        self.known(&section, keys);
        Some(section)
    }

    /// A sub-table whose keys are the operator's own names, each of them a table.
    pub(crate) fn named_sections<'a>(
        &mut self,
        of: &Section<'a, 't>,
        key: &str,
        keys: &[&str],
    ) -> Vec<(String, Section<'a, 't>)> {
        let Some(outer) = self.open(of, key) else { return Vec::new() };
        let names: Vec<String> = outer.table.keys().map(|name| name.get_ref().to_string()).collect();
        names
            .into_iter()
            .filter_map(|name| Some((name.clone(), self.section(&outer, &name, keys)?)))
            .collect()
    }

    fn open<'a>(&mut self, of: &Section<'a, 't>, key: &str) -> Option<Section<'a, 't>> {
        let (written, value) = of.table.get_key_value(key)?;
        let name = of.path(key);
        let site = self.site(written.span());
        match value.get_ref() {
            DeValue::Table(table) => {
                self.sites.insert(name.clone(), site.clone());
                Some(Section { name, site, table })
            }
            other => {
                let what = format!("`{key}` is {}", article(other));
                let next = format!("write a section [{name}]");
                self.report(site, what, "a table", next);
                None
            }
        }
    }

    fn known(&mut self, section: &Section<'_, 't>, keys: &[&str]) {
        for written in section.table.keys() {
            let key: &str = written.get_ref();
            if keys.contains(&key) {
                continue;
            }
            let place = if section.name.is_empty() {
                "at the top".to_owned()
            } else {
                format!("in [{}]", section.name)
            };
            let next = match nearest(key, keys.iter().copied()) {
                Some(near) => format!("write `{near}`"),
                None => "remove it".to_owned(),
            };
            let site = self.site(written.span());
            self.report(
                site,
                format!("unknown key `{key}` {place}"),
                format!("one of {}", keys.join(", ")),
                next,
            );
        }
    }

    /// The value of a key, if it is there and right.
    pub(crate) fn get<T: Setting>(&mut self, section: &Section<'_, 't>, key: &str) -> Option<T> {
        let value = section.table.get(key)?;
        let site = self.site(value.span());
        self.sites.insert(section.path(key), site.clone());
        match T::read(value.get_ref()) {
            Ok(value) => Some(value),
            Err(why) => {
                let what = why.unwrap_or_else(|| format!("`{key}` is {}", article(value.get_ref())));
                self.report(site, what, T::expected(), "");
                None
            }
        }
    }

    /// Like [`Document::get`]; a missing key is a problem.
    pub(crate) fn require<T: Setting>(&mut self, section: &Section<'_, 't>, key: &str) -> Option<T> {
        if !section.table.contains_key(key) {
            let what = format!("[{}] has no `{key}`", section.name);
            self.report(section.site.clone(), what, T::expected(), format!("add `{key} = ...`"));
            return None;
        }
        self.get(section, key)
    }
}

impl Section<'_, '_> {
    /// Key path of a key in this section.
    pub(crate) fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Names of the keys in this section.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }
}

/// "a string", "an integer": what a value is.
fn article(value: &DeValue<'_>) -> String {
    match value.type_str() {
        word if word.starts_with(['a', 'e', 'i', 'o', 'u']) => format!("an {word}"),
        word => format!("a {word}"),
    }
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, Option<String>> {
    value.as_str().ok_or(None)
}

impl Setting for String {
    fn expected() -> String {
        "text in quotes".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<String, Option<String>> {
        text(value).map(str::to_owned)
    }
}

impl Setting for bool {
    fn expected() -> String {
        "true or false, without quotes".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<bool, Option<String>> {
        value.as_bool().ok_or(None)
    }
}

impl Setting for usize {
    fn expected() -> String {
        "a whole number, without quotes".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<usize, Option<String>> {
        let DeValue::Integer(written) = value else { return Err(None) };
        usize::from_str_radix(written.as_str(), written.radix())
            .map_err(|_| Some(format!("`{}` is out of range", written.as_str())))
    }
}

impl Setting for PathBuf {
    fn expected() -> String {
        "an absolute path in quotes, such as \"/home/share\"".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<PathBuf, Option<String>> {
        let path = text(value)?;
        if path.contains('\0') {
            return Err(Some("the path holds a NUL character".to_owned()));
        }
        if !path.starts_with('/') {
            return Err(Some(format!("`{path}` does not start at the root")));
        }
        Ok(PathBuf::from(path))
    }
}

impl Setting for IpAddr {
    fn expected() -> String {
        "an IP address in quotes, such as \"10.182.15.50\"".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<IpAddr, Option<String>> {
        let word = text(value)?;
        word.parse().map_err(|_| Some(format!("`{word}` is not an IP address")))
    }
}

impl Setting for SocketAddr {
    fn expected() -> String {
        "an IP address of this host (0.0.0.0 for all) and a port in quotes, such as \"0.0.0.0:2049\""
            .to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<SocketAddr, Option<String>> {
        let word = text(value)?;
        let address: SocketAddr =
            word.parse().map_err(|_| Some(format!("`{word}` is not an IP address with a port")))?;
        match address.port() {
            0 => Err(Some(format!("`{word}` has port 0, which nobody could find"))),
            _ => Ok(address),
        }
    }
}

impl Setting for HostPort {
    fn expected() -> String {
        "a host and a port in quotes, such as \"nfs1:2049\"".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<HostPort, Option<String>> {
        let word = text(value)?;
        word.parse().map_err(|_| Some(format!("`{word}` is not a host and a port")))
    }
}

impl Setting for Bytes {
    fn expected() -> String {
        "a size in quotes, such as \"64 MiB\"".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<Bytes, Option<String>> {
        let word = text(value)?;
        word.parse().map_err(|_| Some(format!("`{word}` is not a size")))
    }
}

impl Setting for Seconds {
    fn expected() -> String {
        "a duration in quotes, such as \"30s\" or \"12h\"".to_owned()
    }
    fn read(value: &DeValue<'_>) -> Result<Seconds, Option<String>> {
        let word = text(value)?;
        word.parse().map_err(|_| Some(format!("`{word}` is not a duration")))
    }
}

/// An enum whose values are words in the file and on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// The words, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// As written.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<$name, String> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("`{word}` is none of {}", $name::WORDS.join(", "))),
                }
            }
        }

        impl $crate::settings::document::Setting for $name {
            fn expected() -> String {
                format!("one of \"{}\"", $name::WORDS.join("\", \""))
            }
            fn read(value: &toml::de::DeValue<'_>) -> Result<$name, Option<String>> {
                let word = value.as_str().ok_or(None)?;
                word.parse().map_err(|_| {
                    let near = $crate::settings::problem::nearest(word, $name::WORDS.iter().copied());
                    Some(near.map_or(format!("unknown word `{word}`"), |near| format!("unknown word `{word}`, did you mean `{near}`?")))
                })
            }
        }
    };
}
pub(crate) use words;
