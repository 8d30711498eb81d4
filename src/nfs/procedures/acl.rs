//! NFSACL: GETACL and SETACL, answered as linux/fs/nfsd/nfs3acl.c does.
//!
//! One thing is done better: SETACL changes only the lists that its mask names, where Linux removes the other.

use super::super::convert;
use super::{Context, Outcome, answer, changed};
use crate::vfs::SetAcls;
use ehpc_proto::codec::{DecodeError, Decoder, Encoder};
use ehpc_proto::nfs3::{nfs_fh3, nfsstat3, post_op_attr};
use ehpc_proto::nfsacl::{Getacl, GetaclArgs, GetaclOk, List, Procedure, SecAttr, Setacl, SetaclArgs, mask};
use ehpc_proto::posix_acl::Acl;
use ehpc_proto::xdr::Decode;

impl Context<'_> {
    /// Does `procedure` of NFSACL: reads its arguments, writes its result.
    pub(super) fn run_acl(
        &self,
        procedure: Procedure,
        input: &mut Decoder<'_>,
        out: &mut Encoder,
    ) -> Result<Outcome, DecodeError> {
        if !self.grant.acl && procedure != Procedure::Null {
            // no_acl: the client then shows and sets modes alone.
            let object: nfs_fh3 = Decode::decode(input)?;
            let failure = match self.object_or_void(&object) {
                Ok(object) => (nfsstat3::NFS3ERR_NOTSUPP, self.post_op(&object)),
                Err(failure) => failure,
            };
            return Ok(answer::<(), _>(Err(failure), out));
        }
        Ok(match procedure {
            Procedure::Null => Outcome::default(),
            Procedure::Getacl => answer(self.getacl(&Decode::decode(input)?), out),
            Procedure::Setacl => changed(self.setacl(&Decode::decode(input)?), out),
        })
    }

    fn getacl(&self, args: &GetaclArgs) -> Getacl {
        let object = self.object_or_void(&args.object)?;
        if args.mask & !mask::ALL != 0 {
            return Err((nfsstat3::NFS3ERR_INVAL, self.post_op(&object)));
        }
        let (acls, attributes) = self
            .vfs
            .acls(self.caller, &object)
            .map_err(|error| (convert::status(error), self.post_op(&object)))?;
        let owner = (attributes.uid, attributes.gid);
        let attributes_now = convert::post_op(Some(attributes));
        let list = |acl: Option<&Acl>, default, entries| {
            // More than can travel: what the kernel answers in this case.
            let too_long = (nfsstat3::NFS3ERR_INVAL, attributes_now);
            List::from_posix(acl, owner, default, args.mask & entries != 0).ok_or(too_long)
        };
        let mut told = SecAttr { mask: args.mask, access: List::default(), default: List::default() };
        if args.mask & (mask::ACL | mask::ACL_COUNT) != 0 {
            let access = acls.access.unwrap_or_else(|| Acl::from_mode(attributes.mode));
            told.access = list(Some(&access), false, mask::ACL)?;
        }
        if args.mask & (mask::DEFAULT | mask::DEFAULT_COUNT) != 0 {
            told.default = list(acls.default.as_ref(), true, mask::DEFAULT)?;
        }
        Ok(GetaclOk { attributes: attributes_now, acls: told })
    }

    fn setacl(&self, args: &SetaclArgs) -> Setacl {
        let object = self.changeable(&args.object).map_err(|(status, wcc)| (status, wcc.after))?;
        let invalid = || (nfsstat3::NFS3ERR_INVAL, self.post_op(&object));
        if args.acls.mask & !mask::ALL != 0 {
            return Err(invalid());
        }
        let named = |bit: u32, list: &List| -> Result<Option<Acl>, (nfsstat3, post_op_attr)> {
            let wanted = args.acls.mask & bit != 0;
            wanted.then(|| list.to_posix()).transpose().map_err(|_| invalid())
        };
        let set = SetAcls {
            access: named(mask::ACL, &args.acls.access)?,
            default: named(mask::DEFAULT, &args.acls.default)?,
        };
        let done = self.vfs.set_acls(self.caller, &object, &set);
        let after = done.wcc.after.map_or_else(|| self.post_op(&object), |now| convert::post_op(Some(now)));
        match done.result {
            Ok(()) => Ok(after),
            Err(error) => Err((convert::status(error), after)),
        }
    }
}
