//! The procedure table: all 22 procedures, MOUNT and NLM, each with its success and each of its error statuses, over
//! the wire and on a real file system wherever a real cause exists. (portmap and rpcbind have no statuses.)

mod cause;
mod listed;
mod locks;
mod mount;
mod world;

use super::wire::{Outcome, Rest, ask, view};
use crate::vfs::VfsError;
pub(super) use cause::Cause;
use cause::{BEYOND, cause};
use ehpc_proto::nfs3::{Procedure, StableHow, fattr3, nfsstat3};
use ehpc_tools::nfs_client::Handle;
use listed::LISTED;
pub(super) use listed::WORDS;
use std::collections::BTreeSet;
pub(super) use world::World;

/// Attributes now, as root; `None` for a handle that leads nowhere.
fn attributes_now(world: &mut World, handle: &Handle) -> Option<fattr3> {
    world.onlooker.getattr(handle).ok()
}

/// Runs one row: the status, and every attribute in the reply against what GETATTR says before and after.
fn run(procedure: Procedure, expected: nfsstat3, cause: &Cause) {
    let what = format!("{procedure:?} {expected:?} by {cause:?}");
    let mut world = World::new(cause);
    for call in world.calls(procedure, cause) {
        let before: Vec<_> = call.handles.iter().map(|handle| attributes_now(&mut world, handle)).collect();
        world.arm(procedure, cause);
        let outcome = ask(&mut world.client, &call);
        world.disarm();
        assert_eq!(outcome.status, expected as u32, "{what}");
        let blind = matches!(cause, Cause::Fault(..)) && world::operation(procedure) == "getattr";
        if !blind {
            check_attributes(&mut world, &what, &call.handles, &before, &outcome);
        }
    }
}

/// Attributes are there whenever the object is, no older than the operation, and "before" is what was before.
fn check_attributes(
    world: &mut World,
    what: &str,
    handles: &[Handle],
    before: &[Option<fattr3>],
    outcome: &Outcome,
) {
    let succeeded = outcome.status == 0;
    // A returned object comes first in the reply; it had no "before".
    let returned = outcome.object.iter().map(|handle| (handle.clone(), None));
    let given = handles.iter().cloned().zip(before.iter().map(Some));
    let objects: Vec<_> = returned.chain(given).collect();
    if outcome.seen.is_empty() {
        return; // GETATTR's failure and NULL carry none
    }
    assert_eq!(outcome.seen.len(), objects.len(), "{what}: attributes of every object");
    for (seen, (handle, before)) in outcome.seen.iter().zip(objects) {
        let now = attributes_now(world, &handle);
        assert_eq!(seen.after.as_ref().map(view), now.as_ref().map(view), "{what}: after");
        let Some(Some(was)) = before else { continue };
        if let Some(told) = seen.before {
            let time = |time: ehpc_proto::nfs3::nfstime3| (time.seconds, time.nseconds);
            assert_eq!(
                (told.size, time(told.mtime), time(told.ctime)),
                (was.size, time(was.mtime), time(was.ctime)),
                "{what}: before"
            );
        }
        // A write that finds no block has set the times already, which the attributes tell.
        let no_block = outcome.status == nfsstat3::NFS3ERR_NOSPC as u32;
        if !succeeded && !no_block {
            assert_eq!(now.as_ref().map(view), Some(view(was)), "{what}: a failure changed nothing");
        }
    }
}

/// Procedures whose success must bring "before" along: without it a client throws its cache away.
fn has_before(procedure: Procedure) -> bool {
    procedure.is_replayed() || procedure == Procedure::Commit
}

#[test]
fn every_procedure_succeeds_with_fresh_attributes() {
    assert_eq!(LISTED.len(), Procedure::ALL.len());
    for procedure in Procedure::ALL {
        run(procedure, nfsstat3::NFS3_OK, &Cause::Plain);
        let mut world = World::new(&Cause::Plain);
        let call = world.calls(procedure, &Cause::Plain).remove(0);
        let outcome = ask(&mut world.client, &call);
        let wcc = outcome.seen.iter().any(|seen| seen.before.is_some());
        assert_eq!(wcc, has_before(procedure), "{procedure:?}: wcc_data");
        check_rest(&mut world, procedure, outcome);
    }
}

