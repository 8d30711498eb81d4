//! Which clients a line of exports(5) is about.

use std::fmt;
use std::net::IpAddr;

/// Longest host name (RFC 1035) and netgroup.
const MAX_NAME: usize = 253;

/// Who a rule is for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Client {
    /// A host name: the addresses that it has.
    Host(String),
    /// One address.
    Address(IpAddr),
    /// Every address that begins with these bits.
    #[allow(missing_docs)]
    Network { address: IpAddr, prefix: u8 },
    /// Hosts whose names match: `*`, `?` and `[...]`, dots included.
    Wildcard(String),
    /// Hosts of a netgroup.
    Netgroup(String),
    /// `*`.
    Everybody,
}

impl fmt::Display for Client {
    /// As exports(5) writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Host(name) | Client::Wildcard(name) => f.write_str(name),
            Client::Address(address) => write!(f, "{address}"),
            Client::Network { address, prefix } => write!(f, "{address}/{prefix}"),
            Client::Netgroup(name) => write!(f, "@{name}"),
            Client::Everybody => f.write_str("*"),
        }
    }
}

/// What is known of clients and names. `None`: not known yet.
pub trait Names {
    /// Does the host of this name have the address?
    fn is_host(&self, name: &str, address: IpAddr) -> Option<bool>;
    /// The names of an address, each confirmed by a look-up of the name; its digits where it has none.
    fn names_of(&self, address: IpAddr) -> Option<Vec<String>>;
    /// Is the host of this address in the netgroup?
    fn in_netgroup(&self, group: &str, address: IpAddr) -> Option<bool>;
}

impl Client {
    /// The kinds, in the order in which they decide.
    pub const KINDS: std::ops::RangeInclusive<u8> = 0..=4;

    /// Reads `web1`, `10.0.0.0/8`, `*.example.org`, `@web`, `*`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Client, String> {
        if text.is_empty() || text == "*" {
            return Ok(Client::Everybody);
        }
        if let Some(group) = text.strip_prefix('@') {
            let good = !group.is_empty() && group.len() <= MAX_NAME && group.chars().all(is_graphic);
            return if good { Ok(Client::Netgroup(group.to_owned())) } else { Err(not(text, "a netgroup")) };
        }
        if let Some((address, mask)) = text.split_once('/') {
            return network(address, mask).ok_or_else(|| not(text, "a network"));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Client::Address(address.to_canonical()));
        }
        if text.len() > MAX_NAME || !text.chars().all(is_graphic) {
            return Err(not(text, "a host name"));
        }
        if text.contains(['*', '?', '[']) {
            return if brackets_close(text) {
                Ok(Client::Wildcard(text.to_owned()))
            } else {
                Err(format!("`{text}` has a [ that is not closed"))
            };
        }
        if is_host_name(text) { Ok(Client::Host(text.to_owned())) } else { Err(not(text, "a host name")) }
    }

    /// Does it take the name service to know who is meant?
    pub fn needs_names(&self) -> bool {
        matches!(self, Client::Host(_) | Client::Wildcard(_) | Client::Netgroup(_))
    }

    /// Is the client with this address meant? `None`: it takes a look-up to know.
    pub fn covers(&self, address: IpAddr, names: &dyn Names) -> Option<bool> {
        match self {
            Client::Host(name) => names.is_host(name, address),
            Client::Address(one) => Some(*one == address),
            Client::Network { address: network, prefix } => Some(in_network(address, *network, *prefix)),
            Client::Wildcard(pattern) => {
                Some(names.names_of(address)?.iter().any(|name| matches(pattern, name)))
            }
            Client::Netgroup(group) => names.in_netgroup(group, address),
            Client::Everybody => Some(true),
        }
    }

    /// Its kind, one of [`Client::KINDS`]: the first kind that knows a client decides.
    pub fn kind(&self) -> u8 {
        match self {
            Client::Host(_) | Client::Address(_) => 0,
            Client::Network { .. } => 1,
            Client::Wildcard(_) => 2,
            Client::Netgroup(_) => 3,
            Client::Everybody => 4,
        }
    }
}

fn not(text: &str, what: &str) -> String {
    format!("`{}` is not {what}", text.escape_debug())
}

fn is_graphic(c: char) -> bool {
    c.is_ascii_graphic()
}

/// RFC 1123, and the underscore that people use.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    // The last label of a name is never a number: that would be a broken address.
    let numeric = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    text.split('.').all(label) && !numeric
}

/// `10.0.0.0` and `8` or `255.0.0.0`.
fn network(address: &str, mask: &str) -> Option<Client> {
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix = if !mask.is_empty() && mask.bytes().all(|byte| byte.is_ascii_digit()) {
        mask.parse::<u8>().ok().filter(|prefix| *prefix <= width)?
    } else {
        match (address, mask.parse::<IpAddr>().ok()?) {
            (IpAddr::V4(_), IpAddr::V4(mask)) => contiguous(mask.to_bits().into(), 32)?,
            (IpAddr::V6(_), IpAddr::V6(mask)) => contiguous(mask.to_bits(), 128)?,
            _ => return None,
        }
    };
    let address = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    };
    Some(Client::Network { address, prefix })
}

/// How many bits a mask of `width` bits begins with, if it has no others.
fn contiguous(mask: u128, width: u32) -> Option<u8> {
    let ones = mask.count_ones();
    let expected = if ones == 0 { 0 } else { (u128::MAX >> (128 - ones)) << (width - ones) };
    if mask == expected { u8::try_from(ones).ok() } else { None }
}

