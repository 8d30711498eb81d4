//! Values with units, as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// Why a text is not a value of a unit; says what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    /// Not a size.
    #[error("`{0}` is not a size: expected a whole number and B, KiB, MiB, GiB or TiB, such as \"64 MiB\"")]
    Bytes(String),
    /// Not a duration.
    #[error("`{0}` is not a duration: expected a whole number and ms, s, m, h or d, such as \"30s\"")]
    Seconds(String),
    /// Not an address with a port.
    #[error("`{0}` is not an address with a port: expected HOST:PORT, such as \"10.182.15.50:12090\"")]
    HostPort(String),
}

/// A number of bytes: "64 MiB".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Bytes(pub u64);

const SIZES: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Bytes, UnitError> {
        let fault = || UnitError::Bytes(text.to_owned());
        let (number, unit) = split_unit(text).ok_or_else(fault)?;
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        number.checked_mul(*factor).map(Bytes).ok_or_else(fault)
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that keeps the number above 1, with one decimal: "3.4 GiB", "512 B".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in SIZES {
            if self.0 < factor {
                continue;
            }
            if factor == 1 {
                break;
            }
            return match self.0 % factor {
                0 => write!(f, "{} {name}", self.0 / factor),
                _ => write!(f, "{:.1} {name}", self.0 as f64 / factor as f64),
            };
        }
        write!(f, "{} B", self.0)
    }
}

/// A stretch of time: "30s", "250 ms", "12h".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seconds(pub Duration);

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Seconds, UnitError> {
        let fault = || UnitError::Seconds(text.to_owned());
        let (number, unit) = split_unit(text).ok_or_else(fault)?;
        let (_, factor) = DURATIONS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        number.checked_mul(*factor).map(|ms| Seconds(Duration::from_millis(ms))).ok_or_else(fault)
    }
}

impl fmt::Display for Seconds {
    /// Exact when it was written with one unit, else two units or decimals of a second: "30s", "1h 5m", "2.5s", "14ms".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        if ms < 60_000 {
            return match ms % 1000 {
                0 => write!(f, "{}s", ms / 1000),
                _ => write!(f, "{:.1}s", ms as f64 / 1000.0),
            };
        }
        for pair in DURATIONS[..4].windows(2) {
            let [(name, factor), (next_name, next)] = *pair else { continue };
            if ms >= factor {
                write!(f, "{}{name}", ms / factor)?;
                return match ms % factor / next {
                    0 => Ok(()),
                    rest => write!(f, " {rest}{next_name}"),
                };
            }
        }
        Ok(())
    }
}

/// "64 MiB" to (64, "MiB"); blanks between are optional.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

/// A host by name or address, and a port: where to connect to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port, not 0.
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<HostPort, UnitError> {
        let fault = || UnitError::HostPort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
        let port: u16 = port.parse().map_err(|_| fault())?;
        let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
            Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| fault())?.to_string(),
            None if host.contains(':') => return Err(fault()),
            None => host.to_owned(),
        };
        let named = host.parse::<IpAddr>().is_ok()
            || host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        if host.is_empty() || port == 0 || !named {
            return Err(fault());
        }
        Ok(HostPort { host, port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<SocketAddr> for HostPort {
    /// Where a client on this machine reaches a listener: the unspecified address becomes loopback.
    fn from(address: SocketAddr) -> HostPort {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        HostPort { host: ip.to_string(), port: address.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [
            ("64 MiB", 64 << 20),
            ("1B", 1),
            ("0 KiB", 0),
            ("3 GiB", 3 << 30),
            ("2TiB", 2 << 40),
            ("1023 B", 1023),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "64", "MiB", "64 MB", "-1 B", "1.5 GiB", "64 mib", "99999999 TiB", "1 B "] {
            assert_eq!(text.parse::<Bytes>(), Err(UnitError::Bytes(text.to_owned())));
        }
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            (5 << 40, "5 TiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_read_and_print() {
        for (text, ms) in
            [("250ms", 250), ("30s", 30_000), ("5 m", 300_000), ("12h", 43_200_000), ("2d", 172_800_000)]
        {
            assert_eq!(text.parse(), Ok(Seconds(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "30 sec", "-3s", "99999999999999999 d"] {
            assert_eq!(text.parse::<Seconds>(), Err(UnitError::Seconds(text.to_owned())));
        }
        for (ms, text) in [
            (0, "0ms"),
            (14, "14ms"),
            (2500, "2.5s"),
            (30_000, "30s"),
            (60_000, "1m"),
            (90_000, "1m 30s"),
            (3_900_000, "1h 5m"),
            (86_400_000, "1d"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(Seconds(Duration::from_millis(ms)).to_string(), text);
        }
    }

    #[test]
    fn host_ports_read_and_print() {
        for text in ["backup:12090", "10.182.15.50:1", "[::1]:8900", "a-b.c_d:65535"] {
            assert_eq!(text.parse::<HostPort>().map(|h| h.to_string()), Ok(text.to_owned()));
        }
        for text in ["backup", ":1", "backup:0", "backup:65536", "::1:80", "[::1]", "[x]:1", "a b:1", "a/b:1"]
        {
            assert_eq!(text.parse::<HostPort>(), Err(UnitError::HostPort(text.to_owned())));
        }
        let any: SocketAddr = "0.0.0.0:7".parse().expect("an address");
        assert_eq!(HostPort::from(any).to_string(), "127.0.0.1:7");
    }
}
