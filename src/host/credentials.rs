//! The calling thread's file-system identity.
//!
//! Raw system calls: glibc's wrappers for setgroups change every thread of the process. Each thread
//! remembers what it last set and asks the kernel only for what differs. A thread that has assumed a
//! caller's identity must not start threads (they inherit it) nor touch files of ours before [`resume`].
//!
//! setfsuid from 0 to another user takes the file-system capabilities (CAP_CHOWN, CAP_DAC_*, CAP_FOWNER,
//! CAP_FSETID, CAP_MKNOD, CAP_LINUX_IMMUTABLE, CAP_MAC_OVERRIDE) out of the effective set, and back to 0
//! restores them. CAP_SYS_RESOURCE (quota and reserved blocks) is not among them and is dropped for good
//! from a thread that assumes an identity.

use rustix::fs::{Gid, Uid};
use rustix::thread::CapabilitySet;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::io;
use std::sync::OnceLock;

/// Ids under which the kernel decides about files.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: SmallVec<[u32; 16]>,
}

thread_local! {
    /// What this thread last set; `None` = unknown (it may have inherited another thread's).
    static CURRENT: RefCell<Option<Ids>> = const { RefCell::new(None) };
}

/// The process's own ids, as they were at the first call (make it before any thread assumes others).
pub fn own() -> &'static Ids {
    static OWN: OnceLock<Ids> = OnceLock::new();
    OWN.get_or_init(|| Ids {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: rustix::process::getgroups().unwrap_or_default().iter().map(|gid| gid.as_raw()).collect(),
    })
}

/// File operations of this thread are done as `ids` from here on. On an error the thread's identity is
/// unknown: it must do no file operation before a call succeeds.
pub fn assume(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    CURRENT.with_borrow_mut(|current| {
        if let Some(ids) = current {
            if ids.uid == uid && ids.gid == gid && ids.groups.as_slice() == groups {
                return Ok(());
            }
        } else {
            drop_resource_override()?;
        }
        let before = current.take();
        if before.as_ref().is_none_or(|ids| ids.groups.as_slice() != groups) {
            set_groups(groups)?;
        }
        if before.as_ref().is_none_or(|ids| ids.gid != gid) {
            set_fs_id(libc::SYS_setfsgid, gid)?;
        }
        if before.as_ref().is_none_or(|ids| ids.uid != uid) {
            set_fs_id(libc::SYS_setfsuid, uid)?;
        }
        *current = Some(Ids { uid, gid, groups: SmallVec::from_slice(groups) });
        Ok(())
    })
}

/// Back to the process's own ids.
pub fn resume() -> io::Result<()> {
    let own = own();
    if own.uid != 0 {
        return Ok(()); // only root ever changes them
    }
    assume(own.uid, own.gid, &own.groups)
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    if groups.contains(&u32::MAX) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let groups: SmallVec<[Gid; 16]> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// setfsuid and setfsgid report no error: the second call tells what is in force now.
fn set_fs_id(call: libc::c_long, id: u32) -> io::Result<()> {
    // 0xFFFFFFFF means "only tell me": taken as an id it would leave the last caller's in force.
    if id == u32::MAX {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: plain integers; these calls change the calling thread only.
    let now = unsafe {
        libc::syscall(call, libc::c_ulong::from(id));
        libc::syscall(call, libc::c_ulong::from(u32::MAX))
    };
    if now as u32 == id { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

fn drop_resource_override() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    if sets.effective.contains(CapabilitySet::SYS_RESOURCE) {
        sets.effective.remove(CapabilitySet::SYS_RESOURCE);
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}

/// A user id for the system calls; `None` leaves it.
pub(crate) fn uid(raw: Option<u32>) -> Option<Uid> {
    raw.filter(|&id| id != u32::MAX).map(Uid::from_raw)
}

/// A group id for the system calls; `None` leaves it.
pub(crate) fn gid(raw: Option<u32>) -> Option<Gid> {
    raw.filter(|&id| id != u32::MAX).map(Gid::from_raw)
}
