//! Files of the share, through NFS.

use super::wire::{Bounded, Wire};
use nfs3_client::nfs3_types::nfs3::{
    COMMIT3args, CREATE3args, GETATTR3args, LOOKUP3args, Nfs3Option, Nfs3Result, READ3args, READDIRPLUS3args,
    REMOVE3args, RENAME3args, WRITE3args, cookieverf3, createhow3, diropargs3, fattr3, filename3, ftype3,
    nfs_fh3, nfsstat3, sattr3, stable_how, writeverf3,
};
use nfs3_client::nfs3_types::rpc::{auth_unix, opaque_auth};
use nfs3_client::nfs3_types::xdr_codec::Opaque;
use nfs3_client::{ConnectError, Nfs3Client, Nfs3ConnectionBuilder, RpcError};
use parking_lot::Mutex;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections to the NFS server at once; the crate sends one call at a time on each.
const CONNECTIONS: usize = 16;
/// A connection idle for longer is asked whether it still lives before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// Entries of one page of a listing.
pub(super) const PAGE_ENTRIES: usize = 1_000;
/// Bytes of one READ or WRITE.
pub(super) const TRANSFER: usize = 256 << 10;
/// Deepest path that is followed.
const MAX_DEPTH: usize = 64;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fault {
    #[error("the NFS server {server} cannot be reached: {why}")]
    Unreachable { server: String, why: String },
    #[error("the NFS server refuses {what}: {status}")]
    Refused { what: String, status: nfsstat3 },
    #[error("there is no {0} in the share")]
    Missing(String),
    #[error("{0} is neither a file nor a directory; links and devices are not followed here")]
    Special(String),
    #[error("{0}")]
    Name(String),
    #[error("the upload is larger than the {0} bytes that this node takes; see --max-upload")]
    TooLarge(u64),
    #[error("a page of another site sent this form: send it from this node's own page")]
    Foreign,
    #[error("nothing more of the form came for {0} seconds")]
    Slow(u64),
    #[error("the NFS server restarted while {0} was written: send it again")]
    Restarted(String),
}

/// The share.
#[derive(Debug)]
pub struct Share {
    server: String,
    export: String,
    credential: opaque_auth<'static>,
    idle: Mutex<Vec<(Client, Instant)>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Client {
    nfs: Nfs3Client<Wire>,
    root: nfs_fh3,
}

/// A connection in use. It goes back only when the last call on it was complete: a call that was given up would
/// leave its reply to the next.
struct Lease<'s> {
    share: &'s Share,
    client: Client,
    _place: OwnedSemaphorePermit,
}

/// What is known of a file or directory.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub(super) struct Found {
    pub(super) handle: nfs_fh3,
    pub(super) attributes: fattr3,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        self.attributes.type_ == ftype3::NF3DIR
    }
}

/// One entry of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) directory: bool,
    pub(super) size: u64,
    pub(super) modified: u32,
}

/// Where a listing goes on: cookie and verifier.
pub(super) type Resume = (u64, [u8; 8]);

