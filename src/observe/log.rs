//! Log output: tracing to standard error, as text or JSON.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a level.
    #[error("`{0}` is not a log level: expected error, warn, info, debug or trace")]
    Level(String),
    /// Something else in the process has already taken the log.
    #[error("the log is already set up: {0}")]
    Taken(String),
}

/// Sends log lines of this level and above to standard error. Once a process.
pub fn start(level: &str, json: bool) -> Result<(), LogError> {
    if !["error", "warn", "info", "debug", "trace"].contains(&level) {
        return Err(LogError::Level(level.to_owned()));
    }
    // Libraries are heard only when something is wrong with them, or a developer asks for everything.
    let filter = match level {
        "trace" => "trace".to_owned(),
        _ => format!("warn,ehpc_store={level}"),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|_| LogError::Level(level.to_owned()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_target(level == "trace" || level == "debug");
    let done = match json {
        true => builder.json().flatten_event(true).try_init(),
        false => {
            let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(colour).try_init()
        }
    };
    done.map_err(|error| LogError::Taken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_is_told() {
        let error = start("loud", false).expect_err("not a level").to_string();
        assert_eq!(error, "`loud` is not a log level: expected error, warn, info, debug or trace");
    }
}
