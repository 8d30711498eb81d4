//! Acls (7.1 of the manual): an expression, a match method, patterns.

use super::pattern::{Method, Patterns};
use super::{Context, Expression, Kind, Scope, map, parse};
use crate::proxy::config::words::{Line, Parsed, Word, Words};
use crate::settings::{Problem, problem};
use std::path::Path;
use std::sync::Arc;

/// One `acl` line.
#[derive(Clone, Debug)]
pub struct Acl {
    name: String,
    test: Arc<Test>,
}

/// The acls of a section, in order.
#[derive(Clone, Debug, Default)]
pub struct Acls(Vec<Acl>);

/// What an acl, named or not, compares.
#[derive(Debug)]
pub(super) struct Test {
    expression: Expression,
    /// Groups of patterns with the same case rule; any of them is enough.
    patterns: Vec<Patterns>,
}

impl Test {
    pub(super) fn holds(&self, context: &Context<'_>) -> bool {
        self.expression.any(context, |value| self.patterns.iter().any(|group| group.find(value).is_some()))
    }
}

impl Acl {
    /// Reads `acl NAME CRITERION [flags] [operator] [value]...`; the cursor stands behind `acl`.
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Acl> {
        let name = words.demand("the name of the acl")?.to_owned();
        if matches!(name.as_str(), "or" | "||" | "{" | "}" | "!" | "if" | "unless") {
            return Err(words.problem_before(
                &format!("`{name}` cannot be the name of an acl"),
                "another name",
                "",
            ));
        }
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if let Some(bad) = name.chars().find(|c| !valid(*c)) {
            let what = format!("`{name}`: the name of an acl may not hold `{bad}`");
            return Err(words.problem_before(&what, "letters, digits, `-`, `_`, `.` and `:`", ""));
        }
        let test = test(words, scope, false)?;
        Ok(Acl { name, test: Arc::new(test) })
    }
}

impl Acls {
    /// Adds a line; lines of one name are or-ed.
    pub fn add(&mut self, acl: Acl) {
        self.0.push(acl);
    }

    pub(super) fn tests(&self, name: &str) -> impl Iterator<Item = Arc<Test>> {
        self.0.iter().filter(move |acl| acl.name == name).map(|acl| Arc::clone(&acl.test))
    }
}

/// Match methods in the names of acl keywords: `path_beg` is `path -m beg`.
const SUFFIXES: &[(&str, Method)] = &[
    ("", Method::Exact),
    ("_beg", Method::Begin),
    ("_dir", Method::Directory),
    ("_dom", Method::Domain),
    ("_end", Method::End),
    ("_len", Method::Length),
    ("_reg", Method::Regex),
    ("_sub", Method::Within),
];

/// Fetches that have such acl keywords: (prefix of the keyword, fetch).
const PREFIXES: &[(&str, &str)] = &[
    ("base", "base"),
    ("cook", "req.cook"),
    ("hdr", "req.hdr"),
    ("path", "path"),
    ("scook", "res.cook"),
    ("shdr", "res.hdr"),
    ("url", "url"),
    ("urlp", "urlp"),
];

/// The fetch and the method of an acl keyword.
fn keyword(name: &str) -> Option<(&'static str, Method)> {
    PREFIXES.iter().find_map(|(prefix, fetch)| {
        let rest = name.strip_prefix(prefix)?;
        SUFFIXES.iter().find(|(suffix, _)| *suffix == rest).map(|(_, method)| (*fetch, *method))
    })
}

