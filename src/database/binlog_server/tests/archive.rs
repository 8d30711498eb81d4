//! An archive of a test's own: copies of servers' binary logs, that grow as the servers write.

use crate::database::binlog_server::{Feed, FeedFile, Identity};
use crate::database::link::BoxFuture;
use ehpc_proto::binlog::{FileScan, Flavor, Grouper, GtidState};
use ehpc_proto::replication::database::Place;
use parking_lot::Mutex;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// The newest file, as far as it is copied.
struct Tail {
    name: String,
    scan: FileScan,
    grouper: Grouper,
    copy: File,
}

#[derive(Default)]
struct Inner {
    lineage: u32,
    identity: Option<Identity>,
    files: Vec<FeedFile>,
    tail: Option<Tail>,
}

/// The archive.
pub(super) struct TestArchive {
    root: tempfile::TempDir,
    inner: Mutex<Inner>,
    end: watch::Sender<(Place, GtidState)>,
}

impl TestArchive {
    pub(super) fn new(identity: Identity) -> Arc<TestArchive> {
        let end = watch::Sender::new((Place::default(), GtidState::empty(identity.flavor)));
        let archive = TestArchive { root: tempfile::tempdir().unwrap(), inner: Mutex::default(), end };
        archive.lineage(identity);
        Arc::new(archive)
    }

    /// Empty: no server is known.
    pub(super) fn empty() -> Arc<TestArchive> {
        let end = watch::Sender::new((Place::default(), GtidState::empty(Flavor::MariaDb)));
        Arc::new(TestArchive { root: tempfile::tempdir().unwrap(), inner: Mutex::default(), end })
    }

    /// What is copied from now on is another server's.
    pub(super) fn lineage(&self, identity: Identity) {
        let mut inner = self.inner.lock();
        inner.lineage += 1;
        inner.identity = Some(identity);
        inner.tail = None;
        std::fs::create_dir(self.root.path().join(inner.lineage.to_string())).unwrap();
    }

    fn path(&self, file: &FeedFile) -> PathBuf {
        self.root.path().join(file.lineage.to_string()).join(&file.name)
    }

    /// Copies what is new in the server's files.
    pub(super) fn copy(&self, sources: &[PathBuf]) {
        let mut inner = self.inner.lock();
        let (_, mut state) = self.end.borrow().clone();
        let begun = inner.tail.as_ref().map(|tail| tail.name.clone());
        let names: Vec<_> =
            sources.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        let first = begun.map_or(0, |name| names.iter().position(|other| *other == name).unwrap());
        for (path, name) in sources.iter().zip(&names).skip(first) {
            if inner.tail.as_ref().is_none_or(|tail| tail.name != *name) {
                let lineage = inner.lineage;
                let file = 1 + inner.files.iter().filter(|file| file.lineage == lineage).count() as u32;
                let file = FeedFile { lineage, file, name: name.clone() };
                let copy = OpenOptions::new().create_new(true).write(true).open(self.path(&file)).unwrap();
                inner.files.push(file);
                let (scan, grouper) = (FileScan::new(), Grouper::new());
                inner.tail = Some(Tail { name: name.clone(), scan, grouper, copy });
            }
            let key = inner.files.last().unwrap().key();
            let offset = inner.tail.as_mut().unwrap().grow(&File::open(path).unwrap(), &mut state);
            let place = Place { lineage: key.0, file: key.1, offset };
            if self.end.borrow().0 != place {
                self.end.send_replace((place, state.clone()));
            }
        }
    }

    /// The directory with the newest lineage's files.
    pub(super) fn newest(&self) -> PathBuf {
        let file = self.inner.lock().files.last().unwrap().clone();
        self.path(&file)
    }

    /// A file is pruned; the oldest one is 0.
    pub(super) fn prune(&self, which: usize) {
        let file = self.inner.lock().files.remove(which);
        std::fs::remove_file(self.path(&file)).unwrap();
    }
}

impl Tail {
    /// Copies up to the end of the source; the last whole event's end.
    fn grow(&mut self, source: &File, state: &mut GtidState) -> u64 {
        let mut block = vec![0; 1 << 20];
        loop {
            let read = source.read_at(&mut block, self.scan.position()).unwrap();
            if read == 0 {
                return self.scan.boundary();
            }
            self.copy.write_all(&block[..read]).unwrap();
            let mut piece = &block[..read];
            while let Some(event) = self.scan.next(&mut piece).unwrap() {
                if let Some(gtid) = self.grouper.event(&event).unwrap().and_then(|group| group.gtid) {
                    state.add(&gtid);
                }
            }
        }
    }
}

impl Feed for TestArchive {
    fn identity(&self) -> Option<Identity> {
        self.inner.lock().identity.clone()
    }

    fn end(&self) -> (Place, GtidState) {
        self.end.borrow().clone()
    }

    fn past(&self, place: Place) -> BoxFuture<'_, Place> {
        let mut end = self.end.subscribe();
        Box::pin(async move {
            let found = end.wait_for(|(end, _)| *end > place).await.map(|end| end.0);
            match found {
                Ok(place) => place,
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn files(&self) -> io::Result<Vec<FeedFile>> {
        Ok(self.inner.lock().files.clone())
    }

    fn length(&self, lineage: u32, file: u32) -> io::Result<u64> {
        Ok(self.open(lineage, file)?.metadata()?.len())
    }

    fn open(&self, lineage: u32, file: u32) -> io::Result<File> {
        let files = self.inner.lock().files.clone();
        let found = files.iter().find(|other| other.key() == (lineage, file));
        File::open(self.path(found.ok_or(io::ErrorKind::NotFound)?))
    }
}
