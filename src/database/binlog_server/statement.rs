//! The little SQL that replicas send: assignments, quoted texts, one function call. Everything else is refused.

/// What is assigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// `'text'` or `"text"`.
    Text(String),
    /// Digits.
    Number(u64),
    /// The name of a variable, such as `@@global.binlog_checksum`, or a word.
    Name(String),
}

/// Without blanks and semicolons around it.
pub fn trimmed(sql: &str) -> &str {
    sql.trim_matches(|c: char| c.is_whitespace() || c == ';' || c == '\0')
}

/// The first word and what follows it.
pub fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A text in quotes at the start, its escapes undone, and what follows it.
pub fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            _ if c != quote => value.push(c),
            _ if chars.peek().is_some_and(|(_, next)| *next == quote) => {
                value.push(quote);
                chars.next();
            }
            _ => return Some((value, &text[at + quote.len_utf8()..])),
        }
    }
    None
}

fn value(text: &str) -> Option<(Value, &str)> {
    if text.starts_with(['\'', '"']) {
        return quoted(text).map(|(value, rest)| (Value::Text(value), rest));
    }
    let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
    let word = &text[..end];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '@' | '_' | '.' | '$');
    if word.is_empty() || !word.chars().all(plain) {
        return None;
    }
    Some((word.parse().map_or_else(|_| Value::Name(word.to_owned()), Value::Number), &text[end..]))
}

/// `a = 1, b = 'x'`: names and values.
pub fn assignments(text: &str) -> Option<Vec<(String, Value)>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end().trim_end_matches(':').trim();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | ',')) {
            return None;
        }
        let (value, after) = value(after.trim_start())?;
        found.push((name.to_owned(), value));
        match after.trim_start() {
            "" => return Some(found),
            more => rest = more.strip_prefix(',')?.trim_start(),
        }
    }
}

/// `name('text', number)`: the text and the number.
pub fn call_of(text: &str, name: &str) -> Option<(String, u64)> {
    let head = text.get(..name.len()).filter(|head| head.eq_ignore_ascii_case(name))?;
    let inside = text[head.len()..].trim().strip_prefix('(')?.strip_suffix(')')?;
    let (file, rest) = quoted(inside.trim_start())?;
    let number = rest.trim_start().strip_prefix(',')?.trim().parse().ok()?;
    Some((file, number))
}