/// Reads what stands behind `{`, up to `}`.
pub(super) fn anonymous(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<Test> {
    test(words, scope, true)
}

/// Criterion, flags and values; up to the end of the line, or of the braces.
fn test(words: &mut Words<'_>, scope: &Scope<'_>, braces: bool) -> Parsed<Test> {
    let quoted = words.peek_word().is_some_and(|word| word.quoted);
    let word = words.demand("a criterion, as in `path_beg` or `hdr(host)`")?;
    let name = &word[..word
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')))
        .unwrap_or(word.len())];
    let (text, implied) = match keyword(name) {
        Some((fetch, method)) => (format!("{fetch}{}", &word[name.len()..]), Some(method)),
        None => (word.to_owned(), None),
    };
    let (expression, end) =
        parse::within(&text, 0, scope).map_err(|fault| criterion_fault(fault, words, quoted, name))?;
    if end < text.len() {
        let what = format!("`{}` is too much behind a criterion", &text[end..]);
        return Err(words.problem_before(&what, "", ""));
    }
    // A converter behind an acl keyword makes the keyword's method meaningless (7.1).
    let implied = implied.filter(|_| !expression.is_converted());
    let mut method = implied.or_else(|| parse::default_method(expression.kind()));
    if expression.kind() == Kind::Method || name == "method" {
        method = Some(Method::Exact);
    }
    let groups = values(words, scope, braces, &mut method)?;
    let Some(method) = method else {
        let what = format!("`{word}` gives {}, which has no method of its own", expression.kind().name());
        return Err(words.problem_before(&what, "`-m` and a method, as in `-m str`", ""));
    };
    let fault = |what: String| words.problem_before(&what, "", "");
    let mut patterns = Vec::new();
    for group in &groups {
        patterns.push(Patterns::new(method, group.ignore_case, &group.texts).map_err(fault)?);
    }
    if patterns.is_empty() && matches!(method, Method::Found | Method::Bool) {
        patterns.push(Patterns::new(method, false, &[]).map_err(fault)?);
    }
    Ok(Test { expression, patterns })
}

/// A criterion that is unknown: acl keywords are named too.
fn criterion_fault(mut fault: parse::Fault, words: &Words<'_>, quoted: bool, name: &str) -> Box<Problem> {
    if fault.next.is_empty() && fault.what.starts_with("there is no fetch") {
        let known: Vec<String> = PREFIXES
            .iter()
            .flat_map(|(prefix, _)| SUFFIXES.iter().map(move |(suffix, _)| format!("{prefix}{suffix}")))
            .collect();
        if let Some(near) = problem::nearest(name, known.iter().map(String::as_str)) {
            fault.next = format!("did you mean `{near}`?");
        }
    }
    fault.into_problem(words, quoted)
}

/// Values with the case rule that held when they were read.
#[derive(Debug, Default)]
struct Group {
    ignore_case: bool,
    texts: Vec<Vec<u8>>,
}

/// Flags, then values.
fn values(
    words: &mut Words<'_>,
    scope: &Scope<'_>,
    braces: bool,
    method: &mut Option<Method>,
) -> Parsed<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    let (mut ignore_case, mut map_file, mut flags) = (false, false, true);
    loop {
        let Some(word) = words.peek_word() else {
            if braces {
                return Err(words.problem("the brace is not closed", "`}`", "put a space before `}`"));
            }
            return Ok(groups);
        };
        if braces && words.take("}") {
            return Ok(groups);
        }
        let text = words.next().unwrap_or("");
        let flag = flags && text.len() > 1 && text.starts_with('-');
        match text {
            "-i" if flag => ignore_case = true,
            // Names are never resolved here.
            "-n" if flag => {}
            "-M" if flag => map_file = true,
            "-u" if flag => {
                words.demand("a number")?;
            }
            "--" if flag => flags = false,
            "-m" if flag => *method = Some(match_method(words, &groups)?),
            "-f" if flag => {
                let texts = file(words, scope, map_file)?;
                push(&mut groups, ignore_case, texts);
            }
            _ if flag => {
                return Err(words.problem_before(
                    &format!("there is no flag `{text}`"),
                    "-i, -f FILE, -m METHOD, -n, -M, -u ID or --",
                    "write `--` before a value that begins with `-`",
                ));
            }
            _ => {
                flags = false;
                let quoted_text = word.text.clone().into_bytes();
                push(&mut groups, ignore_case, vec![quoted_text]);
            }
        }
    }
}

