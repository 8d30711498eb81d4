//! The configuration files of a command line.

use super::arguments::Arguments;
use super::notices::Notices;
use crate::proxy::config::Config;

/// Reads them; warnings and what means nothing here are told. An error: everything that is wrong, as a text.
pub(super) fn config(arguments: &Arguments, notices: Notices) -> Result<Config, String> {
    let _ = (arguments, notices);
    Err("configuration files are not read yet".to_owned())
}

/// `-cc`
pub(super) fn condition(text: &str) -> Result<bool, String> {
    Err(format!("`{text}`: conditions are not evaluated yet"))
}

/// `-dK`
pub(super) fn keywords(class: &str) -> Result<String, String> {
    Err(format!("-dK{class}: there is no list of words yet"))
}
