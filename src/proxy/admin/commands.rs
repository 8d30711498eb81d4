//! The one table of commands: words, usage and help, who may, what it does.

use super::{
    Answer, Context, Severity, counters, errors, frontends, servers, servers_state, sessions, show, tables,
};
use crate::proxy::config::model::Level;
use std::fmt::Write as _;
use std::time::Duration;

/// One command.
struct Command {
    /// Words that name it.
    words: &'static [&'static str],
    /// What stands behind them, for the help.
    usage: &'static str,
    help: &'static str,
    /// Rights that it needs.
    level: Level,
    run: fn(&Context<'_>, &Caller, &[&str]) -> Answer,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub(super) struct Caller {
    pub(super) level: Level,
}

use Level::{Admin, Operator, User};

macro_rules! commands {
    ($($($word:literal)+, $usage:literal, $help:literal, $level:ident, $run:expr;)*) => {
        /// In the order of the help.
        const COMMANDS: &[Command] = &[$(Command {
            words: &[$($word),+], usage: $usage, help: $help, level: $level, run: $run,
        }),*];
    };
}

commands! {
    "clear" "counters", " [all]", "clear max statistics counters (or all counters)", Operator, counters::clear;
    "clear" "table", " <table> [<filter>]*", "remove an entry from a table (filter: data/key)", Operator, tables::clear;
    "disable" "agent", "", "disable agent checks", Admin, servers::disable_agent;
    "disable" "frontend", " <frontend>", "temporarily disable specific frontend", Admin, frontends::disable;
    "disable" "health", "", "disable health checks", Admin, servers::disable_health;
    "disable" "server", " (DEPRECATED)", "disable a server for maintenance (use 'set server' instead)", Admin,
        servers::disable;
    "enable" "agent", "", "enable agent checks", Admin, servers::enable_agent;
    "enable" "frontend", " <frontend>", "re-enable specific frontend", Admin, frontends::enable;
    "enable" "health", "", "enable health checks", Admin, servers::enable_health;
    "enable" "server", "  (DEPRECATED)", "enable a disabled server (use 'set server' instead)", Admin, servers::enable;
    "get" "weight", " <bk>/<srv>", "report a server's current weight", User, servers::get_weight;
    "operator", "", "lower the level of the current CLI session to operator", Operator,
        |_, _, _| Answer::Lower(Operator);
    "set" "maxconn" "frontend", " <frontend> <value>", "change a frontend's maxconn setting", Admin,
        frontends::set_maxconn;
    "set" "maxconn" "global", " <value>", "change the per-process maxconn setting", Admin,
        frontends::set_process_maxconn;
    "set" "maxconn" "server", " <bk>/<srv>", "change a server's maxconn setting", Admin, servers::set_maxconn;
    "set" "server", " <bk>/<srv> [opts]", "change a server's state, weight, address or ssl", Admin, servers::set;
    "set" "severity-output", " [none|number|string]", "set presence of severity level in feedback information", User,
        |_, _, arguments| severity(arguments);
    "set" "table", " <table> key <k> [data.* <v>]*", "update or create a table entry's data", Operator, tables::set;
    "set" "timeout", " [cli] <delay>", "change a timeout setting", User, |_, _, arguments| timeout(arguments);
    "set" "weight", " <bk>/<srv>  (DEPRECATED)", "change a server's weight (use 'set server' instead)", Admin,
        servers::set_weight;
    "show" "backend", "", "list backends in the current running config", User, show::backends;
    "show" "cli" "level", "", "display the level of the current CLI session", User, show::level;
    "show" "cli" "sockets", "", "dump list of cli sockets", User, show::sockets;
    "show" "env", " [var]", "dump environment variables known to the process", Operator, show::environment;
    "show" "errors", " [<px>] [request|response]", "report last request and/or response errors for each proxy",
        Operator, errors::show;
    "show" "info", " [desc|json|typed|float]*", "report information about the running process", User, show::info;
    "show" "metrics", "", "report everything in Prometheus' text format (not in HAProxy)", User, show::metrics;
    "show" "servers" "conn", " [<backend>]", "dump server connections status (all or for a single backend)", User,
        servers_state::connections;
    "show" "servers" "state", " [<backend>]", "dump volatile server information (all or for a single backend)", User,
        servers_state::state;
    "show" "sess", " [id]", "report the list of current sessions or dump this exact session", Operator,
        sessions::show;
    "show" "startup-logs", "", "report logs emitted during HAProxy startup", Operator, show::startup_logs;
    "show" "stat", " [desc|json|no-maint|typed|up]*", "report counters for each proxy and server", User, show::stat;
    "show" "table", " <table> [<filter>]*", "report table usage stats or dump this table's contents (filter: data/key)",
        User, tables::show;
    "show" "version", "", "show version of the current process", User, show::version;
    "shutdown" "session", " [id]", "kill a specific session", Admin, sessions::shutdown;
    "shutdown" "sessions" "server", " <bk>/<srv>", "kill sessions on a server", Admin, sessions::shutdown_of_server;
    "user", "", "lower the level of the current CLI session to user", User, |_, _, _| Answer::Lower(User);
    "help", " [<command>]", "list matching or all commands", User,
        |_, _, arguments| Answer::info(help("The following commands are valid at this level:", arguments));
    "prompt", "", "toggle interactive mode with prompt", User, |_, _, _| Answer::TogglePrompt;
    "quit", "", "disconnect", User, |_, _, _| Answer::Quit;
}

/// The last three stand under every list.
const ALWAYS: usize = 3;

