//! HAProxy's run-time commands (management manual 9.3): who may say what, what it does, what is answered.
//!
//! `console` turns bytes into command lines and answers into bytes, `commands` is the one table of commands, the others
//! carry them out on [`Running`]. All of that is pure: the clock is passed in. `socket` is the thin shell: it accepts on
//! `stats socket`s that are already open.

mod commands;
mod console;
mod counters;
mod errors;
mod frontends;
mod servers;
mod servers_state;
mod sessions;
mod show;
pub mod socket;
mod tables;
#[cfg(test)]
mod tests;

pub use console::{After, Console};

use super::config::model::Level;
use super::engine::{Engine, Which};
use super::state::Running;
use super::stats::{Moment, Process};

/// What commands act on.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Context<'r> {
    pub running: &'r Running,
    pub process: &'r Process,
    pub moment: Moment,
}

/// What a command answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Nothing but the end of the answer.
    Done,
    /// A dump.
    Text(String),
    /// A message with its syslog severity; what `set severity-output` marks.
    Note(u8, String),
    /// `quit`.
    Quit,
    /// `prompt`: the prompt goes on or off.
    TogglePrompt,
    /// `user`, `operator`: fewer rights from now on.
    Lower(Level),
    /// `set timeout cli`.
    Timeout(std::time::Duration),
    /// `set severity-output`.
    Severity(Severity),
    /// The engine has to be asked first; [`Question::ask`] gives the answer.
    Ask(Question),
}

/// What only the engine's threads know, or can do.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// All sessions, or the one with a number.
    Sessions(Option<u64>),
    /// Sessions are to be ended.
    Kill(Which),
}

impl Question {
    /// Puts it to the engine.
    pub async fn ask(self, engine: &Engine, context: &Context<'_>) -> Answer {
        match self {
            Question::Sessions(wanted) => sessions::listed(context, &engine.sessions().await, wanted),
            Question::Kill(which) => sessions::ended(which, engine.kill(which).await),
        }
    }
}

/// How messages are marked (`set severity-output`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Severity {
    #[default]
    None,
    Number,
    Text,
}

/// Carries out one command, given as its words.
pub fn execute(context: &Context<'_>, level: Level, words: &[String]) -> Answer {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    commands::execute(context, level, &words)
}

impl Answer {
    /// Something is wrong with the command.
    fn error(text: &str) -> Answer {
        Answer::Note(3, text.to_owned())
    }

    /// A message that is no error.
    fn info(text: impl Into<String>) -> Answer {
        Answer::Note(6, text.into())
    }
}
