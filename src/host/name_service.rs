//! What the machine's name service (NSS) says of hosts, netgroups and users. Every call may take as long as the
//! network does: never on a thread that serves requests.

use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most groups of one user that are asked for (the kernel's NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 256;
/// Longest entry of the user database that is read.
const MAX_ENTRY: usize = 1 << 20;
/// Longest host name (NI_MAXHOST).
const MAX_HOST: usize = 1025;

unsafe extern "C" {
    // Of the C library, but not in the libc crate: is (host, user, domain) in the netgroup?
    fn innetgr(
        group: *const libc::c_char,
        host: *const libc::c_char,
        user: *const libc::c_char,
        domain: *const libc::c_char,
    ) -> libc::c_int;
}

/// Addresses of a host; none if there is no such host. An error: the name service does not know now.
pub fn addresses_of(host: &str) -> io::Result<Vec<IpAddr>> {
    let Ok(name) = CString::new(host) else { return Ok(Vec::new()) };
    // SAFETY: addrinfo is plain data, for which zero is "nothing asked".
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: the strings end with NUL, the service may be null, and `list` takes a list that is freed below.
    let code = unsafe { libc::getaddrinfo(name.as_ptr(), std::ptr::null(), &raw const hints, &raw mut list) };
    if code != 0 {
        return if is_no_such_name(code) { Ok(Vec::new()) } else { Err(failure(code)) };
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() && found.len() < MAX_ADDRESSES {
        // SAFETY: getaddrinfo made a list of whole addrinfo structures, and it is not freed yet.
        let entry = unsafe { &*next };
        let address = socket_address(entry.ai_addr, entry.ai_addrlen).map(|address| address.to_canonical());
        found.extend(address.filter(|address| !found.contains(address)));
        next = entry.ai_next;
    }
    // SAFETY: `list` came from getaddrinfo and is not used any more.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}

fn is_no_such_name(code: libc::c_int) -> bool {
    // EAI_NODATA (-5) is not in the libc crate.
    code == libc::EAI_NONAME || code == -5
}

fn failure(code: libc::c_int) -> io::Error {
    if code == libc::EAI_SYSTEM {
        return io::Error::last_os_error();
    }
    // SAFETY: gai_strerror returns a string that ends with NUL and is never freed, for every number.
    let text = unsafe { CStr::from_ptr(libc::gai_strerror(code)) };
    io::Error::other(text.to_string_lossy().into_owned())
}

fn socket_address(address: *const libc::sockaddr, length: libc::socklen_t) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    let length = length as usize;
    // SAFETY: the caller has `length` readable bytes at `address`, and the family says which structure it is.
    unsafe {
        match libc::c_int::from((*address).sa_family) {
            libc::AF_INET if length >= size_of::<libc::sockaddr_in>() => {
                let raw = address.cast::<libc::sockaddr_in>().read_unaligned().sin_addr.s_addr;
                Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(raw))))
            }
            libc::AF_INET6 if length >= size_of::<libc::sockaddr_in6>() => {
                let raw = address.cast::<libc::sockaddr_in6>().read_unaligned().sin6_addr.s6_addr;
                Some(IpAddr::V6(Ipv6Addr::from(raw)))
            }
            _ => None,
        }
    }
}

/// The name that an address is said to have; `None` if it has none. Whoever runs that part of the name service
/// may say what he likes: confirm it with [`addresses_of`].
pub fn claimed_name_of(address: IpAddr) -> io::Result<Option<String>> {
    let socket = socket2::SockAddr::from(std::net::SocketAddr::new(address, 0));
    let mut name = [0 as libc::c_char; MAX_HOST];
    // SAFETY: `socket` holds `len` bytes of an address, `name` has the room that is said; no service is asked for.
    let code = unsafe {
        libc::getnameinfo(
            socket.as_ptr().cast::<libc::sockaddr>(),
            socket.len(),
            name.as_mut_ptr(),
            MAX_HOST as libc::socklen_t,
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if code != 0 {
        return if is_no_such_name(code) { Ok(None) } else { Err(failure(code)) };
    }
    // SAFETY: on success the name ends with NUL within its room.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Ok(name.to_str().ok().map(str::to_owned))
}

/// Is a host (by any one of its names) in the netgroup?
pub fn in_netgroup(group: &str, host: &str) -> bool {
    let (Ok(group), Ok(host)) = (CString::new(group), CString::new(host)) else { return false };
    // innetgr keeps its place in static data.
    static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock();
    // SAFETY: all strings end with NUL; null stands for "any".
    unsafe { innetgr(group.as_ptr(), host.as_ptr(), std::ptr::null(), std::ptr::null()) == 1 }
}

/// Every group of a user, the primary one included; none if the user is not known here. An error: the user
/// database does not answer now.
pub fn groups_of(uid: u32) -> io::Result<Vec<u32>> {
    let Some((name, gid)) = user(uid)? else { return Ok(Vec::new()) };
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: the name ends with NUL and `groups` has room for `count` numbers.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let wanted = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(wanted);
            return Ok(groups);
        }
        if groups.len() >= MAX_GROUPS {
            return Err(io::Error::other(format!("uid {uid} is in more than {MAX_GROUPS} groups")));
        }
        groups.resize(wanted.clamp(groups.len() * 2, MAX_GROUPS), 0);
    }
}