impl Share {
    /// The export `export` of the NFS server at `server` ("host:port", NFS and MOUNT on one port). Nothing is connected.
    pub fn new(server: &str, export: &str) -> Share {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let machine = rustix::system::uname().nodename().to_bytes().to_vec();
        let credential = auth_unix {
            stamp: 0,
            machinename: Opaque::owned(machine.into_iter().take(255).collect()),
            uid,
            gid,
            gids: Vec::new(),
        };
        Share {
            server: server.to_owned(),
            export: export.to_owned(),
            credential: opaque_auth::auth_unix(&credential),
            idle: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    /// Whether the share can be used now.
    pub async fn check(&self) -> Result<(), Fault> {
        let mut lease = self.lease().await?;
        let root = lease.client.root.clone();
        lease.attributes(root, "the share").await?;
        lease.give_back();
        Ok(())
    }

    /// What `path` names; components are separated by `/`, none is followed outside of the share.
    pub(super) async fn find(&self, path: &[u8]) -> Result<Found, Fault> {
        let mut lease = self.lease().await?;
        let mut handle = lease.client.root.clone();
        let mut attributes = lease.attributes(handle.clone(), "the share").await?;
        for name in components(path)? {
            if attributes.type_ != ftype3::NF3DIR {
                lease.give_back();
                return Err(Fault::Missing(text(path)));
            }
            let what = diropargs3 { dir: handle, name: filename3::from(name) };
            match lease.client.nfs.lookup(&LOOKUP3args { what }).await.map_err(|error| self.lost(&error))? {
                Nfs3Result::Ok(found) => {
                    attributes = match found.obj_attributes {
                        Nfs3Option::Some(attributes) => attributes,
                        Nfs3Option::None => lease.attributes(found.object.clone(), &text(path)).await?,
                    };
                    handle = found.object;
                }
                Nfs3Result::Err((status, _)) => {
                    lease.give_back();
                    return Err(refused(path, status));
                }
            }
        }
        lease.give_back();
        match attributes.type_ {
            ftype3::NF3REG | ftype3::NF3DIR => Ok(Found { handle, attributes }),
            _ => Err(Fault::Special(text(path))),
        }
    }

    /// Up to [`PAGE_ENTRIES`] entries of a directory, sorted by name, and where to go on if there are more.
    pub(super) async fn list(
        &self,
        directory: &Found,
        from: Option<Resume>,
    ) -> Result<(Vec<Entry>, Option<Resume>), Fault> {
        let mut lease = self.lease().await?;
        let (mut cookie, mut verifier) = from.unwrap_or_default();
        let mut entries = Vec::new();
        loop {
            let arguments = READDIRPLUS3args {
                dir: directory.handle.clone(),
                cookie,
                cookieverf: cookieverf3(verifier),
                dircount: 32 << 10,
                maxcount: 128 << 10,
            };
            let reply = lease.client.nfs.readdirplus(&arguments).await.map_err(|error| self.lost(&error))?;
            let page = match reply {
                Nfs3Result::Ok(page) => page,
                Nfs3Result::Err((status, _)) => {
                    lease.give_back();
                    return Err(Fault::Refused { what: "the listing".to_owned(), status });
                }
            };
            verifier = page.cookieverf.0;
            let nothing = page.reply.entries.is_empty();
            for entry in page.reply.entries.into_inner() {
                cookie = entry.cookie;
                let name: Vec<u8> = entry.name.0.into_owned();
                if name == b"." || name == b".." || is_partial(&name) {
                    continue;
                }
                if let Nfs3Option::Some(attributes) = entry.name_attributes {
                    entries.push(Entry {
                        name,
                        directory: attributes.type_ == ftype3::NF3DIR,
                        size: attributes.size,
                        modified: attributes.mtime.seconds,
                    });
                }
            }
            let more = !page.reply.eof && !nothing;
            if !more || entries.len() >= PAGE_ENTRIES {
                lease.give_back();
                entries.sort_by(|a, b| b.directory.cmp(&a.directory).then_with(|| a.name.cmp(&b.name)));
                return Ok((entries, more.then_some((cookie, verifier))));
            }
        }
    }

    /// Up to [`TRANSFER`] bytes at `offset`; fewer only at the end.
    pub(super) async fn read(&self, file: &Found, offset: u64, count: usize) -> Result<Vec<u8>, Fault> {
        let mut lease = self.lease().await?;
        let count = u32::try_from(count.min(TRANSFER)).unwrap_or(0);
        let arguments = READ3args { file: file.handle.clone(), offset, count };
        let reply = lease.client.nfs.read(&arguments).await.map_err(|error| self.lost(&error))?;
        lease.give_back();
        match reply {
            Nfs3Result::Ok(read) => Ok(read.data.into_owned()),
            Nfs3Result::Err((status, _)) => Err(Fault::Refused { what: "reading".to_owned(), status }),
        }
    }

    /// A new, empty file `name` in the share's root that nobody else has.
    pub(super) async fn create(&self, name: &str) -> Result<nfs_fh3, Fault> {
        let mut lease = self.lease().await?;
        let where_ = diropargs3 { dir: lease.client.root.clone(), name: filename3::from(name.as_bytes()) };
        let how = createhow3::GUARDED(sattr3 { mode: Nfs3Option::Some(0o644), ..sattr3::default() });
        let reply =
            lease.client.nfs.create(&CREATE3args { where_, how }).await.map_err(|error| self.lost(&error))?;
        lease.give_back();
        match reply {
            Nfs3Result::Ok(made) => match made.obj {
                Nfs3Option::Some(handle) => Ok(handle),
                Nfs3Option::None => Ok(self.find(name.as_bytes()).await?.handle),
            },
            Nfs3Result::Err((status, _)) => Err(Fault::Refused { what: format!("creating {name}"), status }),
        }
    }

    /// Writes all of `bytes`, not yet durably; the server's verifier, which changes when it may have lost them.
    pub(super) async fn write(&self, file: &nfs_fh3, offset: u64, bytes: &[u8]) -> Result<writeverf3, Fault> {
        let mut lease = self.lease().await?;
        let mut done = 0;
        loop {
            let rest = &bytes[done..];
            let arguments = WRITE3args {
                file: file.clone(),
                offset: offset + done as u64,
                count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
                stable: stable_how::UNSTABLE,
                data: Opaque::borrowed(rest),
            };
            match lease.client.nfs.write(&arguments).await.map_err(|error| self.lost(&error))? {
                Nfs3Result::Ok(wrote) if wrote.count > 0 => {
                    done = (done + wrote.count as usize).min(bytes.len());
                    if done == bytes.len() {
                        lease.give_back();
                        return Ok(wrote.verf);
                    }
                }
                Nfs3Result::Ok(_) => {
                    lease.give_back();
                    return Err(Fault::Refused { what: "writing".to_owned(), status: nfsstat3::NFS3ERR_IO });
                }
                Nfs3Result::Err((status, _)) => {
                    lease.give_back();
                    return Err(Fault::Refused { what: "writing".to_owned(), status });
                }
            }
        }
    }

    /// Makes everything that was written to a file durable.
    pub(super) async fn commit(&self, file: &nfs_fh3) -> Result<writeverf3, Fault> {
        let mut lease = self.lease().await?;
        let arguments = COMMIT3args { file: file.clone(), offset: 0, count: 0 };
        let reply = lease.client.nfs.commit(&arguments).await.map_err(|error| self.lost(&error))?;
        lease.give_back();
        match reply {
            Nfs3Result::Ok(done) => Ok(done.verf),
            Nfs3Result::Err((status, _)) => Err(Fault::Refused { what: "committing".to_owned(), status }),
        }
    }

    /// Gives a file of the root another name, in place of what had it.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        let mut lease = self.lease().await?;
        let root = lease.client.root.clone();
        let arguments = RENAME3args {
            from: diropargs3 { dir: root.clone(), name: filename3::from(from.as_bytes()) },
            to: diropargs3 { dir: root, name: filename3::from(to.as_bytes()) },
        };
        let reply = lease.client.nfs.rename(&arguments).await.map_err(|error| self.lost(&error))?;
        lease.give_back();
        match reply {
            Nfs3Result::Ok(_) => Ok(()),
            Nfs3Result::Err((status, _)) => Err(Fault::Refused { what: format!("naming it {to}"), status }),
        }
    }

    /// Removes a file of the root.
    pub(super) async fn remove(&self, name: &str) -> Result<(), Fault> {
        let mut lease = self.lease().await?;
        let object = diropargs3 { dir: lease.client.root.clone(), name: filename3::from(name.as_bytes()) };
        let reply =
            lease.client.nfs.remove(&REMOVE3args { object }).await.map_err(|error| self.lost(&error))?;
        lease.give_back();
        match reply {
            Nfs3Result::Ok(_) => Ok(()),
            Nfs3Result::Err((status, _)) => Err(refused(name.as_bytes(), status)),
        }
    }

    /// A connection that was well a moment ago, or a new one.
    async fn lease(&self) -> Result<Lease<'_>, Fault> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| self.unreachable("this node is ending"))?;
        loop {
            let Some((mut client, since)) = self.idle.lock().pop() else { break };
            if since.elapsed() < TRUSTED_IDLE || client.nfs.null().await.is_ok() {
                return Ok(Lease { share: self, client, _place: place });
            }
        }
        let client = self.connect().await?;
        Ok(Lease { share: self, client, _place: place })
    }

