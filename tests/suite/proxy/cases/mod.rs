//! The cases: tables of bytes.

mod bad;
mod errors;
mod failing;
mod framing;
mod guide;
mod modes;
mod queue;
mod real;
mod rules;
mod tcp;

use super::case::{Case, Group};

/// All of them.
pub(crate) fn all() -> Vec<Group> {
    let mut groups = Vec::new();
    groups.extend(failing::groups());
    groups.extend(queue::groups());
    groups.extend(real::groups());
    groups.extend(guide::groups());
    groups.extend(framing::groups());
    groups.extend(bad::groups());
    groups.extend(errors::groups());
    groups.extend(modes::groups());
    groups.extend(rules::groups());
    groups.extend(tcp::groups());
    groups
}

/// The guide's `global` and `defaults` in today's spelling, without its error files; then `rest`.
fn guide(rest: &str) -> String {
    format!(
        "global\n    log {{ip}}:514 local0\n    maxconn 1000\n    nbthread 1\n\
         defaults\n    log global\n    mode http\n    option httplog\n    option dontlognull\n    option http-server-close\n    \
         option forwardfor except 127.0.0.0/8\n    option redispatch\n    retries 3\n    timeout http-keep-alive 10s\n    \
         timeout check 10s\n    timeout connect 5s\n    timeout client 50s\n    timeout server 50s\n{rest}\n"
    )
}

/// A front end on port 80 with these lines, over one back end with these.
fn over(frontend: &str, backend: &str) -> String {
    let lines = |text: &str| text.lines().map(|line| format!("    {}\n", line.trim())).collect::<String>();
    guide(&format!(
        "frontend proxy\n    bind {{ip}}:80\n{}    default_backend dynamic\nbackend dynamic\n{}",
        lines(frontend),
        lines(backend)
    ))
}

fn group(name: &'static str, configuration: String, cases: Vec<Case>) -> Group {
    Group { name, configuration, pooled: false, real: false, cases }
}

/// A GET with these further header lines.
fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.example\r\n{headers}\r\n")
}
