//! Addresses as `bind`, `server`, `log` write them (11 of the manual: `ipv4@`, `unix@`, `abns@`, `fd@`, port ranges).

use super::Surroundings;
use super::draft::Context;
use super::words::{Parsed, Words};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// Longest path of a Unix socket (`sun_path` without its NUL).
const LONGEST_PATH: usize = 107;

/// One address, before its user gives it meaning.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Address {
    Internet {
        ip: IpAddr,
        /// The host as written when it is a name that was resolved.
        name: Option<String>,
        port: Port,
        /// `*` or nothing stood for the host.
        any: bool,
    },
    Unix(PathBuf),
    /// Without the leading NUL.
    Abstract(Vec<u8>),
    Descriptor(i32),
}

/// What stands behind the last colon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Port {
    None,
    One(u16),
    /// Inclusive.
    Range(u16, u16),
    /// `+N` or `-N`.
    Offset(i32),
}

/// Which kind of socket an address may name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum Transport {
    Stream,
    Datagram,
}

/// Reads the word before the cursor as one address. `text` is that word or a part of it.
pub(crate) fn parse(
    text: &str,
    transport: Transport,
    words: &Words<'_>,
    context: &Context<'_>,
) -> Parsed<Address> {
    let surroundings = context.surroundings;
    let expanded = context.environment.expand(text);
    let expanded = expanded.map_err(|what| words.problem_before(&what, "an address", "write ${NAME}"))?;
    let text = expanded.as_str();
    let refuse = |what: String, next: &str| Err(words.problem_before(&what, "an address", next));
    let (family, rest) = match text.split_once('@') {
        Some((family, rest)) => (family, rest),
        None if text.starts_with('/') => ("unix", text),
        None => ("", text),
    };
    let plain = match (family, transport) {
        ("stream+ipv4" | "tcp4" | "tcp+ipv4", Transport::Stream) => "ipv4",
        ("stream+ipv6" | "tcp6" | "tcp+ipv6", Transport::Stream) => "ipv6",
        ("tcp", Transport::Stream) | ("udp", Transport::Datagram) => "",
        ("udp4" | "dgram+ipv4", Transport::Datagram) => "ipv4",
        ("udp6" | "dgram+ipv6", Transport::Datagram) => "ipv6",
        ("uxst" | "stream+unix", Transport::Stream) | ("uxdg" | "dgram+unix", Transport::Datagram) => "unix",
        (family, _) => family,
    };
    match plain {
        "" | "ipv4" | "ipv6" => internet(plain, rest, words, surroundings),
        "unix" if rest.is_empty() => refuse(format!("`{text}` has no path"), "write /path/of/the/socket"),
        "unix" if rest.len() > LONGEST_PATH => refuse(
            format!("the path of a Unix socket has at most {LONGEST_PATH} bytes"),
            "use a shorter path",
        ),
        "unix" => Ok(Address::Unix(PathBuf::from(rest))),
        "abns" if rest.is_empty() || rest.len() > LONGEST_PATH => {
            refuse(format!("an abstract name has 1 to {LONGEST_PATH} bytes"), "use another name")
        }
        "abns" => Ok(Address::Abstract(rest.as_bytes().to_vec())),
        "fd" => match rest.parse::<i32>() {
            Ok(descriptor) if descriptor >= 0 => Ok(Address::Descriptor(descriptor)),
            _ => refuse(format!("`{text}` names no descriptor"), "write fd@ and a number"),
        },
        "sockpair" | "quic4" | "quic6" | "ring" | "udp" | "udp4" | "udp6" | "tcp" | "tcp4" | "tcp6" => {
            refuse(
                format!("`{family}@` is not supported here"),
                "use an address, a path, unix@, abns@ or fd@",
            )
        }
        _ => refuse(format!("unknown address family `{family}@`"), "known are ipv4@ ipv6@ unix@ abns@ fd@"),
    }
}

