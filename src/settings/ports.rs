//! Who holds a port: /proc/net/tcp names the socket, /proc/PID/fd names its owner.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The process that listens on a port.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Holder {
    pub pid: u32,
    /// Its command name.
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.command)
    }
}

/// The process that listens where `wanted` would; `None` when it cannot be found (another user's, or gone).
pub fn holder(wanted: SocketAddr) -> Option<Holder> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| listening_inode(line, wanted))
    })?;
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let descriptors = fs::read_dir(process.path().join("fd")).ok()?;
        let owns = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()));
        let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default().trim().to_owned();
        owns.then_some(Holder { pid, command })
    })
}

/// Inode of the socket in one line of /proc/net/tcp if it listens (state 0A) where `wanted` would.
fn listening_inode(line: &str, wanted: SocketAddr) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (&local, &state, &inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (address, port) = local.split_once(':')?;
    let (address, port) = (decode_address(address)?, u16::from_str_radix(port, 16).ok()?);
    let overlaps =
        address.is_unspecified() || wanted.ip().is_unspecified() || address.to_canonical() == wanted.ip();
    (state == "0A" && port == wanted.port() && overlaps).then(|| inode.parse().ok())?
}

/// The kernel prints each 32-bit word of the address as it lies in memory (little endian here).
fn decode_address(hex: &str) -> Option<IpAddr> {
    let words: Vec<u32> = (0..hex.len() / 8)
        .map(|at| hex.get(at * 8..at * 8 + 8).and_then(|word| u32::from_str_radix(word, 16).ok()))
        .collect::<Option<_>>()?;
    let memory = |word: u32| if cfg!(target_endian = "little") { word.swap_bytes() } else { word };
    match *words.as_slice() {
        [v4] => Some(IpAddr::V4(Ipv4Addr::from_bits(memory(v4)))),
        [a, b, c, d] => {
            let bits = [a, b, c, d].iter().fold(0u128, |bits, word| (bits << 32) | u128::from(memory(*word)));
            Some(IpAddr::V6(Ipv6Addr::from_bits(bits)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn this_process_is_found_as_the_holder() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let listener = TcpListener::bind(bind).expect("a free port");
            let address = listener.local_addr().expect("an address");
            let holder = holder(address).unwrap_or_else(|| panic!("no holder of {address}"));
            assert_eq!(holder.pid, std::process::id());
            assert!(!holder.command.is_empty());
        }
    }

    #[test]
    fn a_line_of_the_table_is_read() {
        let line = "   1: 0100007F:2F09 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1";
        let at = |text: &str| text.parse().expect("an address");
        assert_eq!(listening_inode(line, at("127.0.0.1:12041")), Some(4242));
        assert_eq!(listening_inode(line, at("0.0.0.0:12041")), Some(4242));
        assert_eq!(listening_inode(line, at("10.0.0.1:12041")), None);
        assert_eq!(listening_inode(line, at("127.0.0.1:12042")), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), at("127.0.0.1:12041")), None);
        assert_eq!(listening_inode("", at("127.0.0.1:1")), None);
    }
}
