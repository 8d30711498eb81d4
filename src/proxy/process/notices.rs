//! What the operator is told while the process starts and ends: HAProxy's lines on standard error.

use std::io::{self, Write};

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Notices {
    /// `-q`: nothing but alerts.
    pub(super) quiet: bool,
}

impl Notices {
    /// Something went as it should.
    pub(super) fn notice(self, text: &str) {
        if !self.quiet {
            line("[NOTICE]  ", text);
        }
    }

    /// Something is odd.
    pub(super) fn warning(self, text: &str) {
        if !self.quiet {
            line("[WARNING] ", text);
        }
    }

    /// Lines that are whole already.
    pub(super) fn lines(self, text: &str) {
        if !self.quiet {
            write(text);
        }
    }

    /// The same, of what failed. Told even when quiet.
    pub(super) fn alerts(self, text: &str) {
        write(text);
    }

    /// Something failed. Told even when quiet.
    pub(super) fn alert(self, text: &str) {
        line("[ALERT]   ", text);
    }
}

fn line(kind: &str, text: &str) {
    let mut message = format!("{kind} ({}) : {text}", std::process::id());
    if !message.ends_with('\n') {
        message.push('\n');
    }
    write(&message);
}

fn write(text: &str) {
    // Nobody is left to be told that nobody listens.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