/// The name of a user; `None` if it has none here. An error: the user database does not answer now.
pub fn user_name(uid: u32) -> io::Result<Option<String>> {
    Ok(user(uid)?.map(|(name, _)| name.to_string_lossy().into_owned()))
}

/// Name and primary group.
fn user(uid: u32) -> io::Result<Option<(CString, u32)>> {
    let mut room: Vec<libc::c_char> = vec![0; 1024];
    loop {
        // SAFETY: passwd is plain data (pointers and numbers), for which zero is a value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        // SAFETY: `entry` and `room` outlive what `found` and the strings in it point to.
        let code =
            unsafe { libc::getpwuid_r(uid, &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found) };
        match code {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: on success pw_name points to a string within `room`.
                let name = unsafe { CStr::from_ptr(entry.pw_name) };
                return Ok(Some((name.to_owned(), entry.pw_gid)));
            }
            libc::ERANGE if room.len() < MAX_ENTRY => room.resize(room.len() * 4, 0),
            // What some modules say of a user that is not there.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The number of a user; `None` if there is no such user. An error: the user database does not answer now.
pub fn user_by_name(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut room: Vec<libc::c_char> = vec![0; 1024];
    loop {
        // SAFETY: passwd is plain data (pointers and numbers), for which zero is a value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        let length = room.len();
        // SAFETY: the name ends with NUL; `entry` and `room` live during the call and have the room that is said.
        let code = unsafe {
            libc::getpwnam_r(name.as_ptr(), &raw mut entry, room.as_mut_ptr(), length, &raw mut found)
        };
        match code {
            0 => return Ok((!found.is_null()).then_some(entry.pw_uid)),
            libc::ERANGE if length < MAX_ENTRY => room.resize(length * 4, 0),
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// The number of a group; `None` if there is no such group. An error: the group database does not answer now.
pub fn group_by_name(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let mut room: Vec<libc::c_char> = vec![0; 1024];
    loop {
        // SAFETY: group is plain data (pointers and numbers), for which zero is a value.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::group = std::ptr::null_mut();
        let length = room.len();
        // SAFETY: the name ends with NUL; `entry` and `room` live during the call and have the room that is said.
        let code = unsafe {
            libc::getgrnam_r(name.as_ptr(), &raw mut entry, room.as_mut_ptr(), length, &raw mut found)
        };
        match code {
            0 => return Ok((!found.is_null()).then_some(entry.gr_gid)),
            libc::ERANGE if length < MAX_ENTRY => room.resize(length * 4, 0),
            libc::ENOENT | libc::ESRCH => return Ok(None),
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_its_name() {
        let addresses = addresses_of("localhost").unwrap();
        assert!(addresses.iter().any(|address| address.is_loopback()), "{addresses:?}");
        assert_eq!(addresses_of("10.1.2.3").unwrap(), [IpAddr::from([10, 1, 2, 3])]);
        assert!(addresses_of("a\0b").unwrap().is_empty());
        let name = claimed_name_of(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!(name.as_deref(), Some("localhost"));
    }

    #[test]
    fn names_of_users_and_groups_have_numbers() {
        assert_eq!(user_by_name("root").unwrap(), Some(0));
        assert_eq!(group_by_name("root").unwrap(), Some(0));
        assert_eq!(user_by_name("no-such-user").unwrap(), None);
        assert_eq!(group_by_name("a\0b").unwrap(), None);
    }

    #[test]
    fn root_has_groups_and_nobody_knows_an_unused_number() {
        assert!(groups_of(0).unwrap().contains(&0));
        assert!(groups_of(3_999_999_999).unwrap().is_empty());
        assert!(!in_netgroup("no-such-netgroup", "localhost"));
    }
}
