//! Log formats (8.2 of the manual): read once, then rendered into one reused buffer.
//!
//! The same strings make header values, locations and bodies (`http-request set-header X %[src]`); there spaces are kept,
//! a missing value is empty instead of `-`, and control characters are encoded so that no value breaks a head.

mod moment;
mod parse;
mod render;
mod variable;

use super::{Context, Expression, Moment, Scope};
use crate::proxy::config::words::{Parsed, Words};
use variable::Variable;

/// A log format string, compiled.
#[derive(Clone, Debug, Default)]
pub struct LogFormat {
    steps: Vec<Step>,
    use_: Use,
}

/// What a format is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Use {
    /// A log line: a missing value is `-`, spaces are merged.
    #[default]
    Log,
    /// A part of a message.
    Text,
}

#[derive(Clone, Debug)]
enum Step {
    Literal(Box<[u8]>),
    /// Spaces: one, unless one was just written.
    Separator,
    Variable(Variable, Flags),
    Expression(Expression, Flags),
}

/// `%{+Q}` and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Flags {
    quote: bool,
    hexadecimal: bool,
    escape: bool,
    mandatory: bool,
}

const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";
const HTTPLOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r";
const CLF: &str = "%{+Q}o %{-Q}ci - - [%trg] %r %ST %B \"\" \"\" %cp %ms %ft %b %s %TR %Tw %Tc %Tr %Ta %tsc %ac %fc %bc %sc %rc %sq %bq %CC %CS %hrl %hsl";
const CONNECT_FROM: &str = "Connect from %ci:%cp to %fi:%fp (%f/";

impl LogFormat {
    /// Reads one word as a log line's format (`log-format`, `error-log-format`).
    pub fn parse(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<LogFormat> {
        parse::word(words, Use::Log, &Scope { moment: Moment::Any, ..*scope })
    }

    /// Reads one word as a format that makes a part of a message or a name (rules, `use_backend`).
    pub fn parse_text(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<LogFormat> {
        parse::word(words, Use::Text, scope)
    }

    /// The same, of what becomes a part of a head: no line may end within.
    pub fn parse_line(words: &mut Words<'_>, scope: &Scope<'_>) -> Parsed<LogFormat> {
        let format = LogFormat::parse_text(words, scope)?;
        let breaks = |step: &Step| matches!(step, Step::Literal(text) if text.iter().any(|byte| b"\r\n\0".contains(byte)));
        match format.steps.iter().any(breaks) {
            true => {
                Err(words.problem_before("a head cannot hold a line end or a NUL", "a text of one line", ""))
            }
            false => Ok(format),
        }
    }

    /// The same of a text that stands elsewhere (a file); problems are those of the word that was taken last.
    pub fn from_text(words: &Words<'_>, text: &str, scope: &Scope<'_>) -> Parsed<LogFormat> {
        match parse::steps(text, Use::Text, Some(scope)) {
            Ok(steps) => Ok(LogFormat { steps, use_: Use::Text }),
            Err(fault) => Err(fault.into_problem(words, true)),
        }
    }

    /// A text without any variable.
    pub fn literal(text: &[u8]) -> LogFormat {
        LogFormat { steps: vec![Step::Literal(text.into())], use_: Use::Text }
    }

    /// Without `option httplog` or `tcplog`: `Connect from ...` (8.2.1).
    pub fn connect_from() -> LogFormat {
        let mut format = LogFormat::known(CONNECT_FROM);
        format.steps.push(Step::Variable(Variable::Mode, Flags::default()));
        format.steps.push(Step::Literal((*b")").into()));
        format
    }

    /// `option tcplog` (8.2.2).
    pub fn tcplog() -> LogFormat {
        LogFormat::known(TCPLOG)
    }

    /// `option httplog` (8.2.3).
    pub fn httplog() -> LogFormat {
        LogFormat::known(HTTPLOG)
    }

    /// `option httplog clf`.
    pub fn httplog_clf() -> LogFormat {
        LogFormat::known(CLF)
    }

    /// A format of this file: it has no expressions and is right (a test compiles them all).
    fn known(text: &str) -> LogFormat {
        LogFormat { steps: parse::steps(text, Use::Log, None).unwrap_or_default(), use_: Use::Log }
    }

    /// Appends the line, without a newline.
    pub fn render(&self, context: &Context<'_>, out: &mut Vec<u8>) {
        render::render(self, context, out);
    }

    /// The text, when it holds no variable.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &self.steps[..] {
            [] => Some(b""),
            [Step::Literal(text)] => Some(text),
            _ => None,
        }
    }
}
