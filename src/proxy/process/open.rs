//! Opens the sockets of every `bind` and `stats socket`, or takes those of the process before (5.1).

use super::identity;
use super::inherited::Inherited;
use super::notices::Notices;
use crate::host::listening;
use crate::proxy::config::Config;
use crate::proxy::config::model::{Bind, BindAddress, ProxyIndex};
use crate::proxy::listen::ListeningSocket;
use crate::settings::environment::port_fault;
use crate::settings::{Problem, Problems};
use rustix::fs::Mode;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// HAProxy's backlog where nothing says another.
const BACKLOG: u32 = 1024;

/// The sockets of one `bind`, or of one `stats socket` (`proxy` absent).
#[derive(Debug)]
pub(super) struct OpenBind {
    pub(super) proxy: Option<ProxyIndex>,
    pub(super) bind: usize,
    pub(super) sockets: Vec<ListeningSocket>,
    /// Bound by this process or a predecessor, not given as `fd@`: the next process may take it over.
    pub(super) ours: bool,
}

/// How to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// How many TCP sockets listen on an address: one a thread.
    pub(super) sockets: usize,
    /// With SO_REUSEPORT: so that they may be several, and that another proxy may come beside them before this one goes.
    pub(super) reuse_port: bool,
    /// A process that is about to go may hold an address whose sockets could not be taken.
    pub(super) beside_old: bool,
    pub(super) notices: Notices,
}

/// Opens all. What cannot be opened is told for every `bind`, not only for the first.
pub(super) fn all(config: &Config, inherited: &mut Inherited, way: Way) -> Result<Vec<OpenBind>, Problems> {
    let (mut open, mut problems) = (Vec::new(), Problems::default());
    for (proxy, bind, at, backlog) in binds(config) {
        match one(bind, backlog, inherited, if proxy.is_some() { way } else { Way { sockets: 1, ..way } }) {
            Ok(sockets) => {
                let ours = !matches!(bind.address, BindAddress::Descriptor(_));
                open.push(OpenBind { proxy, bind: at, sockets, ours });
            }
            Err(problem) => problems.0.push(*problem),
        }
    }
    problems.into_result().map(|()| open)
}

/// Every bind of the process with the section it stands in, its number there, and its backlog.
pub(super) fn binds(config: &Config) -> impl Iterator<Item = (Option<ProxyIndex>, &Bind, usize, u32)> {
    let stats = config.global.stats_sockets.iter().enumerate();
    let stats = stats.map(|(at, bind)| (None, bind, at, bind.backlog.or(bind.maxconn).unwrap_or(BACKLOG)));
    let sections = config.proxies.iter().enumerate().filter(|(_, proxy)| proxy.front && !proxy.disabled);
    let sections = sections.flat_map(move |(index, proxy)| {
        proxy.binds.iter().enumerate().map(move |(at, bind)| {
            // As HAProxy: a frontend without `maxconn` has the process's.
            let backlog = bind.backlog.or(proxy.backlog).or(bind.maxconn).or(proxy.maxconn);
            let backlog = backlog.or(config.global.maxconn);
            (Some(index), bind, at, backlog.unwrap_or(BACKLOG))
        })
    });
    stats.chain(sections)
}

fn one(
    bind: &Bind,
    backlog: u32,
    inherited: &mut Inherited,
    way: Way,
) -> Result<Vec<ListeningSocket>, Box<Problem>> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let taken = inherited.take(bind);
    if !taken.is_empty() {
        for socket in &taken {
            renew(bind, socket, backlog)
                .map_err(|error| fault(bind, &error, "restart instead of reloading"))?;
        }
        return Ok(taken);
    }
    match &bind.address {
        BindAddress::Tcp(at) => tcp(bind, *at, backlog, way),
        BindAddress::Unix(path) => {
            unix(bind, path, backlog).map(|socket| vec![ListeningSocket::Unix(socket)])
        }
        BindAddress::Abstract(name) => std::os::unix::net::SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .and_then(|socket| listen_again(socket, backlog))
            .map(|socket| vec![ListeningSocket::Unix(socket)])
            .map_err(|error| fault(bind, &error, "end the process that has this name, or choose another")),
        BindAddress::Descriptor(number) => descriptor(*number).map(|socket| vec![socket]).map_err(|error| {
            fault(bind, &error, "whoever starts this process must leave a listening socket open there")
        }),
    }
}

/// What a file may have changed of a socket that stays.
fn renew(bind: &Bind, socket: &ListeningSocket, backlog: i32) -> io::Result<()> {
    SockRef::from(socket).listen(backlog)?;
    SockRef::from(socket).set_nonblocking(true)?;
    match socket {
        ListeningSocket::Tcp(_) => tcp_options(bind, &SockRef::from(socket)),
        ListeningSocket::Unix(_) => Ok(()),
    }
}

