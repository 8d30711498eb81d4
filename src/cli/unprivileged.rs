//! What a server that is not root cannot do: said at its start and in `status`.

use crate::host::Privileges;

/// One line for each loss; empty for root. `watch_why`: why the better watcher could not be had.
pub(super) fn notes(privileges: Privileges, watch_why: Option<&str>) -> Vec<String> {
    let mut notes = Vec::new();
    if !privileges.changes_owners() {
        notes.push(
            "not root: everything that clients make belongs to the server's own user, and giving files away is refused"
                .to_owned(),
        );
    }
    if !privileges.makes_devices() {
        notes.push("not root: clients cannot make device nodes".to_owned());
    }
    if !privileges.binds_low_ports() {
        notes.push(
            "not root: ports below 1024 (portmap, 111) cannot be served: clients say port= and mountport="
                .to_owned(),
        );
    }
    if let Some(why) = watch_why.filter(|_| !privileges.administers()) {
        notes
            .push(format!("not root: no fanotify, local changes are watched directory by directory ({why})"));
    }
    notes
}
