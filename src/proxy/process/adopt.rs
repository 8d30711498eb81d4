//! Takes the listening sockets out of running processes by their numbers (pidfd_getfd(2)), when those do not hand them
//! over: this is how a HAProxy that was never prepared for it is replaced without losing a connection.

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// Most processes looked at, starting with one.
const MOST_PROCESSES: usize = 1_000;

/// A process and its descendants: a HAProxy master holds no listening socket itself, its workers do.
pub(super) fn family(pid: i32) -> Vec<i32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        next += 1;
        for child in children(member) {
            if family.len() < MOST_PROCESSES && !family.contains(&child) {
                family.push(child);
            }
        }
    }
    family
}

fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    tasks
        .flat_map(|task| of_task(task).split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// Copies of all sockets of one process that are in this network namespace. An error: it is gone, or this user may
/// not (it needs root, or the same user and a process that lets itself be traced).
pub(super) fn sockets_of(pid: i32) -> io::Result<Vec<OwnedFd>> {
    let id = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    let process = rustix::process::pidfd_open(id, PidfdFlags::empty())?;
    // Another namespace's port 80 is not this one's.
    let namespace =
        |of: &str| fs::metadata(format!("/proc/{of}/ns/net")).map(|status| (status.dev(), status.ino()));
    if namespace(&pid.to_string())? != namespace("self")? {
        return Err(io::Error::other("it is in another network namespace"));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let (true, Some(number)) = (is_socket, number) else { continue };
        match rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            Ok(socket) => found.push(socket),
            // It closed it meanwhile.
            Err(rustix::io::Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::model::BindAddress;
    use crate::proxy::process::inherited::Inherited;
    use crate::proxy::process::open::tests::bind;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn a_listening_socket_is_taken_out_of_a_child_of_the_named_process() {
        let script = "import socket,sys\ns=socket.socket()\ns.bind(('127.0.0.1',0))\ns.listen(5)\n\
                      print(s.getsockname()[1],flush=True)\nsys.stdin.read()";
        // `sh` gives background jobs an empty input; descriptor 3 is the real one.
        let mut parent = Command::new("sh")
            .args(["-c", "exec 3<&0; python3 -c \"$0\" <&3 & wait", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let at = ([127, 0, 0, 1], port.trim().parse::<u16>().unwrap()).into();
        let pid = i32::try_from(parent.id()).unwrap();
        assert!(sockets_of(pid).unwrap().is_empty(), "the shell has none");
        let mut inherited = Inherited::default();
        for member in family(pid) {
            for socket in sockets_of(member).unwrap() {
                inherited.add(socket);
            }
        }
        drop(parent.stdin.take());
        parent.wait().unwrap();
        // It has ended; the address lives on in this process.
        let client = std::net::TcpStream::connect(at).unwrap();
        assert_eq!(inherited.take(&bind(BindAddress::Tcp(at))).len(), 1);
        drop(client);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(sockets_of(i32::try_from(child.id()).unwrap()).is_err());
        assert!(sockets_of(0).is_err());
    }
}
