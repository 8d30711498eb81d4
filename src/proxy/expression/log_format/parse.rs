//! From a format string to steps.

use super::variable::{REFUSED, TABLE, Variable};
use super::{Flags, LogFormat, Step, Use};
use crate::proxy::config::words::{Parsed, Words};
use crate::proxy::expression::Scope;
use crate::proxy::expression::parse::{self, Fault};
use crate::settings::problem;

/// Takes a word and compiles it.
pub(super) fn word(words: &mut Words<'_>, use_: Use, scope: &Scope<'_>) -> Parsed<LogFormat> {
    let quoted = words.peek_word().is_some_and(|word| word.quoted);
    let text = words.demand("a format, as in `\"%ci %[src]\"`")?;
    match steps(text, use_, Some(scope)) {
        Ok(steps) => Ok(LogFormat { steps, use_ }),
        Err(fault) => Err(fault.into_problem(words, quoted)),
    }
}

/// Compiles a text. Without a scope it may hold no expression.
pub(super) fn steps(text: &str, use_: Use, scope: Option<&Scope<'_>>) -> Result<Vec<Step>, Fault> {
    let mut reader = Reader {
        text,
        at: 0,
        scope,
        steps: Vec::new(),
        literal: Vec::new(),
        flags: Flags { mandatory: use_ == Use::Log, ..Flags::default() },
    };
    while reader.at < text.len() {
        match text.as_bytes()[reader.at] {
            b'%' => reader.variable()?,
            b' ' if use_ == Use::Log => {
                reader.at += 1;
                reader.push(Step::Separator);
            }
            byte => {
                reader.literal.push(byte);
                reader.at += 1;
            }
        }
    }
    reader.flush();
    Ok(reader.steps)
}

struct Reader<'t, 's> {
    text: &'t str,
    at: usize,
    scope: Option<&'t Scope<'s>>,
    steps: Vec<Step>,
    literal: Vec<u8>,
    /// What `%{..}o` has set for all that follow.
    flags: Flags,
}

impl Reader<'_, '_> {
    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.steps.push(Step::Literal(std::mem::take(&mut self.literal).into()));
        }
    }

    fn push(&mut self, step: Step) {
        self.flush();
        self.steps.push(step);
    }

    /// At a `%`.
    fn variable(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        let rest = &self.text[self.at..];
        if rest.starts_with('%') {
            self.literal.push(b'%');
            self.at += 1;
            return Ok(());
        }
        let mut flags = self.flags;
        if let Some(inside) = rest.strip_prefix('{') {
            let close = inside.find('}').ok_or_else(|| Fault::new(start, "`%{` is not closed"))?;
            change(&mut flags, &inside[..close]).map_err(|what| Fault::new(start, what))?;
            self.at += close + 2;
        }
        let rest = &self.text[self.at..];
        if rest.starts_with('[') {
            return self.expression(start, flags);
        }
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..length];
        if name == "o" {
            self.flags = flags;
            self.at += 1;
            return Ok(());
        }
        let variable = find(start, name)?;
        self.at += length;
        self.push(Step::Variable(variable, flags));
        Ok(())
    }

    /// At the bracket of `%[...]`.
    fn expression(&mut self, start: usize, flags: Flags) -> Result<(), Fault> {
        let Some(scope) = self.scope else {
            return Err(Fault::new(start, "an expression is not possible here"));
        };
        let inside = &self.text[self.at + 1..];
        let from = self.at + 1 + (inside.len() - inside.trim_start().len());
        let (expression, end) = parse::within(self.text, from, scope)?;
        let rest = &self.text[end..];
        let spaces = rest.len() - rest.trim_start().len();
        if !rest[spaces..].starts_with(']') {
            return Err(Fault::new(end, "`]` is missing behind the expression"));
        }
        self.at = end + spaces + 1;
        self.push(Step::Expression(expression, flags));
        Ok(())
    }
}

/// Applies `+Q,-X`.
fn change(flags: &mut Flags, text: &str) -> Result<(), String> {
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (on, names) = match item.split_at_checked(1) {
            Some(("+", names)) => (true, names),
            Some(("-", names)) => (false, names),
            _ => return Err(format!("`{item}`: a flag is set with + and cleared with -")),
        };
        for name in names.chars() {
            match name {
                'Q' => flags.quote = on,
                'X' => flags.hexadecimal = on,
                'E' => flags.escape = on,
                'M' => flags.mandatory = on,
                other => return Err(format!("there is no flag `{other}`, only Q, X, E and M")),
            }
        }
    }
    Ok(())
}

fn find(at: usize, name: &str) -> Result<Variable, Fault> {
    if let Some((_, variable)) = TABLE.iter().find(|(known, _)| *known == name) {
        return Ok(*variable);
    }
    if let Some((_, why)) = REFUSED.iter().find(|(known, _)| *known == name) {
        return Err(Fault::new(at, format!("variable `%{name}`: {why}")));
    }
    let mut fault = Fault::new(at, format!("there is no variable `%{name}`"));
    fault.next = match problem::nearest(name, TABLE.iter().map(|(known, _)| *known)) {
        Some(near) if !name.is_empty() => {
            format!("did you mean `%{near}`? A percent sign itself is written `%%`")
        }
        _ => "a percent sign itself is written `%%`".to_owned(),
    };
    Err(fault)
}
