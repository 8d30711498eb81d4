//! One connection's side of the conversation: bytes in, command lines, answers, bytes out.
//!
//! Without a prompt the connection is over when no complete line is left to answer. A line may hold several commands
//! with `;` between them; `\` takes the meaning of a blank, a `;` or another `\`. `<<` at the end of a command announces
//! lines of payload up to an empty one.

use super::{Answer, Severity};
use crate::proxy::config::model::Level;
use std::collections::VecDeque;
use std::time::Duration;

/// Longest line, and longest payload: HAProxy's default buffer.
const LONGEST: usize = 16_384;
/// More words than this are not looked at.
const MOST_WORDS: usize = 64;

/// State of one connection.
#[derive(Debug)]
pub struct Console {
    level: Level,
    prompt: bool,
    severity: Severity,
    timeout: Duration,
    input: Vec<u8>,
    commands: VecDeque<Vec<String>>,
    /// The command that waits for the end of its payload, and how much of that was read.
    payload: Option<(Vec<String>, usize)>,
    answered: bool,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum After {
    More,
    Close,
}

impl Console {
    /// A new connection with a `stats socket`'s rights; `timeout` is `stats timeout`.
    pub fn new(level: Level, timeout: Duration) -> Console {
        Console {
            level,
            prompt: false,
            severity: Severity::None,
            timeout,
            input: Vec::new(),
            commands: VecDeque::new(),
            payload: None,
            answered: false,
        }
    }

    /// How long the connection may be idle.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Rights now.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Takes what was received. [`After::Close`]: a line is too long; nothing is answered.
    pub fn receive(&mut self, bytes: &[u8]) -> After {
        self.input.extend_from_slice(bytes);
        let mut taken = 0;
        let mut after = After::More;
        while let Some(length) = self.input[taken..].iter().position(|byte| *byte == b'\n') {
            let line = self.input[taken..taken + length].to_vec();
            taken += length + 1;
            if line.len() >= LONGEST || self.line(&line) == After::Close {
                after = After::Close;
                break;
            }
        }
        self.input.drain(..taken);
        if self.input.len() >= LONGEST { After::Close } else { after }
    }

    /// The next command that is complete.
    pub fn next_command(&mut self) -> Option<Vec<String>> {
        self.commands.pop_front()
    }

    /// All that was received is answered: whether the connection goes on.
    pub fn after(&self) -> After {
        let over = self.answered && !self.prompt && self.payload.is_none();
        if over { After::Close } else { After::More }
    }

    fn line(&mut self, line: &[u8]) -> After {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some((words, length)) = self.payload.take() {
            let length = length + line.len() + 1;
            if line.is_empty() {
                self.commands.push_back(words);
            } else if length > LONGEST {
                return After::Close;
            } else {
                self.payload = Some((words, length));
            }
            return After::More;
        }
        for command in split_commands(line) {
            let mut words = split_words(command);
            if words.last().is_some_and(|word| word == "<<") {
                words.pop();
                // What follows on this line belongs to the payload, which no command here wants.
                self.payload = Some((words, 0));
                break;
            }
            self.commands.push_back(words);
        }
        After::More
    }

    /// Writes an answer, and does what it says about the connection.
    pub fn answer(&mut self, answer: Answer, out: &mut Vec<u8>) -> After {
        self.answered = true;
        match answer {
            Answer::Done => {}
            Answer::Text(text) => out.extend_from_slice(text.as_bytes()),
            Answer::Note(severity, text) => {
                out.extend_from_slice(self.mark(severity).as_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Answer::Quit => return After::Close,
            Answer::TogglePrompt => self.prompt = !self.prompt,
            Answer::Lower(level) => self.level = self.level.min(level),
            Answer::Timeout(timeout) => self.timeout = timeout,
            Answer::Severity(severity) => self.severity = severity,
            Answer::Ask(_) => out.extend_from_slice(b"There is no engine to ask.\n"),
        }
        out.extend_from_slice(if self.prompt { b"\n> " } else { b"\n" });
        After::More
    }

    /// What stands before a message.
    fn mark(&self, severity: u8) -> String {
        const WORDS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];
        match self.severity {
            Severity::None => String::new(),
            Severity::Number => format!("[{severity}]: "),
            Severity::Text => format!("[{}]: ", WORDS.get(usize::from(severity)).unwrap_or(&"debug")),
        }
    }
}

/// Commands of a line: between `;` that no `\` stands before.
fn split_commands(line: &[u8]) -> Vec<&[u8]> {
    let mut commands = Vec::new();
    let (mut from, mut escaped) = (0, false);
    for (at, byte) in line.iter().enumerate() {
        if *byte == b';' && !escaped {
            commands.push(&line[from..at]);
            from = at + 1;
        }
        escaped = *byte == b'\\' && !escaped;
    }
    commands.push(&line[from..]);
    commands
}

/// Words of a command; blanks and NUL bytes separate. Not UTF-8: no name is like that, so what is not becomes U+FFFD.
fn split_words(command: &[u8]) -> Vec<String> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = command.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | 0 => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            other => word.get_or_insert_default().push(*other),
        }
    }
    words.extend(word);
    words.truncate(MOST_WORDS);
    words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backslashes_keep_separators() {
        let line = br"show env A\;B\ C; show  version\\;";
        let commands = split_commands(line);
        assert_eq!(commands.len(), 3);
        assert_eq!(split_words(commands[0]), ["show", "env", "A;B C"]);
        assert_eq!(split_words(commands[1]), ["show", r"version\"]);
        assert!(split_words(commands[2]).is_empty());
    }
}