fn listen_again(socket: UnixListener, backlog: i32) -> io::Result<UnixListener> {
    SockRef::from(&socket).listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn descriptor(number: i32) -> io::Result<ListeningSocket> {
    let socket = ListeningSocket::from_descriptor(crate::host::descriptors::inherited(number)?)?;
    SockRef::from(&socket).set_nonblocking(true)?;
    Ok(socket)
}

fn tcp(bind: &Bind, at: SocketAddr, backlog: i32, way: Way) -> Result<Vec<ListeningSocket>, Box<Problem>> {
    let failed = |error: io::Error| {
        let (what, next) = port_fault(at, &error, &[]).unwrap_or_default();
        Box::new(Problem {
            site: bind.site.clone(),
            what: format!("cannot listen on {at}: {what}"),
            expected: String::new(),
            next,
        })
    };
    // With SO_REUSEPORT the kernel lets several processes of a user listen on one address, and spreads the connections
    // over them: that must not happen by mistake. Without it the address has to be free.
    let mut beside = false;
    if let Err(error) = tcp_socket(bind, at, false) {
        if !(way.beside_old && error.kind() == io::ErrorKind::AddrInUse) {
            return Err(failed(error));
        }
        beside = true;
        way.notices.warning(&format!(
            "{}: the sockets on {at} could not be taken over: connections that wait in the old process may be lost",
            bind.site
        ));
    }
    // Beside another process one is enough: in which order the kernel holds several is not known then (see `exported`).
    let count = if beside { 1 } else { way.sockets.max(1) };
    let reuse_port = way.reuse_port || beside;
    let sockets: io::Result<Vec<Socket>> = (0..count).map(|_| tcp_socket(bind, at, reuse_port)).collect();
    let sockets = sockets.map_err(failed)?;
    for socket in &sockets {
        socket.listen(backlog).map_err(failed)?;
    }
    Ok(sockets.into_iter().map(|socket| ListeningSocket::Tcp(socket.into())).collect())
}

fn tcp_socket(bind: &Bind, at: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let (true, Some(only)) = (at.is_ipv6(), bind.v6only) {
        socket.set_only_v6(only)?;
    }
    if let Some(interface) = &bind.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    tcp_options(bind, &SockRef::from(&socket))?;
    socket.bind(&SockAddr::from(at))?;
    Ok(socket)
}

fn tcp_options(bind: &Bind, socket: &SockRef<'_>) -> io::Result<()> {
    // Answers are small, or sent whole: nothing is gained by waiting for more. Accepted sockets have it too.
    socket.set_tcp_nodelay(true)?;
    if bind.defer_accept {
        listening::set_defer_accept(socket.as_fd(), 1)?;
    }
    if let Some(time) = bind.tcp_user_timeout {
        socket.set_tcp_user_timeout(Some(time))?;
    }
    Ok(())
}

/// Bound under a name of its own, given its owner and mode, and renamed over what was there: at no time is the name
/// without a socket, and nobody connects before the mode is right.
fn unix(bind: &Bind, path: &Path, backlog: i32) -> Result<UnixListener, Box<Problem>> {
    let failed =
        |error: io::Error| fault(bind, &error, "make its directory writable, or choose another path");
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let _ = std::fs::remove_file(&temporary);
    let socket = UnixListener::bind(&temporary).map_err(failed)?;
    let ready = prepare(bind, &temporary)
        .and_then(|()| listen_again(socket, backlog).map_err(|error| error.to_string()))
        .and_then(|socket| match std::fs::rename(&temporary, path) {
            Ok(()) => Ok(socket),
            Err(error) => Err(error.to_string()),
        });
    ready.map_err(|what| {
        let _ = std::fs::remove_file(&temporary);
        failed(io::Error::other(what))
    })
}

fn prepare(bind: &Bind, path: &Path) -> Result<(), String> {
    let uid = bind.unix_user.as_ref().map(identity::user_id).transpose()?;
    let gid = bind.unix_group.as_ref().map(identity::group_id).transpose()?;
    if uid.is_some() || gid.is_some() {
        std::os::unix::fs::chown(path, uid, gid)
            .map_err(|error| format!("cannot change its owner: {error}"))?;
    }
    if let Some(mode) = bind.unix_mode {
        rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            .map_err(|error| format!("cannot change its mode: {error}"))?;
    }
    Ok(())
}

fn fault(bind: &Bind, error: &io::Error, next: &str) -> Box<Problem> {
    Box::new(Problem {
        site: bind.site.clone(),
        what: format!("cannot listen on {}: {error}", Shown(&bind.address)),
        expected: String::new(),
        next: next.to_owned(),
    })
}

/// As it is written in a file.
pub(super) struct Shown<'a>(pub(super) &'a BindAddress);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            BindAddress::Tcp(at) => write!(f, "{at}"),
            BindAddress::Unix(path) => write!(f, "{}", path.display()),
            BindAddress::Abstract(name) => write!(f, "abns@{}", String::from_utf8_lossy(name)),
            BindAddress::Descriptor(number) => write!(f, "fd@{number}"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::proxy::config::model::Identity;
    use crate::settings::Site;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::os::unix::net::UnixStream;

    const ALONE: Way =
        Way { sockets: 2, reuse_port: true, beside_old: false, notices: Notices { quiet: true } };

    pub(in crate::proxy::process) fn bind(address: BindAddress) -> Bind {
        Bind::new(address, Site::At { file: "haproxy.cfg".into(), line: 3, column: 8 })
    }

    /// A port that was free a moment ago.
    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn open(bind: &Bind) -> Result<Vec<ListeningSocket>, Box<Problem>> {
        one(bind, 10, &mut Inherited::default(), ALONE)
    }

    #[test]
    fn an_address_is_listened_on_once_a_thread_and_by_nobody_else() {
        let at = free();
        let sockets = open(&bind(BindAddress::Tcp(at))).unwrap();
        assert_eq!(sockets.len(), 2);
        drop(TcpStream::connect(at).unwrap());
        let problem = open(&bind(BindAddress::Tcp(at))).unwrap_err().to_string();
        let own = format!("haproxy.cfg:3:8: cannot listen on {at}: in use by pid {}", std::process::id());
        assert!(problem.starts_with(&own), "{problem}");
        // A process that is about to go may be joined when its sockets cannot be had.
        let beside = Way { beside_old: true, ..ALONE };
        assert_eq!(one(&bind(BindAddress::Tcp(at)), 10, &mut Inherited::default(), beside).unwrap().len(), 1);
    }

    #[test]
    fn sockets_of_the_process_before_are_taken_all_of_them() {
        let at = free();
        let first = open(&bind(BindAddress::Tcp(at))).unwrap();
        let mut client = TcpStream::connect(at).unwrap();
        client.write_all(b"waiting").unwrap();
        let mut inherited = Inherited::default();
        for socket in first {
            assert!(inherited.add(socket.as_fd().try_clone_to_owned().unwrap()));
        }
        let taken =
            one(&bind(BindAddress::Tcp(at)), 10, &mut inherited, Way { sockets: 1, ..ALONE }).unwrap();
        assert_eq!(taken.len(), 2, "also with fewer threads");
        // The connection that waited is there.
        let accepted = taken.iter().find_map(|socket| match socket {
            ListeningSocket::Tcp(listener) => listener.accept().ok(),
            ListeningSocket::Unix(_) => None,
        });
        let (mut accepted, _) = accepted.expect("the waiting connection");
        let mut text = [0; 7];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"waiting");
    }

    #[test]
    fn a_unix_socket_replaces_the_one_that_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let mut bind = bind(BindAddress::Unix(path.clone()));
        bind.unix_mode = Some(0o600);
        bind.unix_group = Some(Identity::Id(rustix::process::getegid().as_raw()));
        let first = open(&bind).unwrap();
        let second = open(&bind).unwrap();
        let status = std::fs::metadata(&path).unwrap();
        assert!(status.file_type().is_socket());
        assert_eq!(status.mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
        let _client = UnixStream::connect(&path).unwrap();
        let accepts = |sockets: &[ListeningSocket]| match &sockets[0] {
            ListeningSocket::Unix(listener) => listener.accept().is_ok(),
            ListeningSocket::Tcp(_) => false,
        };
        assert!(!accepts(&first) && accepts(&second));
        // And it is found by the name that it was renamed to.
        let mut inherited = Inherited::default();
        for socket in second {
            assert!(inherited.add(socket.as_fd().try_clone_to_owned().unwrap()));
        }
        assert_eq!(inherited.take(&bind).len(), 1);
    }

    #[test]
    fn what_cannot_be_opened_is_told_with_its_place() {
        let told = |address| open(&bind(address)).unwrap_err().to_string();
        let text = told(BindAddress::Unix("/no/such/directory/x".into()));
        assert!(
            text.starts_with("haproxy.cfg:3:8: cannot listen on /no/such/directory/x: No such file"),
            "{text}"
        );
        let text = told(BindAddress::Descriptor(1_000_000));
        assert!(text.contains("cannot listen on fd@1000000: Bad file descriptor"), "{text}");
        let text = told(BindAddress::Tcp(([192, 0, 2, 1], 80).into()));
        assert!(text.contains("192.0.2.1 is not an address of this machine"), "{text}");
    }
}