fn internet(family: &str, text: &str, words: &Words<'_>, surroundings: &Surroundings) -> Parsed<Address> {
    let refuse = |what: String, next: &str| words.problem_before(&what, "an address", next);
    // The port stands behind the last colon, unless a bracket closes after it.
    let (host, port) = match text.rfind([':', ']']) {
        Some(at) if text.as_bytes()[at] == b':' => (&text[..at], &text[at + 1..]),
        _ => (text, ""),
    };
    let port = match port.as_bytes().first() {
        None => Port::None,
        Some(b'+' | b'-') => port
            .parse::<i32>()
            .ok()
            .filter(|offset| offset.unsigned_abs() < 65_536)
            .map(Port::Offset)
            .ok_or_else(|| refuse(format!("`{port}` is not a port offset"), "write +100 or -100"))?,
        Some(_) => {
            let (low, high) = port.split_once('-').map_or((port, None), |(low, high)| (low, Some(high)));
            let number = |text: &str| {
                let value = text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
                value.ok_or_else(|| refuse(format!("`{text}` is not a port"), "write 1 to 65535"))
            };
            match high {
                None => Port::One(number(low)?),
                Some(high) => {
                    let (low, high) = (number(low)?, number(high)?);
                    if low == 0 || low > high {
                        return Err(refuse(format!("`{port}` is not a range of ports"), "write LOW-HIGH"));
                    }
                    Port::Range(low, high)
                }
            }
        }
    };
    let any = host.is_empty() || host == "*";
    let (ip, name) = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host) {
        "" | "*" if family == "ipv6" => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), None),
        "" | "*" => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None),
        literal => match literal.parse::<IpAddr>() {
            Ok(ip) => (ip, None),
            Err(_) => {
                let found = surroundings.resolve(literal).map_err(|error| {
                    let what = format!("`{literal}` cannot be resolved: {error}");
                    refuse(what, "write an address, or add the name to /etc/hosts")
                })?;
                let wanted = found.into_iter().find(|ip| match family {
                    "ipv4" => ip.is_ipv4(),
                    "ipv6" => ip.is_ipv6(),
                    _ => true,
                });
                let ip = wanted.ok_or_else(|| {
                    refuse(format!("`{literal}` has no address of that family"), "use another")
                })?;
                (ip, Some(literal.to_owned()))
            }
        },
    };
    if (family == "ipv4" && !ip.is_ipv4()) || (family == "ipv6" && !ip.is_ipv6()) {
        return Err(refuse(format!("`{host}` is not of the family {family}"), "remove the family"));
    }
    Ok(Address::Internet { ip, name, port, any })
}

impl Address {
    /// As a TCP or UDP address with exactly one port (`default` when none is written).
    pub(crate) fn with_port(&self, default: Option<u16>) -> Option<SocketAddr> {
        match self {
            Address::Internet { ip, port: Port::One(port), .. } => Some(SocketAddr::new(*ip, *port)),
            Address::Internet { ip, port: Port::None, .. } => Some(SocketAddr::new(*ip, default?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::Environment;
    use crate::proxy::config::draft::{Prefix, UnixBind};
    use crate::proxy::config::words::Line;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn of(text: &str) -> Option<Address> {
        let line = Line { file: Path::new("x").into(), number: 1, words: Vec::new() };
        let surroundings = Surroundings {
            resolve: |name| match name {
                "web1" => Ok(vec![Ipv4Addr::new(10, 0, 0, 1).into(), Ipv6Addr::LOCALHOST.into()]),
                _ => Err(std::io::Error::other("unknown name")),
            },
            ..Surroundings::none()
        };
        let mut environment = Environment::default();
        environment.set("PORT", "81");
        let context = Context {
            line: &line,
            prefix: Prefix::None,
            surroundings: &surroundings,
            environment: &environment,
            bufsize: 0,
            unix_bind: &mut UnixBind::default(),
            warnings: &mut Vec::new(),
            without_meaning: &mut BTreeMap::new(),
        };
        parse(text, Transport::Stream, &Words::new(&line), &context).ok()
    }

    fn shown(text: &str) -> String {
        match of(text) {
            None => "refused".to_owned(),
            Some(Address::Internet { ip, name, port, any }) => {
                format!(
                    "{ip} {port:?}{}{}",
                    name.map_or(String::new(), |n| format!(" ({n})")),
                    if any { " any" } else { "" }
                )
            }
            Some(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("*:80", "0.0.0.0 One(80) any"),
            (":80", "0.0.0.0 One(80) any"),
            (":::80", ":: One(80)"),
            ("[::]:80", ":: One(80)"),
            ("::1:80", "::1 One(80)"),
            ("ipv6@:80", ":: One(80) any"),
            ("ipv4@*:80", "0.0.0.0 One(80) any"),
            ("ipv4@1.2.3.4:80", "1.2.3.4 One(80)"),
            ("ipv4@[::1]:80", "refused"),
            ("1.2.3.4", "1.2.3.4 None"),
            ("1.2.3.4:8000-8010", "1.2.3.4 Range(8000, 8010)"),
            ("1.2.3.4:8010-8000", "refused"),
            ("1.2.3.4:+10", "1.2.3.4 Offset(10)"),
            ("1.2.3.4:-10", "1.2.3.4 Offset(-10)"),
            ("1.2.3.4:65536", "refused"),
            ("1.2.3.4:8x", "refused"),
            ("web1:80", "10.0.0.1 One(80) (web1)"),
            ("ipv6@web1:80", "::1 One(80) (web1)"),
            ("web2:80", "refused"),
            ("/run/x.sock", "Unix(\"/run/x.sock\")"),
            ("unix@x.sock", "Unix(\"x.sock\")"),
            ("unix@", "refused"),
            ("abns@x", "Abstract([120])"),
            ("fd@3", "Descriptor(3)"),
            ("fd@x", "refused"),
            ("fd@-1", "refused"),
            ("quic4@:443", "refused"),
            ("1.2.3.4:$PORT", "1.2.3.4 One(81)"),
            ("1.2.3.4:${PORT}", "1.2.3.4 One(81)"),
            ("1.2.3.4:${NONE}80", "1.2.3.4 One(80)"),
            ("1.2.3.4:${PORT", "refused"),
            ("1.2.3.4:$", "refused"),
            ("nosuch@:443", "refused"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }
}
