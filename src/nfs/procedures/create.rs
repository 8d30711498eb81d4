//! CREATE, MKDIR, SYMLINK, MKNOD.

use super::super::convert;
use super::super::names::Purpose;
use super::Context;
use crate::vfs::CreateHow;
use ehpc_proto::nfs3::arguments::{self, NodeKind};
use ehpc_proto::nfs3::{MAX_PATH, nfsstat3, results, sattr3, specdata3};
use ehpc_proto::replication::Kind;

impl Context<'_> {
    pub(super) fn create(&self, args: &arguments::Create<'_>) -> results::Created {
        let dir = self.place(&args.place, Purpose::Create)?;
        let set = |attributes: &sattr3| {
            convert::set_attributes(attributes).map_err(|status| (status, self.untouched(&dir)))
        };
        let how = match &args.how {
            arguments::CreateHow::Unchecked(attributes) => CreateHow::Unchecked(set(attributes)?),
            arguments::CreateHow::Guarded(attributes) => CreateHow::Guarded(set(attributes)?),
            arguments::CreateHow::Exclusive(verifier) => CreateHow::Exclusive(*verifier),
        };
        self.created(self.vfs.create(self.caller, &dir, args.place.name.0, how), &dir)
    }

    pub(super) fn mkdir(&self, args: &arguments::Mkdir<'_>) -> results::Created {
        let dir = self.place(&args.place, Purpose::Create)?;
        let set =
            convert::set_attributes(&args.attributes).map_err(|status| (status, self.untouched(&dir)))?;
        self.created(self.vfs.mkdir(self.caller, &dir, args.place.name.0, &set), &dir)
    }

    pub(super) fn symlink(&self, args: &arguments::Symlink<'_>) -> results::Created {
        let dir = self.place(&args.place, Purpose::Create)?;
        let target = args.target.0;
        let refused = |status| (status, self.untouched(&dir));
        if target.len() >= MAX_PATH {
            return Err(refused(nfsstat3::NFS3ERR_NAMETOOLONG));
        }
        if target.is_empty() || target.contains(&0) {
            return Err(refused(nfsstat3::NFS3ERR_INVAL));
        }
        let set = convert::set_attributes(&args.attributes).map_err(refused)?;
        self.created(self.vfs.symlink(self.caller, &dir, args.place.name.0, target, &set), &dir)
    }

    pub(super) fn mknod(&self, args: &arguments::Mknod<'_>) -> results::Created {
        let dir = self.place(&args.place, Purpose::Create)?;
        let none = specdata3::default();
        let (kind, attributes, device) = match &args.what {
            NodeKind::Device { block: true, attributes, device } => (Kind::BlockDevice, attributes, device),
            NodeKind::Device { block: false, attributes, device } => (Kind::CharDevice, attributes, device),
            NodeKind::Special { socket: true, attributes } => (Kind::Socket, attributes, &none),
            NodeKind::Special { socket: false, attributes } => (Kind::Fifo, attributes, &none),
            NodeKind::Other(_) => return Err((nfsstat3::NFS3ERR_BADTYPE, self.untouched(&dir))),
        };
        let set = convert::set_attributes(attributes).map_err(|status| (status, self.untouched(&dir)))?;
        let device = (device.specdata1, device.specdata2);
        self.created(self.vfs.mknod(self.caller, &dir, args.place.name.0, kind, device, &set), &dir)
    }
}