/// Commands of HAProxy that this proxy refuses by name: (first words, why).
const REFUSED: &[(&[&str], &str)] = &[
    (&["add", "acl"], ACL),
    (&["del", "acl"], ACL),
    (&["clear", "acl"], ACL),
    (&["get", "acl"], ACL),
    (&["show", "acl"], ACL),
    (&["prepare", "acl"], ACL),
    (&["commit", "acl"], ACL),
    (&["add", "map"], ACL),
    (&["del", "map"], ACL),
    (&["clear", "map"], ACL),
    (&["get", "map"], ACL),
    (&["set", "map"], ACL),
    (&["show", "map"], ACL),
    (&["prepare", "map"], ACL),
    (&["commit", "map"], ACL),
    (&["add", "server"], SERVERS),
    (&["del", "server"], SERVERS),
    (&["shutdown", "frontend"], "A frontend is not shut down for ever here: use 'disable frontend'.\n"),
    (&["set", "rate-limit"], "Rate limits are not supported yet.\n"),
    (&["set", "ssl"], TLS),
    (&["new", "ssl"], TLS),
    (&["add", "ssl"], TLS),
    (&["del", "ssl"], TLS),
    (&["commit", "ssl"], TLS),
    (&["abort", "ssl"], TLS),
    (&["show", "ssl"], TLS),
    (&["show", "tls-keys"], TLS),
];
const ACL: &str = "acls and maps do not change at run time here: change the file and reload.\n";
const SERVERS: &str = "Servers are not added or removed at run time here: change the file and reload.\n";
const TLS: &str = "TLS is not supported yet.\n";

/// Carries out one command.
pub(super) fn execute(context: &Context<'_>, level: Level, words: &[&str]) -> Answer {
    let names = |command: &&Command| words.starts_with(command.words);
    let Some(command) = COMMANDS.iter().filter(names).max_by_key(|command| command.words.len()) else {
        return unknown(words);
    };
    if level < command.level {
        return Answer::error("Permission denied\n");
    }
    (command.run)(context, &Caller { level }, words.get(command.words.len()..).unwrap_or_default())
}

fn unknown(words: &[&str]) -> Answer {
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| words.starts_with(refused)) {
        return Answer::error(why);
    }
    if words.is_empty() {
        return Answer::info(help(
            "Unknown command. Please enter one of the following commands only:",
            words,
        ));
    }
    Answer::info(help("Unknown command, but maybe one of the following ones is a better match:", words))
}

/// `title`, then the commands that `words` may mean, then those that are always there.
fn help(title: &str, words: &[&str]) -> String {
    let mut out = format!("{title}\n");
    let (named, always) = COMMANDS.split_at(COMMANDS.len() - ALWAYS);
    let near = nearest(named, words);
    for command in named.iter().zip(near).filter(|(_, near)| *near).map(|(command, _)| command).chain(always)
    {
        let usage = format!("{}{}", command.words.join(" "), command.usage);
        let _ = writeln!(out, "  {usage:<40}: {}", command.help);
    }
    out
}

/// Which commands begin as the words do; if none does, which are like them.
fn nearest(commands: &[Command], words: &[&str]) -> Vec<bool> {
    let begins = |known: &[&str], words: &[&str]| {
        let (last, before) = words.split_last().unwrap_or((&"", &[]));
        known.starts_with(before) && known.get(before.len()).is_none_or(|word| word.starts_with(last))
    };
    // The more of the words fit, the better; the words behind may be arguments.
    for count in (0..=words.len()).rev() {
        let found: Vec<bool> = commands
            .iter()
            .map(|command| begins(command.words, &words[..count.min(command.words.len())]))
            .collect();
        if found.contains(&true) {
            // With no word at all everything fits: then what is spelled nearly alike is meant.
            return if count == 0 && !words.is_empty() { alike(commands, words) } else { found };
        }
    }
    vec![true; commands.len()]
}

/// Commands with the fewest changes of letters from what was written.
fn alike(commands: &[Command], words: &[&str]) -> Vec<bool> {
    let written = words.iter().take(3).copied().collect::<Vec<_>>().join(" ");
    let written: String = written.chars().take(60).collect();
    let distances: Vec<usize> =
        commands.iter().map(|command| distance(&written, &command.words.join(" "))).collect();
    let least = distances.iter().min().copied().unwrap_or(0);
    distances.iter().map(|distance| *distance <= least + 1).collect()
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut diagonal = at;
        if let Some(first) = row.first_mut() {
            *first = at + 1;
        }
        for (column, known) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

fn severity(arguments: &[&str]) -> Answer {
    match arguments.first() {
        Some(&"none") => Answer::Severity(Severity::None),
        Some(&"number") => Answer::Severity(Severity::Number),
        Some(&"string") => Answer::Severity(Severity::Text),
        _ => Answer::error("one of 'none', 'number', 'string' is a required argument\n"),
    }
}

/// `set timeout cli DELAY`; a number without unit means seconds.
fn timeout(arguments: &[&str]) -> Answer {
    match arguments {
        ["cli", delay, ..] => match duration(delay) {
            Some(timeout) => Answer::Timeout(timeout),
            None => Answer::error("Invalid timeout value.\n"),
        },
        ["cli"] => Answer::error("Expects an integer value.\n"),
        _ => Answer::error("'set timeout' only supports 'cli'.\n"),
    }
}

/// A time of at least 1 ms and at most 24 days (2.5 of the configuration manual); no unit: seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let micros = match unit {
        "us" => 1,
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let micros = number.checked_mul(micros)?;
    (1_000..=2_147_483_647_000).contains(&micros).then(|| Duration::from_micros(micros))
}