/// What a successful reply holds besides attributes.
fn check_rest(world: &mut World, procedure: Procedure, outcome: Outcome) {
    match (procedure, outcome.rest) {
        (Procedure::Access, Rest::Access(granted)) => {
            assert_eq!(granted, 0x0d, "a file of mode 644, as root")
        }
        (Procedure::Readlink, Rest::Target(target)) => assert_eq!(target, b"target"),
        (Procedure::Read, Rest::Data { data, eof }) => assert_eq!((&data[..], eof), (&b"hello"[..], true)),
        (Procedure::Write, Rest::Written { count, committed, verifier }) => {
            assert_eq!((count, committed), (4096, StableHow::FileSync));
            assert_eq!(verifier, world.onlooker.commit(&world.file).unwrap());
        }
        (Procedure::Commit, Rest::Verifier(verifier)) => {
            assert_eq!(verifier, world.onlooker.commit(&world.file).unwrap());
        }
        (Procedure::Readdir | Procedure::Readdirplus, Rest::Listing { entries, eof }) => {
            assert!(eof);
            assert_eq!(entries.len(), 10, "with . and ..");
            for entry in entries.iter().filter(|entry| !entry.name.starts_with(b".")) {
                let (handle, _) = world.onlooker.lookup(&world.dir, &entry.name).unwrap();
                let now = world.onlooker.getattr(&handle).unwrap();
                assert_eq!(entry.fileid, now.fileid);
                let plus = procedure == Procedure::Readdirplus;
                assert_eq!(entry.handle.as_ref().map(|handle| &handle.data), plus.then_some(&handle.data));
                assert_eq!(entry.attributes.as_ref().map(view), plus.then(|| view(&now)));
            }
            let cookies: BTreeSet<u64> = entries.iter().map(|entry| entry.cookie).collect();
            assert_eq!(cookies.len(), entries.len());
        }
        (Procedure::Fsstat, Rest::Stat(stat)) => assert!(stat.available_bytes <= stat.total_bytes),
        (Procedure::Fsinfo, Rest::Info(info)) => assert_eq!((info.rtmax, info.wtmax), (1 << 20, 1 << 20)),
        (Procedure::Pathconf, Rest::Conf(conf)) => assert_eq!(conf.name_max, 255),
        (_, Rest::Nothing) => {}
        (procedure, _) => panic!("{procedure:?}: another procedure's result"),
    }
}

#[test]
fn every_listed_status_is_provoked_or_explained() {
    for (procedure, statuses) in LISTED {
        for status in *statuses {
            match cause(*procedure, *status) {
                Some(Cause::Never(why)) => assert!(why.len() > 20, "{procedure:?} {status:?}: a real reason"),
                Some(cause) => {
                    if let Cause::Fault(_, why) = cause {
                        assert!(why.len() > 20, "{procedure:?} {status:?}: a real reason");
                    }
                    run(*procedure, *status, &cause);
                }
                None => panic!("{procedure:?} {status:?}: listed by RFC 1813, without a row in the table"),
            }
        }
    }
}

/// Statuses that the RFC does not list for a procedure and that are given all the same, each with its reason.
#[test]
fn what_is_answered_beyond_the_lists_is_named() {
    for (procedure, status, cause, why) in BEYOND {
        let (_, listed) = LISTED.iter().find(|(listed, _)| listed == procedure).unwrap();
        assert!(
            !listed.iter().any(|one| *one as u32 == *status as u32),
            "{procedure:?} {status:?} is listed"
        );
        assert!(why.len() > 20, "{procedure:?} {status:?}: a real reason");
        run(*procedure, *status, cause);
    }
}

/// Whatever the file system says comes out as the protocol's word for it, in a reply that can be read, with
/// attributes: JUKEBOX, which no list has, included.
#[test]
fn every_word_of_the_file_system_reaches_the_client() {
    for procedure in Procedure::ALL.into_iter().skip(1) {
        let mut world = World::new(&Cause::Plain);
        for (error, status) in WORDS {
            let cause = Cause::Fault(*error, "");
            let call = world.calls(procedure, &Cause::Plain).remove(0);
            world.arm(procedure, &cause);
            let outcome = ask(&mut world.client, &call);
            world.disarm();
            let special = (world::takes_regular_files(procedure) && *error == VfsError::IsDir)
                .then_some(nfsstat3::NFS3ERR_INVAL);
            let expected = special.unwrap_or(*status);
            assert_eq!(outcome.status, expected as u32, "{procedure:?} {error:?}");
            let blind = world::operation(procedure) == "getattr" || outcome.seen.is_empty();
            assert!(blind || outcome.seen.iter().all(|seen| seen.after.is_some()), "{procedure:?} {error:?}");
        }
    }
}
