//! GETATTR, SETATTR, ACCESS.

use super::super::convert;
use super::Context;
use ehpc_proto::nfs3::{access, arguments, nfs_fh3, results};

impl Context<'_> {
    pub(super) fn getattr(&self, object: &nfs_fh3) -> results::Getattr {
        let object = self.object(object).map_err(|status| (status, ()))?;
        match self.vfs.getattr(self.caller, &object) {
            Ok(attributes) => Ok(convert::attributes(&attributes)),
            Err(error) => Err((convert::status(error), ())),
        }
    }

    pub(super) fn setattr(&self, args: &arguments::Setattr) -> results::Changed {
        let object = self.changeable(&args.object)?;
        let invalid = |status| (status, self.untouched(&object));
        let set = convert::set_attributes(&args.attributes).map_err(invalid)?;
        let guard = convert::guard(args.guard).map_err(invalid)?;
        let done = self.vfs.setattr(self.caller, &object, &set, guard);
        let wcc = self.wcc(&done.wcc, &object);
        match done.result {
            Ok(()) => Ok(wcc),
            Err(error) => Err((convert::content_status(error), wcc)),
        }
    }

    pub(super) fn access(&self, args: &arguments::Access) -> results::Access {
        let object = self.object_or_void(&args.object)?;
        let mut wanted = args.access & access::ALL;
        if self.grant.read_only {
            wanted &= !(access::MODIFY | access::EXTEND | access::DELETE);
        }
        match self.vfs.access(self.caller, &object, wanted) {
            Ok((granted, attributes)) => {
                Ok(results::AccessOk { attributes: convert::post_op(attributes), access: granted & wanted })
            }
            Err(error) => Err((convert::status(error), self.post_op(&object))),
        }
    }
}
