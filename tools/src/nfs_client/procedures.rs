//! The procedures, one call each: arguments in, the useful part of the result out.

use super::{Client, DirectoryEntry, Error, Handle, ReadData, mode, place};
use ehpc_proto::nfs3::{
    MAX_IO, Procedure, StableHow, arguments, directory, fattr3, fsinfo3, nfsstat3, post_op_attr, post_op_fh3,
    results, sattr3,
};
use ehpc_proto::xdr::Opaque;

impl Client {
    /// NULL.
    pub fn null(&mut self) -> Result<(), Error> {
        self.nfs(Procedure::Null, &())?.result()
    }

    /// GETATTR.
    pub fn getattr(&mut self, object: &Handle) -> Result<fattr3, Error> {
        self.nfs(Procedure::Getattr, object)?.result::<results::Getattr>()?.map_err(fail("getattr"))
    }

    /// SETATTR without a guard.
    pub fn setattr(&mut self, object: &Handle, attributes: sattr3) -> Result<(), Error> {
        let args = arguments::Setattr { object: object.clone(), attributes, guard: None };
        self.nfs(Procedure::Setattr, &args)?
            .result::<results::Changed>()?
            .map(|_| ())
            .map_err(fail("setattr"))
    }

    /// LOOKUP: handle and attributes.
    pub fn lookup(&mut self, dir: &Handle, name: &[u8]) -> Result<(Handle, post_op_attr), Error> {
        self.nfs(Procedure::Lookup, &place(dir, name))?
            .result::<results::Lookup>()?
            .map(|ok| (ok.object, ok.attributes))
            .map_err(fail("lookup"))
    }

    /// ACCESS: the bits granted.
    pub fn access(&mut self, object: &Handle, access: u32) -> Result<u32, Error> {
        self.nfs(Procedure::Access, &arguments::Access { object: object.clone(), access })?
            .result::<results::Access>()?
            .map(|ok| ok.access)
            .map_err(fail("access"))
    }

    /// READLINK.
    pub fn readlink(&mut self, object: &Handle) -> Result<Vec<u8>, Error> {
        self.nfs(Procedure::Readlink, object)?
            .result::<results::Readlink<'_>>()?
            .map(|ok| ok.target.0.to_vec())
            .map_err(fail("readlink"))
    }

    /// READ.
    pub fn read(&mut self, file: &Handle, offset: u64, count: u32) -> Result<ReadData, Error> {
        let answer = self.nfs(Procedure::Read, &arguments::Read { file: file.clone(), offset, count })?;
        let ok = answer.result::<results::Read<'_>>()?.map_err(fail("read"))?;
        Ok(ReadData { attributes: ok.attributes, data: ok.data.0.to_vec(), eof: ok.eof })
    }

