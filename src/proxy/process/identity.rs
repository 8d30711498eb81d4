//! Who this process is once it runs: chroot, group, user (3.1 `chroot`, `user`, `group`).

use crate::host::name_service;
use crate::proxy::config::model::Identity;
use rustix::fs::{Gid, Uid};
use std::io;
use std::path::{Path, PathBuf};

/// Numbers, found before chroot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Who {
    pub(super) chroot: Option<PathBuf>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// Why a user or group is not known.
pub(super) fn user_id(user: &Identity) -> Result<u32, String> {
    match user {
        Identity::Id(id) => Ok(*id),
        Identity::Name(name) => known(name_service::user_by_name(name), "user", name),
    }
}

/// The same of a group.
pub(super) fn group_id(group: &Identity) -> Result<u32, String> {
    match group {
        Identity::Id(id) => Ok(*id),
        Identity::Name(name) => known(name_service::group_by_name(name), "group", name),
    }
}

fn known(found: io::Result<Option<u32>>, what: &str, name: &str) -> Result<u32, String> {
    match found {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(format!("cannot find {what} `{name}` on this machine")),
        Err(error) => Err(format!("cannot look up {what} `{name}`: {error}")),
    }
}

impl Who {
    /// Takes the identity on. Only while the process has one thread.
    pub(super) fn assume(&self) -> Result<(), String> {
        if let Some(root) = &self.chroot {
            change_root(root).map_err(|error| {
                format!("cannot chroot to {}: {error} (it needs root, and a directory)", root.display())
            })?;
        }
        if let Some(gid) = self.gid {
            let gid = checked(gid, "group")?;
            // As HAProxy: only who is root has other groups to lose; others keep what they have.
            if rustix::process::getuid().is_root() {
                rustix::thread::set_thread_groups(&[])
                    .map_err(|error| format!("cannot drop groups: {error}"))?;
            }
            let gid = Gid::from_raw(gid);
            rustix::thread::set_thread_res_gid(gid, gid, gid)
                .map_err(|error| format!("cannot become group {}: {error} (it needs root)", gid.as_raw()))?;
        }
        if let Some(uid) = self.uid {
            let uid = Uid::from_raw(checked(uid, "user")?);
            rustix::thread::set_thread_res_uid(uid, uid, uid)
                .map_err(|error| format!("cannot become user {}: {error} (it needs root)", uid.as_raw()))?;
        }
        Ok(())
    }
}

fn change_root(root: &Path) -> io::Result<()> {
    rustix::process::chroot(root)?;
    Ok(rustix::process::chdir("/")?)
}

/// The kernel takes the highest number for "leave it".
fn checked(id: u32, what: &str) -> Result<u32, String> {
    if id == u32::MAX { Err(format!("{id} is no {what}")) } else { Ok(id) }
}
