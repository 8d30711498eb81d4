//! What reading a configuration asks of the machine: host names, users, files. Replaced in tests and by the fuzzer.

use crate::host::name_service;
use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Functions that look at the machine.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Addresses of a host's name; blocks.
    pub resolve: fn(&str) -> io::Result<Vec<IpAddr>>,
    /// At most this many bytes of a file: one more than asked for when there are more.
    pub read: fn(&Path, u64) -> io::Result<Vec<u8>>,
    /// The number of a user, if there is one of that name.
    pub user: fn(&str) -> io::Result<Option<u32>>,
    /// The number of a group.
    pub group: fn(&str) -> io::Result<Option<u32>>,
}

impl Surroundings {
    /// This machine.
    pub fn here() -> Surroundings {
        Surroundings { resolve, read, user: name_service::user_by_name, group: name_service::group_by_name }
    }

    /// A machine without host names and files, and with every user and group.
    pub fn none() -> Surroundings {
        Surroundings {
            resolve: |_| Err(io::Error::from(io::ErrorKind::NotFound)),
            read: |_, _| Err(io::Error::from(io::ErrorKind::NotFound)),
            user: |_| Ok(Some(1)),
            group: |_| Ok(Some(1)),
        }
    }

    /// Addresses of a name, at least one.
    pub fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = (self.resolve)(name)?;
        if found.is_empty() { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Ok(found) }
    }
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0_u16).to_socket_addrs()?.map(|address| address.ip()).collect())
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}