    /// READ until the end of the file.
    pub fn read_all(&mut self, file: &Handle) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        loop {
            let part = self.read(file, all.len() as u64, MAX_IO as u32)?;
            all.extend_from_slice(&part.data);
            if part.eof {
                return Ok(all);
            }
        }
    }

    /// WRITE (UNSTABLE) of everything, in pieces of at most 1 MiB.
    pub fn write(&mut self, file: &Handle, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut done = 0;
        while done < data.len() {
            let piece = &data[done..data.len().min(done + MAX_IO)];
            let ok = self.write_stable(file, offset + done as u64, piece, StableHow::Unstable)?;
            if ok.count == 0 {
                return Err(Error::Missing { procedure: "write", what: "progress" });
            }
            done += ok.count as usize;
        }
        Ok(())
    }

    /// One WRITE.
    pub fn write_stable(
        &mut self,
        file: &Handle,
        offset: u64,
        data: &[u8],
        stable: StableHow,
    ) -> Result<results::WriteOk, Error> {
        let count = data.len() as u32;
        let args = arguments::Write { file: file.clone(), offset, count, stable, data: Opaque(data) };
        self.nfs(Procedure::Write, &args)?.result::<results::Write>()?.map_err(fail("write"))
    }

    /// COMMIT of the whole file: the write verifier.
    pub fn commit(&mut self, file: &Handle) -> Result<[u8; 8], Error> {
        self.nfs(Procedure::Commit, &arguments::Commit { file: file.clone(), offset: 0, count: 0 })?
            .result::<results::Commit>()?
            .map(|ok| ok.verifier)
            .map_err(fail("commit"))
    }

    /// CREATE (UNCHECKED) with mode 0644.
    pub fn create(&mut self, dir: &Handle, name: &[u8]) -> Result<Handle, Error> {
        let how = arguments::CreateHow::Unchecked(mode(0o644));
        self.create_as(dir, name, how)
    }

    /// CREATE.
    pub fn create_as(
        &mut self,
        dir: &Handle,
        name: &[u8],
        how: arguments::CreateHow,
    ) -> Result<Handle, Error> {
        let args = arguments::Create { place: place(dir, name), how };
        created("create", self.nfs(Procedure::Create, &args)?.result()?)
    }

    /// MKDIR with mode 0755.
    pub fn mkdir(&mut self, dir: &Handle, name: &[u8]) -> Result<Handle, Error> {
        let args = arguments::Mkdir { place: place(dir, name), attributes: mode(0o755) };
        created("mkdir", self.nfs(Procedure::Mkdir, &args)?.result()?)
    }

    /// SYMLINK.
    pub fn symlink(&mut self, dir: &Handle, name: &[u8], target: &[u8]) -> Result<Handle, Error> {
        let args = arguments::Symlink {
            place: place(dir, name),
            attributes: sattr3::default(),
            target: Opaque(target),
        };
        created("symlink", self.nfs(Procedure::Symlink, &args)?.result()?)
    }

    /// MKNOD.
    pub fn mknod(&mut self, dir: &Handle, name: &[u8], what: arguments::NodeKind) -> Result<Handle, Error> {
        let args = arguments::Mknod { place: place(dir, name), what };
        created("mknod", self.nfs(Procedure::Mknod, &args)?.result()?)
    }

    /// REMOVE.
    pub fn remove(&mut self, dir: &Handle, name: &[u8]) -> Result<(), Error> {
        self.nfs(Procedure::Remove, &place(dir, name))?
            .result::<results::Changed>()?
            .map(|_| ())
            .map_err(fail("remove"))
    }

    /// RMDIR.
    pub fn rmdir(&mut self, dir: &Handle, name: &[u8]) -> Result<(), Error> {
        self.nfs(Procedure::Rmdir, &place(dir, name))?
            .result::<results::Changed>()?
            .map(|_| ())
            .map_err(fail("rmdir"))
    }

    /// RENAME.
    pub fn rename(&mut self, from: (&Handle, &[u8]), to: (&Handle, &[u8])) -> Result<(), Error> {
        let args = arguments::Rename { from: place(from.0, from.1), to: place(to.0, to.1) };
        self.nfs(Procedure::Rename, &args)?.result::<results::Rename>()?.map(|_| ()).map_err(fail("rename"))
    }

    /// LINK.
    pub fn link(&mut self, file: &Handle, dir: &Handle, name: &[u8]) -> Result<(), Error> {
        let args = arguments::Link { file: file.clone(), place: place(dir, name) };
        self.nfs(Procedure::Link, &args)?.result::<results::Link>()?.map(|_| ()).map_err(fail("link"))
    }

    /// One READDIR: entries, and whether the end was reached.
    pub fn readdir(
        &mut self,
        dir: &Handle,
        cookie: u64,
        count: u32,
    ) -> Result<(Vec<DirectoryEntry>, bool), Error> {
        let args = arguments::Readdir { dir: dir.clone(), cookie, verifier: [0; 8], count };
        let answer = self.nfs(Procedure::Readdir, &args)?;
        let listing = answer.result::<directory::Readdir<'_>>()?.map_err(fail("readdir"))?;
        let entries = listing.entries.iter().map(|entry| DirectoryEntry {
            fileid: entry.fileid,
            name: entry.name.0.to_vec(),
            cookie: entry.cookie,
            handle: None,
            attributes: None,
        });
        Ok((entries.collect(), listing.eof))
    }

    /// One READDIRPLUS: entries, and whether the end was reached.
    pub fn readdirplus(
        &mut self,
        dir: &Handle,
        cookie: u64,
        max_count: u32,
    ) -> Result<(Vec<DirectoryEntry>, bool), Error> {
        let (entries, _, eof) = self.readdirplus_page(dir, cookie, [0; 8], max_count)?;
        Ok((entries, eof))
    }

    /// The same for a server whose cookies need their verifier; the second part of the result is the new one.
    pub fn readdirplus_page(
        &mut self,
        dir: &Handle,
        cookie: u64,
        verifier: [u8; 8],
        max_count: u32,
    ) -> Result<(Vec<DirectoryEntry>, [u8; 8], bool), Error> {
        let (dir, dir_count) = (dir.clone(), max_count);
        let args = arguments::Readdirplus { dir, cookie, verifier, dir_count, max_count };
        let answer = self.nfs(Procedure::Readdirplus, &args)?;
        let listing = answer.result::<directory::Readdirplus<'_>>()?.map_err(fail("readdirplus"))?;
        let entries = listing.entries.into_iter().map(|entry| DirectoryEntry {
            fileid: entry.fileid,
            name: entry.name.0.to_vec(),
            cookie: entry.cookie,
            handle: match entry.object {
                post_op_fh3::handle(handle) => Some(handle),
                post_op_fh3::Void => None,
            },
            attributes: match entry.attributes {
                post_op_attr::attributes(attributes) => Some(attributes),
                post_op_attr::Void => None,
            },
        });
        Ok((entries.collect(), listing.verifier, listing.eof))
    }

    /// READDIRPLUS to the end, "." and ".." left out.
    pub fn list(&mut self, dir: &Handle) -> Result<Vec<DirectoryEntry>, Error> {
        let mut all: Vec<DirectoryEntry> = Vec::new();
        let mut cookie = 0;
        loop {
            let (entries, eof) = self.readdirplus(dir, cookie, 256 * 1024)?;
            cookie = entries.last().map_or(cookie, |entry| entry.cookie);
            all.extend(entries.into_iter().filter(|entry| entry.name != b"." && entry.name != b".."));
            if eof {
                return Ok(all);
            }
        }
    }

    /// FSSTAT.
    pub fn fsstat(&mut self, object: &Handle) -> Result<results::FsstatOk, Error> {
        self.nfs(Procedure::Fsstat, object)?.result::<results::Fsstat>()?.map_err(fail("fsstat"))
    }

    /// FSINFO.
    pub fn fsinfo(&mut self, object: &Handle) -> Result<fsinfo3, Error> {
        self.nfs(Procedure::Fsinfo, object)?.result::<results::Fsinfo>()?.map_err(fail("fsinfo"))
    }

    /// PATHCONF.
    pub fn pathconf(&mut self, object: &Handle) -> Result<results::PathconfOk, Error> {
        self.nfs(Procedure::Pathconf, object)?.result::<results::Pathconf>()?.map_err(fail("pathconf"))
    }
}

fn fail<T>(procedure: &'static str) -> impl FnOnce((nfsstat3, T)) -> Error {
    move |(status, _)| Error::Status { procedure, status }
}

fn created(procedure: &'static str, result: results::Created) -> Result<Handle, Error> {
    match result.map_err(fail(procedure))?.object {
        post_op_fh3::handle(handle) => Ok(handle),
        post_op_fh3::Void => Err(Error::Missing { procedure, what: "handle" }),
    }
}
