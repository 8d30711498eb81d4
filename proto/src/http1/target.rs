//! Request targets (RFC 9112 section 3.2) and their agreement with Host, with HAProxy's default ports.

use super::codes::is_token;
use super::fault::Fault;
use crate::http::Method;

/// Checks the form of a target.
pub(super) fn check_form(method: &Method, target: &[u8]) -> Result<(), Fault> {
    if *method == Method::Connect {
        let (_, port) = host_and_port(target);
        return if port.is_some_and(|port| !port.is_empty()) { Ok(()) } else { Err(Fault::ConnectTarget) };
    }
    if target.first() == Some(&b'/') || target == b"*" || split_absolute(target).is_some() {
        return Ok(());
    }
    Err(Fault::TargetForm)
}

/// Checks that target and Host name the same authority, and takes what says nothing out of both: a default port in an
/// absolute target, and one in the Host of a CONNECT. Returns the Host to use instead, if it changes.
pub(super) fn agree(
    method: &Method,
    target: &mut Vec<u8>,
    host: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, Fault> {
    if target.first() == Some(&b'/') && *method != Method::Connect {
        return Ok(None);
    }
    if *method == Method::Connect {
        return connect_host(target, host);
    }
    let Some((scheme, authority)) = split_absolute(target) else { return Ok(None) };
    let scheme = target[..scheme].to_ascii_lowercase();
    // User information does not count.
    let from =
        authority.start + target[authority.clone()].iter().rposition(|b| *b == b'@').map_or(0, |at| at + 1);
    let named = without_default_port(&scheme, &target[from..authority.end]).len();
    if let Some(host) = host
        && from < authority.end
        && !target[from..authority.end].eq_ignore_ascii_case(host)
        && !target[from..from + named].eq_ignore_ascii_case(without_default_port(&scheme, host))
    {
        return Err(Fault::HostMismatch);
    }
    target.drain(from + named..authority.end);
    Ok(None)
}

fn connect_host(target: &[u8], host: Option<&[u8]>) -> Result<Option<Vec<u8>>, Fault> {
    let Some(host) = host else { return Ok(None) };
    let (target_name, target_port) = host_and_port(target);
    let (name, port) = host_and_port(host);
    let default = matches!(target_port, Some(b"80" | b"443"));
    let same_port = match port {
        Some(port) if !port.is_empty() => Some(port) == target_port,
        _ => default,
    };
    if !same_port || !name.eq_ignore_ascii_case(target_name) {
        return Err(Fault::HostMismatch);
    }
    Ok((default && port.is_some()).then(|| name.to_vec()))
}

/// Length of the scheme and place of the authority of an absolute URI.
fn split_absolute(target: &[u8]) -> Option<(usize, std::ops::Range<usize>)> {
    let scheme = target.iter().position(|byte| *byte == b':')?;
    let letters = &target[..scheme];
    let valid = letters.first().is_some_and(u8::is_ascii_alphabetic)
        && letters.iter().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') && is_token(*byte)
        });
    let start = scheme + 3;
    if !valid || target.get(scheme..start) != Some(b"://") {
        return None;
    }
    let end = target[start..].iter().position(|byte| *byte == b'/').map_or(target.len(), |at| start + at);
    Some((scheme, start..end))
}

/// An authority's host, and its port if it has one (which may be empty).
fn host_and_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    let digits = authority.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let at = authority.len() - digits;
    match at.checked_sub(1) {
        Some(colon) if authority[colon] == b':' && is_host(&authority[..colon]) => {
            (&authority[..colon], Some(&authority[at..]))
        }
        _ => (authority, None),
    }
}

/// `h:80:80` is no host and port: taking one of them off would leave what the next reader shortens again.
fn is_host(bytes: &[u8]) -> bool {
    !bytes.contains(&b':') || bytes.last() == Some(&b']')
}

fn without_default_port<'a>(scheme: &[u8], authority: &'a [u8]) -> &'a [u8] {
    let default: &[u8] = if scheme == b"https" { b"443" } else { b"80" };
    match host_and_port(authority) {
        (host, Some(port)) if port.is_empty() || port == default => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What HAProxy 2.6.12 did with each (`haproxy -f` with a recording back end behind it).
    #[test]
    fn targets_and_hosts_agree_as_in_haproxy() {
        let get = |target: &str, host: Option<&str>| {
            let mut target = target.as_bytes().to_vec();
            check_form(&Method::Get, &target)?;
            agree(&Method::Get, &mut target, host.map(str::as_bytes))?;
            Ok(String::from_utf8(target).unwrap())
        };
        for (target, host, sent) in [
            ("/x", "h", "/x"),
            ("*", "h", "*"),
            ("http://h/x", "h", "http://h/x"),
            ("http://h:80/x", "h", "http://h/x"),
            ("http://h/x", "h:80", "http://h/x"),
            ("http://h:/x", "h", "http://h/x"),
            ("http://H/x", "h", "http://H/x"),
            ("http:///x", "h", "http:///x"),
            ("http://u@h/x", "h", "http://u@h/x"),
            ("http://h", "h", "http://h"),
            ("https://h:443/", "h", "https://h/"),
            ("ftp://h/", "h", "ftp://h/"),
            ("HTTP://h/", "h", "HTTP://h/"),
            ("http://[::1]:80/", "[::1]", "http://[::1]/"),
            ("http://h:80:80/", "h:80:80", "http://h:80:80/"),
        ] {
            assert_eq!(get(target, Some(host)), Ok(sent.to_owned()), "{target} {host}");
        }
        for (target, host) in [
            ("http://i/x", "h"),
            ("http://h:81/x", "h"),
            ("https://h:80/", "h"),
            ("http://h?x", "h"),
            ("http://h/", "h:81"),
        ] {
            assert_eq!(get(target, Some(host)), Err(Fault::HostMismatch), "{target} {host}");
        }
        assert_eq!(get("http://h/x", None), Ok("http://h/x".into()));
        for target in ["abc", "", "*x", "://h/", "1a://h", "http:/h"] {
            assert_eq!(get(target, Some("h")), Err(Fault::TargetForm), "{target}");
        }
    }

    #[test]
    fn connect_names_a_port_and_agrees_with_host() {
        let connect = |target: &str, host: &str| {
            let mut target = target.as_bytes().to_vec();
            check_form(&Method::Connect, &target)?;
            let host = agree(&Method::Connect, &mut target, Some(host.as_bytes()))?;
            Ok(host.map(|host| String::from_utf8(host).unwrap()))
        };
        assert_eq!(connect("h:443", "h"), Ok(None));
        assert_eq!(connect("h:80", "h"), Ok(None));
        assert_eq!(connect("h:443", "h:443"), Ok(Some("h".into())));
        assert_eq!(connect("h:1", "h:1"), Ok(None));
        for (target, host) in [("i:443", "h"), ("h:1", "h"), ("h:1", "h:2")] {
            assert_eq!(connect(target, host), Err(Fault::HostMismatch), "{target} {host}");
        }
        for target in ["h", "/", "h:", "h:x", "h:80:80", ""] {
            assert_eq!(connect(target, "h"), Err(Fault::ConnectTarget), "{target}");
        }
    }
}
