//! The configuration files of a command line.

use super::arguments::{Action, Arguments};
use super::notices::Notices;
use crate::proxy::config::conditional;
use crate::proxy::config::environment::Environment;
use crate::proxy::config::{self, Config};
use crate::settings::Problems;
use std::fmt::{self, Write};

/// Why there is no configuration.
#[derive(Debug)]
pub(super) struct Refused {
    /// Whole lines for standard error.
    text: String,
    /// With which status the process ends.
    pub(super) status: u8,
}

impl Refused {
    /// Sockets that cannot be opened.
    pub(super) fn of_sockets(problems: Problems) -> Refused {
        let mut text = String::new();
        for problem in &problems.0 {
            let pid = std::process::id();
            // Writing into a string does not fail.
            let _ = writeln!(text, "[ALERT]    ({pid}) : Starting proxy: {problem}");
        }
        Refused { text, status: 1 }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Reads them; warnings and what means nothing here are told.
pub(super) fn config(arguments: &Arguments, notices: Notices) -> Result<Config, Refused> {
    let pid = std::process::id();
    let mut config = config::load(&arguments.files, environment(arguments)).map_err(|problems| {
        let text = config::alerts(&problems, pid);
        Refused { text, status: 1 }
    })?;
    notices.lines(&config::warnings(&config, pid));
    if arguments.warnings_are_errors && !config.warnings.is_empty() {
        let text =
            format!("[ALERT]    ({pid}) : config : some warnings were found and '-dW' is set. Aborting.\n");
        return Err(Refused { text, status: 1 });
    }
    for word in &arguments.without_meaning {
        *config.without_meaning.entry(word.clone()).or_default() += 1;
    }
    if let Some(notice) = config.without_meaning_notice() {
        notices.notice(&notice);
    }
    if !config.has_listeners() {
        // HAProxy's texts and statuses.
        let check = arguments.action == Action::Check;
        return Err(match check {
            true => Refused {
                text: "Configuration file has no error but will not start (no listener) => exit(2).\n"
                    .to_owned(),
                status: 2,
            },
            false => Refused {
                text: format!(
                    "[ALERT]    ({pid}) : [haproxy.main()] No enabled listener found (check for 'bind' directives) ! \
                     Exiting.\n"
                ),
                status: 1,
            },
        });
    }
    if let Some(maxconn) = arguments.proxy_maxconn {
        config.proxies.iter_mut().filter(|proxy| proxy.front).for_each(|proxy| {
            proxy.maxconn.get_or_insert(maxconn);
        });
    }
    Ok(config)
}

/// What `"$NAME"` finds in the files: this process's variables, and those that HAProxy sets.
fn environment(arguments: &Arguments) -> Environment {
    let mut environment = Environment::of_process();
    let files: Vec<String> = arguments.files.iter().map(|file| file.display().to_string()).collect();
    environment.set("HAPROXY_CFGFILES", &files.join(";"));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    environment.set("HAPROXY_LOCALPEER", &host);
    if arguments.master {
        environment.set("HAPROXY_MWORKER", "1");
    }
    environment
}

/// `-cc`
pub(super) fn condition(text: &str) -> Result<bool, String> {
    conditional::evaluate(text, &Environment::of_process())
}
