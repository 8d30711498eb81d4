//! The process and the machine: boot, clocks, privileges, memory.

use ehpc_proto::replication::Timestamp;
use rustix::thread::CapabilitySet;
use rustix::time::ClockId;
use std::io;

/// What this process may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Privileges {
    /// Effective user.
    pub euid: u32,
    /// Effective capabilities (bit n = capability n).
    pub capabilities: u64,
}

impl Privileges {
    /// May open objects by handle (CAP_DAC_READ_SEARCH).
    pub fn opens_by_handle(&self) -> bool {
        self.has(CapabilitySet::DAC_READ_SEARCH)
    }

    /// May act under other ids: uid 0, which the kernel's setfsuid rules need, with CAP_SETUID and CAP_SETGID.
    pub fn assumes_identities(&self) -> bool {
        self.euid == 0 && self.has(CapabilitySet::SETUID) && self.has(CapabilitySet::SETGID)
    }

    /// May watch a whole file system with fanotify (CAP_SYS_ADMIN).
    pub fn administers(&self) -> bool {
        self.has(CapabilitySet::SYS_ADMIN)
    }

    /// May give files to other owners (CAP_CHOWN).
    pub fn changes_owners(&self) -> bool {
        self.has(CapabilitySet::CHOWN)
    }

    /// May make device nodes (CAP_MKNOD).
    pub fn makes_devices(&self) -> bool {
        self.has(CapabilitySet::MKNOD)
    }

    /// May listen on ports below 1024 (CAP_NET_BIND_SERVICE), where the kernel keeps them for the privileged.
    pub fn binds_low_ports(&self) -> bool {
        self.has(CapabilitySet::NET_BIND_SERVICE)
    }

    fn has(&self, capability: CapabilitySet) -> bool {
        self.capabilities & capability.bits() != 0
    }
}

/// Of the calling thread (threads that assumed a caller's ids have fewer).
pub fn privileges() -> Privileges {
    Privileges {
        euid: rustix::process::geteuid().as_raw(),
        capabilities: rustix::thread::capabilities(None).map_or(0, |sets| sets.effective.bits()),
    }
}

/// The kernel's random identity of this boot.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Wall clock.
pub fn now() -> Timestamp {
    clock(ClockId::Realtime)
}

/// The clock that file timestamps are taken from (a tick behind [`now`] at most).
pub fn coarse_now() -> Timestamp {
    clock(ClockId::RealtimeCoarse)
}

fn clock(id: ClockId) -> Timestamp {
    let time = rustix::time::clock_gettime(id);
    Timestamp { seconds: time.tv_sec, nanos: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// Resident memory of this process, bytes.
pub fn process_memory() -> io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm has no second number"))?;
    Ok(pages.saturating_mul(page_size() as u64))
}

/// Bytes of a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: a plain query.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096)
}

/// Freed memory is kept for the next buffers up to a bound, instead of being given back to the kernel and cleared by it
/// again: buffers of a megabyte come and go all the time. Call it before threads are started.
pub fn keep_freed_memory() {
    const MMAP_FROM: libc::c_int = 4 << 20;
    const KEEP: libc::c_int = 8 << 20;
    const ARENAS: libc::c_int = 4;
    // SAFETY: plain integers; these change the allocator's own bounds. It refuses what it does not take.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEEP);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Modes are exactly what a client asked for: the process's umask is 0 from here on.
pub fn set_umask_zero() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// From here on the calling thread has a working directory and a root of its own: changing them changes no other
/// thread's.
pub fn own_working_directory() -> io::Result<()> {
    // SAFETY: only the sharing of root, working directory and umask ends; memory and descriptors stay shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS) }?)
}

/// Lets this process have as many descriptors as it may; how many that is.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let now = limit.current.unwrap_or(u64::MAX);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => most,
        Err(_) => now,
    }
}

/// Gives memory that is free back to the kernel, from anywhere in the heap.
pub fn trim_memory() {
    // SAFETY: malloc_trim only looks at the allocator's own lists, under its own lock.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The child that this command starts is asked to end (SIGTERM) when the thread that started it ends, at the latest
/// with its process: nothing is left running after a parent that was killed.
pub fn end_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let parent = rustix::process::getpid();
    // SAFETY: between fork and exec the closure only makes two system calls and touches no memory of the parent.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
            // The parent may have gone in the meantime: then nobody sends the signal any more.
            match rustix::process::getppid() {
                Some(now) if now == parent => Ok(()),
                _ => Err(io::Error::from(io::ErrorKind::NotFound)),
            }
        });
    }
}

/// The child that this command starts keeps `file` open under the number that is returned: `/dev/fd/N` names it there.
/// What is in it (a password) then needs no name on a disk and no place among the arguments.
pub fn leave_open(command: &mut std::process::Command, file: std::os::fd::OwnedFd) -> i32 {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let number = file.as_raw_fd();
    // SAFETY: between fork and exec the closure only makes one system call on a descriptor that it owns.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?));
    }
    number
}

/// A file without a name that holds `content`, for this user only; read from its start by whoever opens it.
pub fn nameless_file(name: &str, content: &[u8]) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{MemfdFlags, Mode};
    use std::io::Write;
    let descriptor = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    rustix::fs::fchmod(&descriptor, Mode::RUSR | Mode::WUSR)?;
    let mut file = std::fs::File::from(descriptor);
    file.write_all(content)?;
    Ok(file.into())
}
