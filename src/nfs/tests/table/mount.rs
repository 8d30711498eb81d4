//! MOUNT3's part of the table: mountstat3 as RFC 1813 section 5.1.5 has it, procedure by procedure.

use super::super::hooked::Hooked;
use super::super::{Fixture, options};
use crate::vfs::VfsError;
use ehpc_proto::mount::{MountError, Procedure};
use ehpc_tools::nfs_client::{Client, Error};
use parking_lot::Mutex;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// How MNT comes to an error.
enum Cause {
    Path(&'static str),
    /// As somebody whom the modes do not let in.
    Stranger(&'static str),
    /// The file system's answer, injected.
    Fault(VfsError),
}

/// Every mountstat3. 5.2.1 lists NOENT, IO, ACCES, NOTDIR and NAMETOOLONG for MNT; the others are defined in 5.1.5.
const MNT: &[(MountError, Cause)] = &[
    (MountError::Perm, Cause::Fault(VfsError::Perm)),
    (MountError::NoEnt, Cause::Path("/share/none")),
    (MountError::NoEnt, Cause::Path("/other")),
    (MountError::Io, Cause::Fault(VfsError::Io)),
    (MountError::Io, Cause::Fault(VfsError::Nxio)),
    (MountError::Access, Cause::Path("/share/..")),
    (MountError::Access, Cause::Stranger("/share/private/dir")),
    (MountError::NotDir, Cause::Path("/share/file")),
    (MountError::NotDir, Cause::Path("/share/file/below")),
    (MountError::Inval, Cause::Path("/share/a\0b")),
    (MountError::NameTooLong, Cause::Path(concat!("/share/", include_str!("long_name.txt")))),
    (MountError::NotSupp, Cause::Fault(VfsError::NotSupp)),
    (MountError::ServerFault, Cause::Fault(VfsError::ServerFault)),
];

fn refused(client: &mut Client, path: &str) -> MountError {
    match client.mount(path) {
        Err(Error::Mount { error, .. }) => error,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn mnt_has_every_error_and_takes_nothing_away() {
    let fault: Arc<Mutex<Option<VfsError>>> = Arc::default();
    let armed = Arc::clone(&fault);
    let fixture = Fixture::with(
        options(),
        |_| {},
        |vfs| Hooked::failing(vfs, move |operation| armed.lock().filter(|_| operation == "lookup")),
    );
    fs::create_dir_all(fixture.path("private/dir")).unwrap();
    fs::write(fixture.path("file"), b"").unwrap();
    fs::set_permissions(fixture.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (mut client, root) = fixture.mounted();
    let mut seen = Vec::new();
    for (error, cause) in MNT {
        seen.push(*error as u32);
        match cause {
            Cause::Path(path) => assert_eq!(refused(&mut client, path), *error, "{path}"),
            Cause::Stranger(path) => {
                client.act_as(77_001, 77_001, &[]);
                assert_eq!(refused(&mut client, path), *error, "{path}");
                client.act_as(0, 0, &[]);
                client.mount(path).unwrap();
            }
            Cause::Fault(injected) => {
                *fault.lock() = Some(*injected);
                assert_eq!(refused(&mut client, "/share/private"), *error, "{injected:?}");
                *fault.lock() = None;
            }
        }
        assert_eq!(client.mount("/share").unwrap().data, root.data, "goes on");
    }
    seen.dedup();
    assert_eq!(seen, [1, 2, 5, 13, 20, 22, 63, 10_004, 10_006], "all of mountstat3");
}

/// The others have no errors of their own: they answer, whatever is asked, to whomever.
#[test]
fn the_other_procedures_always_answer() {
    let fixture = Fixture::start();
    let (mut client, _) = fixture.mounted();
    let path = ehpc_proto::xdr::Opaque::<{ ehpc_proto::mount::PATH_MAX }>(b"/never/mounted");
    for _ in 0..2 {
        for procedure in Procedure::ALL {
            match procedure {
                Procedure::Mnt => continue,
                Procedure::Umnt => client.mount_call(procedure, &path),
                _ => client.mount_call(procedure, &()),
            }
            .map(|answer| assert_eq!(answer.reply, ehpc_proto::rpc::Reply::Success, "{procedure:?}"))
            .unwrap();
        }
        client.act_as_nobody();
    }
}