/// Do the first `prefix` bits of both agree? Addresses of different families never do.
fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let same = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    same >= u32::from(prefix)
}

fn brackets_close(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.find('[') {
        match class(&rest[at..]) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}

/// Splits `[...]` from what follows; the first character may be a `]` that is meant.
fn class(text: &str) -> Option<(&str, &str)> {
    let body = text.strip_prefix('[')?;
    let start = usize::from(body.starts_with(['!', '^']));
    let skip = start + usize::from(body.get(start..)?.starts_with(']'));
    let end = skip + body.get(skip..)?.find(']')?;
    Some((&body[..end], &body[end + 1..]))
}

/// Is `c` in the class (`a-z_`, or `!...` for all others)?
fn in_class(class: &str, c: u8) -> bool {
    let (members, inverted) = match class.strip_prefix(['!', '^']) {
        Some(members) => (members.as_bytes(), true),
        None => (class.as_bytes(), false),
    };
    let mut found = false;
    let mut rest = members;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if let [b'-', last, ..] = *after {
            found |= (first..=last).contains(&c);
            rest = &after[2..];
        } else {
            found |= first == c;
        }
    }
    found != inverted
}

/// Does a host's name match the pattern? Case does not matter; dots are characters like others.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    let name = name.strip_suffix('.').unwrap_or(&name).as_bytes();
    let (mut rest, mut at) = (pattern.as_str(), 0);
    // The last star, and how much of the name it has eaten: enough to try again, whatever follows it.
    let mut star: Option<(&str, usize)> = None;
    loop {
        let step = match (rest.as_bytes().first(), name.get(at)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                rest = &rest[1..];
                star = Some((rest, at));
                continue;
            }
            (Some(b'?'), Some(_)) => Some(&rest[1..]),
            (Some(b'['), Some(&c)) => {
                class(rest).and_then(|(members, after)| in_class(members, c).then_some(after))
            }
            (Some(p), Some(c)) if p == c => Some(&rest[1..]),
            _ => None,
        };
        match (step, star) {
            (Some(after), _) => {
                rest = after;
                at += 1;
            }
            (None, Some((after, eaten))) if eaten < name.len() => {
                star = Some((after, eaten + 1));
                rest = after;
                at = eaten + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Names for Nobody {
        fn is_host(&self, _: &str, _: IpAddr) -> Option<bool> {
            None
        }
        fn names_of(&self, _: IpAddr) -> Option<Vec<String>> {
            None
        }
        fn in_netgroup(&self, _: &str, _: IpAddr) -> Option<bool> {
            None
        }
    }

    fn covers(client: &str, address: &str) -> Option<bool> {
        Client::parse(client).unwrap().covers(address.parse().unwrap(), &Nobody)
    }

    #[test]
    fn networks_end_where_their_prefix_ends() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/255.0.0.0", "10.255.0.1", true),
            ("10.9.9.9/255.0.0.0", "10.1.0.1", true),
            ("192.168.1.128/25", "192.168.1.255", true),
            ("192.168.1.128/25", "192.168.1.127", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "::1", false),
            ("0.0.0.0/0.0.0.0", "203.0.113.9", true),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::/ffff:ffff::", "2001:db8:ffff::1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("*", "10.0.0.1", true),
        ] {
            assert_eq!(covers(network, address), Some(inside), "{network} {address}");
        }
        assert_eq!(covers("web1", "10.0.0.1"), None, "it takes a look-up");
        assert_eq!(covers("web*", "10.0.0.1"), None);
        assert_eq!(covers("@web", "10.0.0.1"), None);
    }

    #[test]
    fn kinds_of_clients() {
        let parse = |text: &str| Client::parse(text).map(|client| (client.kind(), client.to_string()));
        assert_eq!(parse("web-1.example.org"), Ok((0, "web-1.example.org".to_owned())));
        assert_eq!(parse("10.9.9.9/8"), Ok((1, "10.0.0.0/8".to_owned())));
        assert_eq!(parse("*.example.org"), Ok((2, "*.example.org".to_owned())));
        assert_eq!(parse("192.168.1.*"), Ok((2, "192.168.1.*".to_owned())));
        assert_eq!(parse("@trusted"), Ok((3, "@trusted".to_owned())));
        assert_eq!(parse(""), Ok((4, "*".to_owned())));
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/255.0.255.0",
            "::/129",
            "10.0.0.0/ffff::",
            "web/8",
            "10.0.0",
            "10.0.0.300",
            "@",
            "web1,web2",
            "web[1",
            "web[]",
            "we b",
            "fe80::1%eth0",
            "-web",
            "a..b",
            "\u{e4}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"a".repeat(300)).is_err());
    }

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("*.example.org", "web1.example.org", true),
            ("*.example.org", "a.b.EXAMPLE.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", "web1.example.org.evil.net", false),
            ("web?", "web1", true),
            ("web?", "web", false),
            ("web?", "web12", false),
            ("web[1-3]", "web2", true),
            ("web[1-3]", "web4", false),
            ("web[!1-3]", "web4", true),
            ("web[^1-3]", "web2", false),
            ("web[]x]", "web]", true),
            ("web[13-]", "web-", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxcxxb", false),
            ("*", "", true),
            ("**", "web1.", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        // Not exponential: this returns at once.
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
    }
}
