//! Owner, extended attributes, mode, times of an object, in the order in which the later ones are not undone by
//! the earlier: chown clears set-id bits and capabilities, an ACL changes the mode, everything may change times.

use super::MirrorNotes;
use super::disk::{Disk, Stat, Target};
use ehpc_proto::replication::{Kind, ObjectState, Xattr};
use rustix::io::Errno;
use std::borrow::Cow;
use std::io;

/// The extended attributes that an inode has before.
pub(super) enum Before<'a> {
    /// These.
    Known(&'a [Xattr]),
    /// To be asked for.
    Ask,
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Sets what differs; `now` is the inode as it is. What may not be set is counted in `notes`.
pub(super) fn set(
    disk: &mut Disk,
    notes: &mut MirrorNotes,
    target: Target<'_>,
    state: &ObjectState,
    now: &Stat,
    before: &Before<'_>,
) -> io::Result<()> {
    let owned = set_owner(disk, notes, target, state, now)?;
    let before = match before {
        Before::Known(xattrs) => Cow::Borrowed(*xattrs),
        Before::Ask => Cow::Owned(target.xattrs()?),
    };
    let mut mode_now = if owned { None } else { Some(now.mode) };
    if *before != state.xattrs {
        set_xattrs(disk, notes, target, state, &before, &mut mode_now, now.mode)?;
    }
    if state.kind != Kind::Symlink && mode_now != Some(state.mode) {
        match disk.chmod(target, state.mode) {
            Err(error) if is(&error, Errno::PERM) => notes.modes += 1,
            result => result?,
        }
    }
    disk.set_mtime(target, state.mtime)
}

/// True if a chown was done, so that the mode must be set anew.
fn set_owner(
    disk: &mut Disk,
    notes: &mut MirrorNotes,
    target: Target<'_>,
    state: &ObjectState,
    now: &Stat,
) -> io::Result<bool> {
    let uid = (now.uid != state.uid).then_some(state.uid);
    let gid = (now.gid != state.gid).then_some(state.gid);
    if uid.is_none() && gid.is_none() {
        return Ok(false);
    }
    let refused = |error: &io::Error| is(error, Errno::PERM) || is(error, Errno::INVAL);
    match disk.chown(target, uid, gid) {
        Ok(()) => return Ok(true),
        Err(error) if refused(&error) => notes.owners += 1,
        Err(error) => return Err(error),
    }
    if uid.is_some() && gid.is_some() {
        // Not root: a group of one's own may still be set.
        match disk.chown(target, None, gid) {
            Ok(()) => return Ok(true),
            Err(error) if refused(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn set_xattrs(
    disk: &mut Disk,
    notes: &mut MirrorNotes,
    target: Target<'_>,
    state: &ObjectState,
    before: &[Xattr],
    mode_now: &mut Option<u16>,
    mode_before: u16,
) -> io::Result<()> {
    let mut opened_up = false;
    let mut change = |disk: &mut Disk, notes: &mut MirrorNotes, name: &[u8], value: Option<&[u8]>| {
        let act = |disk: &mut Disk| match value {
            Some(value) => disk.set_xattr(target, name, value),
            None => disk.remove_xattr(target, name),
        };
        let mut result = act(disk);
        let refused = result.as_ref().is_err_and(|error| is(error, Errno::ACCESS));
        if refused && !opened_up && state.kind != Kind::Symlink {
            // Not root, and the mode forbids even the owner: open it up, the mode is set again below.
            disk.chmod(target, mode_before | 0o600)?;
            opened_up = true;
            result = act(disk);
        }
        keep_going(result, notes)
    };
    for xattr in &state.xattrs {
        if !before.contains(xattr) {
            *mode_now = None; // an ACL changes it
            change(disk, notes, &xattr.name, Some(&xattr.value))?;
        }
    }
    for gone in before {
        if state.xattrs.binary_search_by(|kept| kept.name.cmp(&gone.name)).is_err() {
            *mode_now = None;
            change(disk, notes, &gone.name, None)?;
        }
    }
    Ok(())
}

/// What the file system or our privileges do not allow is noted; anything else is an error.
fn keep_going(result: io::Result<()>, notes: &mut MirrorNotes) -> io::Result<()> {
    match result {
        Ok(()) => Ok(()),
        Err(error) => {
            // NOSPC: the attribute does not fit beside the others of its inode (a limit of the file system).
            let refused =
                [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSPC, Errno::TOOBIG];
            if refused.iter().any(|errno| is(&error, *errno)) || is(&error, Errno::RANGE) {
                notes.attributes += 1;
                Ok(())
            } else {
                Err(error)
            }
        }
    }
}
