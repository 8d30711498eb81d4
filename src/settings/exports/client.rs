//! Which clients a line of exports(5) is about.

use std::fmt;
use std::net::IpAddr;

/// Who a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Client {
    /// One address.
    Address(IpAddr),
    /// Every address that begins with these bits.
    #[allow(missing_docs)]
    Network { address: IpAddr, prefix: u8 },
    /// `*`.
    Everybody,
}

impl fmt::Display for Client {
    /// As exports(5) writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Client::Address(address) => write!(f, "{address}"),
            Client::Network { address, prefix } => write!(f, "{address}/{prefix}"),
            Client::Everybody => f.write_str("*"),
        }
    }
}

/// Do the first `prefix` bits of both agree? Addresses of different families never do.
pub(super) fn in_network(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let differing = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differing >= u32::from(prefix)
}

impl Client {
    /// Is this address meant?
    pub fn covers(&self, address: IpAddr) -> bool {
        match self {
            Client::Address(one) => *one == address,
            Client::Network { address: network, prefix } => in_network(address, *network, *prefix),
            Client::Everybody => true,
        }
    }

    /// Place in the order of kinds: exports(5) lets the first kind that knows the client decide.
    pub fn kind(&self) -> u8 {
        match self {
            Client::Address(_) => 0,
            Client::Network { .. } => 1,
            Client::Everybody => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(network: &str, prefix: u8, address: &str) -> bool {
        let network = Client::Network { address: network.parse().unwrap(), prefix };
        network.covers(address.parse().unwrap())
    }

    #[test]
    fn networks_end_where_their_prefix_ends() {
        assert!(covers("10.0.0.0", 8, "10.255.0.1"));
        assert!(!covers("10.0.0.0", 8, "11.0.0.0"));
        assert!(covers("192.168.1.128", 25, "192.168.1.255"));
        assert!(!covers("192.168.1.128", 25, "192.168.1.127"));
        assert!(covers("0.0.0.0", 0, "203.0.113.9"));
        assert!(!covers("0.0.0.0", 0, "::1"), "another family");
        assert!(covers("10.1.2.3", 32, "10.1.2.3"));
        assert!(!covers("10.1.2.3", 32, "10.1.2.2"));
        assert!(covers("2001:db8::", 32, "2001:db8:ffff::1"));
        assert!(!covers("2001:db8::", 32, "2001:db9::1"));
    }
}
