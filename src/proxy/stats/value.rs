//! One value of a row, with the type that typed and JSON dumps name.

use std::borrow::Cow;
use std::fmt;

/// A value; [`Value::Empty`] where the column means nothing for a row.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum Value {
    #[default]
    Empty,
    U32(u32),
    U64(u64),
    S32(i32),
    Text(Cow<'static, str>),
}

impl Value {
    /// Nothing to show.
    pub fn is_empty(&self) -> bool {
        matches!(self, Value::Empty)
    }

    /// As a number; texts are none.
    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Empty | Value::Text(_) => None,
            Value::U32(number) => Some(i64::from(*number)),
            Value::U64(number) => Some(i64::try_from(*number).unwrap_or(i64::MAX)),
            Value::S32(number) => Some(i64::from(*number)),
        }
    }

    /// As a text; numbers are none.
    pub fn text(&self) -> &str {
        match self {
            Value::Text(text) => text,
            _ => "",
        }
    }

    /// Type as `show stat typed` names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Empty => "",
            Value::U32(_) => "u32",
            Value::U64(_) => "u64",
            Value::S32(_) => "s32",
            Value::Text(_) => "str",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Empty => Ok(()),
            Value::U32(number) => number.fmt(f),
            Value::U64(number) => number.fmt(f),
            Value::S32(number) => number.fmt(f),
            Value::Text(text) => f.write_str(text),
        }
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::U32(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::U64(number)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::S32(number)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Value {
        Value::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(Cow::Owned(text))
    }
}
