//! A clock that is wrong: `libfaketime` in front of a process, whose time of day a file moves while it runs.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A clock of the processes that are started with its environment.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// One that is right as yet, kept in `file`.
    pub fn new(file: &Path) -> Result<Clock> {
        if !Path::new(LIBRARY).exists() {
            bail!("{LIBRARY} is not there (package libfaketime)");
        }
        let clock = Clock { file: file.to_owned() };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Moves it: `+0` is right, `+1d` a day ahead. Processes follow within a second.
    pub fn set(&self, offset: &str) -> Result<()> {
        Ok(std::fs::write(&self.file, offset)?)
    }

    /// What a process is started with. Time-outs go on as they should: the monotonic clock is left alone.
    pub fn environment(&self) -> Vec<(String, String)> {
        let file = self.file.display().to_string();
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