    async fn connect(&self) -> Result<Client, Fault> {
        let addresses =
            tokio::net::lookup_host(&self.server).await.map_err(|error| self.unreachable(error))?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address").to_string();
        for address in addresses {
            match self.mount(address).await {
                Ok(client) => return Ok(client),
                Err(error) => last = error.to_string(),
            }
        }
        Err(self.unreachable(last))
    }

    async fn mount(&self, address: SocketAddr) -> Result<Client, ConnectError> {
        // Ports below 1024 are what exports(5) `secure` asks for; they need root, and `insecure` exports do not care.
        let privileged = rustix::process::geteuid().is_root();
        let connection = Nfs3ConnectionBuilder::new(Bounded, address.ip().to_string(), &self.export)
            .connect_from_privileged_port(privileged)
            .mount_port(address.port())
            .nfs3_port(address.port())
            .credential(self.credential.clone())
            .mount()
            .await?;
        let root = connection.root_nfs_fh3();
        Ok(Client { nfs: connection.into_nfs3_client(), root })
    }

    fn unreachable(&self, why: impl ToString) -> Fault {
        Fault::Unreachable { server: format!("{}:{}", self.server, self.export), why: why.to_string() }
    }

    fn lost(&self, error: &RpcError) -> Fault {
        self.unreachable(error)
    }
}

impl Lease<'_> {
    /// The connection is at a border between two calls.
    fn give_back(self) {
        self.share.idle.lock().push((self.client, Instant::now()));
    }

    async fn attributes(&mut self, object: nfs_fh3, what: &str) -> Result<fattr3, Fault> {
        let reply = self.client.nfs.getattr(&GETATTR3args { object }).await;
        match reply.map_err(|error| self.share.lost(&error))? {
            Nfs3Result::Ok(got) => Ok(got.obj_attributes),
            Nfs3Result::Err((status, _)) => Err(Fault::Refused { what: what.to_owned(), status }),
        }
    }
}

fn refused(path: &[u8], status: nfsstat3) -> Fault {
    match status {
        nfsstat3::NFS3ERR_NOENT | nfsstat3::NFS3ERR_NOTDIR => Fault::Missing(text(path)),
        _ => Fault::Refused { what: text(path), status },
    }
}

/// A name for people; bytes that are no text are shown as such.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Uploads that are not complete carry this name in front; listings leave them out.
pub(super) const PARTIAL: &str = ".upload-";

fn is_partial(name: &[u8]) -> bool {
    name.starts_with(PARTIAL.as_bytes())
}

/// Names of a path. Empty ones are skipped; `.` and `..` are not names.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    if names.len() > MAX_DEPTH || names.iter().any(|name| matches!(*name, b"." | b"..") || name.contains(&0))
    {
        return Err(Fault::Name(format!("{} is not a path within the share", text(path))));
    }
    Ok(names)
}
