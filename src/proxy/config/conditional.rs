//! Conditions of `.if` and of the argument `-cc` (2.4 of the manual). Pure.

use super::environment::Environment;

/// Features that `feature(NAME)` finds and `-vv` lists with a `+`.
pub const FEATURES: &[&str] = &[
    "ACCEPT4",
    "CRYPT_H",
    "EPOLL",
    "GETADDRINFO",
    "LIBCRYPT",
    "POLL",
    "PRCTL",
    "PROMEX",
    "RT",
    "SYSTEMD",
    "THREAD",
];

/// HAProxy's version that configurations find here (`version_atleast(2.6)`).
pub const COMPATIBLE_VERSION: &str = "2.6.12";

/// Deepest nesting of parentheses.
const DEEPEST: usize = 32;

/// Whether `text` holds; an error says what is wrong with it.
pub fn evaluate(text: &str, environment: &Environment) -> Result<bool, String> {
    if text.trim().is_empty() {
        return Ok(false);
    }
    let mut reader = Reader { rest: text, environment, depth: 0 };
    let holds = reader.either()?;
    reader.blanks();
    if reader.rest.is_empty() {
        Ok(holds)
    } else {
        Err(format!("`{}` is too much after the condition", reader.rest))
    }
}

struct Reader<'t> {
    rest: &'t str,
    environment: &'t Environment,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, text: &str) -> bool {
        self.blanks();
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// `A || B`. Both sides are read, so that a fault in either is found.
    fn either(&mut self) -> Result<bool, String> {
        let mut holds = self.both()?;
        while self.take("||") {
            holds |= self.both()?;
        }
        Ok(holds)
    }

    fn both(&mut self) -> Result<bool, String> {
        let mut holds = self.term()?;
        while self.take("&&") {
            holds &= self.term()?;
        }
        Ok(holds)
    }

    fn term(&mut self) -> Result<bool, String> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let holds = if self.take("(") {
            self.depth += 1;
            if self.depth > DEEPEST {
                return Err("parentheses are nested too deeply".to_owned());
            }
            let holds = self.either()?;
            self.depth -= 1;
            if !self.take(")") {
                return Err("a parenthesis is not closed".to_owned());
            }
            holds
        } else {
            self.predicate()?
        };
        Ok(holds != negated)
    }

    fn predicate(&mut self) -> Result<bool, String> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        if let Ok(number) = name.parse::<i64>() {
            return Ok(number != 0);
        }
        if name.is_empty() {
            return Err(format!("a predicate is missing before `{rest}`"));
        }
        let arguments = self.arguments(name)?;
        let environment = self.environment;
        Ok(match (name, arguments.as_slice()) {
            ("defined", [name]) => environment.get(name.as_bytes()).is_some(),
            ("feature", [name]) => FEATURES.contains(name),
            ("streq", [a, b]) => a == b,
            ("strneq", [a, b]) => a != b,
            ("version_atleast", [version]) => numbers(COMPATIBLE_VERSION) >= numbers(version),
            ("version_before", [version]) => numbers(COMPATIBLE_VERSION) < numbers(version),
            // No TLS library is linked for the proxy.
            ("openssl_version_atleast" | "openssl_version_before" | "ssllib_name_startswith", [_]) => false,
            ("defined" | "feature" | "version_atleast" | "version_before", _) => {
                return Err(format!("`{name}` takes one argument"));
            }
            ("streq" | "strneq", _) => return Err(format!("`{name}` takes two arguments")),
            _ => return Err(unknown(name)),
        })
    }

    fn arguments(&mut self, name: &str) -> Result<Vec<&'t str>, String> {
        if !self.rest.starts_with('(') {
            return Err(unknown(name));
        }
        let Some(end) = self.rest.find(')') else {
            return Err(format!("`{name}(` is not closed"));
        };
        let inside = &self.rest[1..end];
        self.rest = &self.rest[end + 1..];
        Ok(inside.split(',').collect())
    }
}

fn unknown(name: &str) -> String {
    format!(
        "unknown predicate `{name}`; known are defined, feature, streq, strneq, version_atleast, version_before"
    )
}

/// `2.4-dev19` as (numbers, is it a release): a development version comes before its release.
fn numbers(version: &str) -> (Vec<u64>, bool, u64) {
    let (version, dev) = version.split_once("-dev").map_or((version, None), |(v, dev)| (v, Some(dev)));
    let leading = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse().unwrap_or(0)
    };
    let mut parts: Vec<u64> = version.split('.').map(leading).collect();
    parts.resize(4, 0);
    (parts, dev.is_none(), dev.map_or(0, leading))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was given to `haproxy -cc` too.
    #[test]
    fn conditions_hold_or_do_not() {
        let mut environment = Environment::default();
        environment.set("A", "");
        for (text, holds) in [
            ("", false),
            ("0", false),
            ("1", true),
            ("12", true),
            ("!!1", true),
            ("streq( a,a)", false),
            ("defined(A)", true),
            ("defined(B)", false),
            ("!defined(B)", true),
            ("streq(a,a)", true),
            ("strneq(a,b) && streq(a,b)", false),
            ("0 && 1 || 1", true),
            ("1 || 0 && 0", true),
            ("(1 || 0) && 0", false),
            ("!(1 && 0)", true),
            ("version_atleast(2.4-dev19)", true),
            ("version_atleast(2.6)", true),
            ("version_atleast(2.7)", false),
            ("version_before(2.7-dev1)", true),
            ("version_before(1.8.30)", false),
            ("feature(THREAD)", true),
            ("feature(QUIC)", false),
        ] {
            assert_eq!(evaluate(text, &environment), Ok(holds), "{text}");
        }
        for text in [
            "true",
            "enabled(EPOLL)",
            "1 &&",
            "(1",
            "foo(1)",
            "defined",
            "defined(A",
            "streq(a)",
            "1 1",
            "!",
            ")",
        ] {
            assert!(evaluate(text, &environment).is_err(), "{text}");
        }
        assert!(evaluate(&"(".repeat(100_000), &environment).is_err());
    }
}
