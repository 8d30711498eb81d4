//! haproxy.cfg: words, sections, meaning.
//!
//! ```text
//! source       files -> lines: `lexer` (quotes, variables), `conditional` (.if), `environment` (setenv)
//! vocabulary   the one table of known words and their class (honoured, without meaning here, refused); the words and
//!              what reads their arguments stand in *_words
//! sections     lines -> `draft`s: a section each, defaults inherited
//! compile      drafts -> `model`: names to indices; conditions, rules, formats compiled
//! check        what shows only when all sections are known
//! ```

mod address;
mod bind_words;
mod check;
mod check_words;
mod compile;
pub mod conditional;
mod cookie_words;
#[cfg(test)]
mod corpus_tests;
mod draft;
pub mod environment;
pub(crate) mod error_words;
#[cfg(test)]
mod fuzz_tests;
mod global_words;
mod identity;
mod lexer;
mod log_words;
pub mod model;
mod option_words;
mod proxy_words;
mod rule_words;
mod sections;
mod server_words;
mod source;
mod stats_words;
mod stick_words;
mod surroundings;
#[cfg(test)]
mod tests;
mod userlist_words;
mod values;
mod vocabulary;
pub mod words;

pub use environment::Environment;
pub use model::Config;
pub use surroundings::Surroundings;
pub use vocabulary::listing;

use crate::settings::{Problem, Problems, Site};
use std::path::PathBuf;
use words::Line;

/// Reads files and directories (`-f`, in order) into a configuration. `environment` is what `"$NAME"` finds; `setenv`
/// changes it. Blocks: reads files, resolves names. All problems are found, not only the first.
pub fn load(files: &[PathBuf], mut environment: Environment) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let lines = source::read(files, &mut environment, &mut problems);
    assemble(&lines, &Surroundings::here(), &environment, problems)
}

/// The same of bytes that are called `name`, with nothing of the machine but what `surroundings` give.
pub fn load_bytes(
    name: &str,
    bytes: &[u8],
    mut environment: Environment,
    surroundings: &Surroundings,
) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let lines = source::read_bytes(name.as_ref(), bytes, &mut environment, &mut problems);
    assemble(&lines, surroundings, &environment, problems)
}

fn assemble(
    lines: &[Line],
    surroundings: &Surroundings,
    environment: &Environment,
    mut problems: Problems,
) -> Result<Config, Problems> {
    let sections = sections::read(lines, surroundings, environment, &mut problems);
    let mut config = compile::compile(sections, surroundings, &mut problems);
    check::check(&mut config, &mut problems);
    if config.global.zero_warning {
        problems.0.extend(config.warnings.iter().map(|warning| Problem {
            site: Site::Default("zero-warning"),
            what: warning.clone(),
            expected: String::new(),
            next: "change it, or remove `zero-warning`".to_owned(),
        }));
    }
    problems.into_result()?;
    Ok(config)
}

impl Config {
    /// Whether anything would be listened to. Without, HAProxy says so and ends with status 2.
    pub fn has_listeners(&self) -> bool {
        self.proxies.iter().any(|proxy| !proxy.disabled && !proxy.binds.is_empty())
    }

    /// The start notice about words without meaning, if there are any.
    pub fn without_meaning_notice(&self) -> Option<String> {
        let words: Vec<&str> = self.without_meaning.keys().map(String::as_str).collect();
        (!words.is_empty())
            .then(|| format!("accepted, but without meaning in this engine: {}", words.join(", ")))
    }
}

/// Problems as `-c` prints them on stderr: one `[ALERT]` each, with place and next step.
pub fn alerts(problems: &Problems, pid: u32) -> String {
    let mut text = String::new();
    for problem in &problems.0 {
        let place = match &problem.site {
            Site::At { .. } => format!("parsing [{}] : ", problem.site),
            Site::Whole(file) => format!("{}: ", file.display()),
            Site::Flag(_) | Site::Default(_) => String::new(),
        };
        text.push_str(&format!("[ALERT]    ({pid}) : config : {place}{}\n", problem.what));
        if !problem.expected.is_empty() {
            text.push_str(&format!("    expected: {}\n", problem.expected));
        }
        if !problem.next.is_empty() {
            text.push_str(&format!("    next: {}\n", problem.next));
        }
    }
    text.push_str(&format!("[ALERT]    ({pid}) : config : Fatal errors found in configuration.\n"));
    text
}

/// Warnings as `-c` prints them on stderr.
pub fn warnings(config: &Config, pid: u32) -> String {
    config.warnings.iter().map(|line| format!("[WARNING]  ({pid}) : config : {line}\n")).collect()
}