fn push(groups: &mut Vec<Group>, ignore_case: bool, texts: Vec<Vec<u8>>) {
    match groups.last_mut().filter(|group| group.ignore_case == ignore_case) {
        Some(group) => group.texts.extend(texts),
        None => groups.push(Group { ignore_case, texts }),
    }
}

fn match_method(words: &mut Words<'_>, groups: &[Group]) -> Parsed<Method> {
    let name = words.demand("a match method")?;
    if !groups.is_empty() {
        return Err(words.problem_before("`-m` stands behind a pattern file", "`-m` first", ""));
    }
    Method::find(name).ok_or_else(|| {
        let known: Vec<&str> = Method::NAMES.iter().map(|(known, _)| *known).collect();
        let next =
            problem::nearest(name, known.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        words.problem_before(
            &format!("there is no match method `{name}`"),
            &format!("one of {}", known.join(", ")),
            next.as_deref().unwrap_or(""),
        )
    })
}

/// Lines of a pattern file; of a map file (`-M`) their first words.
fn file(words: &mut Words<'_>, scope: &Scope<'_>, map_file: bool) -> Parsed<Vec<Vec<u8>>> {
    let path = words.demand("a file")?;
    let content = (scope.read)(Path::new(path)).map_err(|error| {
        words.problem_before(&format!("pattern file {path}: {error}"), "a file that can be read", "")
    })?;
    Ok(map::lines(&content)
        .map(|(_, line)| match map_file {
            true => line.split(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or(line).to_vec(),
            false => line.to_vec(),
        })
        .collect())
}

/// Acls that need no declaration (7.4): name, words of their definition.
const BUILT_IN: &[(&str, &[&str])] = &[
    ("FALSE", &["always_false"]),
    ("HTTP", &["req.proto_http"]),
    ("HTTP_1.0", &["req.ver", "1.0"]),
    ("HTTP_1.1", &["req.ver", "1.1"]),
    ("HTTP_2.0", &["req.ver", "2.0"]),
    ("HTTP_CONTENT", &["req.hdr_val(content-length)", "gt", "0"]),
    ("HTTP_URL_ABS", &["url_reg", "^[^/:]*://"]),
    ("HTTP_URL_SLASH", &["url_beg", "/"]),
    ("HTTP_URL_STAR", &["url", "*"]),
    ("LOCALHOST", &["src", "127.0.0.1/8", "::1"]),
    ("METH_CONNECT", &["method", "CONNECT"]),
    ("METH_DELETE", &["method", "DELETE"]),
    ("METH_GET", &["method", "GET", "HEAD"]),
    ("METH_HEAD", &["method", "HEAD"]),
    ("METH_OPTIONS", &["method", "OPTIONS"]),
    ("METH_POST", &["method", "POST"]),
    ("METH_PUT", &["method", "PUT"]),
    ("METH_TRACE", &["method", "TRACE"]),
    ("TRUE", &["always_true"]),
    ("WAIT_END", &["wait_end"]),
];

/// The built-in acl of that name.
pub(super) fn built_in(name: &str, scope: &Scope<'_>) -> Option<Test> {
    let (_, definition) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
    let words =
        definition.iter().map(|text| Word { text: (*text).to_owned(), column: 1, quoted: false }).collect();
    let line = Line { file: Arc::from(Path::new("built in")), number: 1, words };
    test(&mut Words::new(&line), scope, false).ok()
}

/// A name that no acl has.
pub(super) fn unknown(words: &Words<'_>, scope: &Scope<'_>, name: &str) -> Box<Problem> {
    let known =
        scope.acls.0.iter().map(|acl| acl.name.as_str()).chain(BUILT_IN.iter().map(|(name, _)| *name));
    let next = match problem::nearest(name, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "declare it before this line, or write `{ ... }` with a space on both sides of each brace"
            .to_owned(),
    };
    let what = format!("there is no acl `{name}` in this section");
    words.problem_before(&what, "the name of an acl that stands above", &next)
}
