//! The source with the real archive behind it, on a real disk.

use super::far_end::connection;
use super::*;
use crate::database::archive::{Archive, ArchiveDesk};
use crate::database::link::{BoxFuture, Dial, Wire};
use crate::database::source::dump;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// An archive in a directory that can be ended, as if by a kill, and opened again.
struct OnDisk {
    directory: PathBuf,
    desk: Mutex<Option<(Arc<Archive>, ArchiveDesk)>>,
    connections: Mutex<Vec<AbortHandle>>,
}

impl OnDisk {
    fn open(directory: PathBuf) -> Arc<OnDisk> {
        let on_disk =
            Arc::new(OnDisk { directory, desk: Mutex::new(None), connections: Mutex::new(Vec::new()) });
        on_disk.restart();
        on_disk
    }

    fn archive(&self) -> Arc<Archive> {
        self.desk.lock().as_ref().unwrap().0.clone()
    }

    /// Connections are cut where they are, and the archive begins anew with what is on the disk.
    fn restart(&self) {
        for connection in self.connections.lock().drain(..) {
            connection.abort();
        }
        if let Some((archive, _)) = self.desk.lock().take() {
            archive.stop();
        }
        let mut opened = None;
        wait("the archive is free", || {
            opened = Archive::open(&self.directory, crate::database::archive::Options::default()).ok();
            opened.is_some()
        });
        let (archive, _) = opened.unwrap();
        let nothing = Arc::new(|_| Box::pin(async { Vec::new() }) as BoxFuture<'static, _>);
        let desk = ArchiveDesk::new(archive.clone(), Arc::new(|_| {}), nothing);
        *self.desk.lock() = Some((archive, desk));
    }
}

struct To(Arc<OnDisk>);

impl Dial for To {
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Wire>, String>> {
        Box::pin(async {
            let desk = self.0.desk.lock().as_ref().map(|(_, desk)| desk.clone());
            let desk = desk.ok_or("the archive is down")?;
            let (here, there) = connection();
            let served = desk.serve(Box::new(there), "nfs1".to_owned(), CancellationToken::new());
            self.0.connections.lock().push(tokio::spawn(served).abort_handle());
            Ok(Box::new(here) as Box<dyn Wire>)
        })
    }
}

fn start_to(runtime: &Runtime, server: &Maria, to: &Arc<OnDisk>) -> Source {
    let options = SourceOptions {
        dial: Arc::new(To(to.clone())),
        ..options(vec![root(&server.socket())], &FarEnd::new())
    };
    Source::start(runtime.handle(), options)
}

fn differs(server: &[PathBuf], archive: &Archive) -> Option<String> {
    let bytes = |lineage, ordinal| std::fs::read(archive.path(lineage, ordinal).unwrap()).unwrap();
    let files = archive.files().into_iter().map(|file| (file.name, bytes(file.lineage, file.ordinal)));
    first_difference(server, &files.collect::<Vec<_>>())
}

#[test]
fn the_archive_is_equal_after_kills_of_everybody() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let to = OnDisk::open(directory.path().join("database"));
    let mut server = server(Options::default().with("--log-bin-compress=1"));
    let begin = |server: &Maria| start_to(&runtime, server, &to);
    let source = all_fall(&runtime, &mut server, &begin, &|| to.restart());
    let files = server.binlog_files().unwrap();
    wait("equal files", || differs(&files, &to.archive()).is_none());
    assert_eq!(source.status().gtid, server.value("SELECT @@gtid_binlog_pos").unwrap());
    assert_eq!(to.archive().lineages().len(), 1);

    // A byte of a closed file rots, and is fetched from the server again.
    let path = to.archive().path(1, 1).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[len / 2] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    assert!(differs(&files, &to.archive()).is_some());
    runtime.block_on(source.shared.refetch(1, 1, 0, len as u64)).unwrap();
    assert_eq!(differs(&files, &to.archive()), None);
    let error = runtime.block_on(source.shared.refetch(1, files.len() as u32, 0, 4)).unwrap_err();
    assert!(error.contains("only closed files"), "{error}");
    // Where a server's answer ends without another file behind it, nothing is known of the file's end.
    let newest = files.last().unwrap().file_name().unwrap().to_str().unwrap();
    let error = runtime.block_on(dump::end(&root(&server.socket()), newest)).unwrap_err();
    assert!(error.to_string().contains("it ended the stream"), "{error}");
    // A file is gone, and comes back; the server has half an event more in it, which is not part of the log.
    let mut half = std::fs::read(&files[1]).unwrap();
    half.extend_from_within(4..60);
    std::fs::write(&files[1], &half).unwrap();
    std::fs::remove_file(to.archive().path(1, 2).unwrap()).unwrap();
    assert_eq!(to.archive().check(1, 2, &|| false).unwrap().len(), 1);
    runtime.block_on(source.refetch_file(1, 2)).unwrap();
    half.truncate(half.len() - 56);
    std::fs::write(&files[1], &half).unwrap();
    assert_eq!(differs(&files, &to.archive()), None);
    assert_eq!(to.archive().status().error, None);
    // What is lost at the end is asked for again, also when it is everything.
    for lost in [1, 2, files.len()] {
        let archived = to.archive().files().into_iter().rev().take(lost);
        archived.for_each(|file| std::fs::remove_file(to.archive().path(1, file.ordinal).unwrap()).unwrap());
        to.restart();
        wait("equal files", || differs(&files, &to.archive()).is_none());
        wait("nothing is told", || to.archive().status().error.is_none());
        assert_eq!(to.archive().lineages().len(), 1);
    }
    runtime.block_on(source.stop());
}

/// What a server leaves that is killed while it writes: the first event of a transaction, and half of the second.
fn half_a_group(file: &[u8]) -> (Vec<u8>, usize) {
    use ehpc_proto::binlog::EventHeader;
    let start = last_group(file).start as usize;
    let size = EventHeader::decode(&file[start..]).unwrap().size as usize;
    let mut gtid = file[start..start + size].to_vec();
    gtid[13..17].copy_from_slice(&((file.len() + size) as u32).to_le_bytes());
    let number = u64::from_le_bytes(gtid[19..27].try_into().unwrap());
    gtid[19..27].copy_from_slice(&(number + 1).to_le_bytes());
    let sum = crc32fast::hash(&gtid[..size - 4]);
    gtid[size - 4..].copy_from_slice(&sum.to_le_bytes());
    gtid.extend_from_slice(&file[start + size..start + size + 30]);
    (gtid, size)
}

#[test]
fn what_a_dying_server_wrote_by_half_is_left_out() {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let to = OnDisk::open(directory.path().join("database"));
    let mut server = server(Options::default().with("--binlog-checksum=CRC32"));
    let source = start_to(&runtime, &server, &to);
    server.sql(TABLE).unwrap();
    let mut torn = 0;
    for round in 0..3 {
        server.sql(&format!("INSERT INTO d.t VALUES ({round})")).unwrap();
        caught_up(&runtime, &source);
        server.kill9().unwrap();
        let path = server.binlog_files().unwrap().pop().unwrap();
        let mut file = std::fs::read(&path).unwrap();
        let whole = file.len();
        let (tail, sent) = match round {
            0 => half_a_group(&file),
            // A file that had grown already, but for its content.
            1 => (vec![0; 64], 0),
            _ => (vec![7; 5], 0),
        };
        torn += tail.len() - sent;
        file.extend_from_slice(&tail);
        std::fs::write(&path, &file).unwrap();
        server.restart().unwrap();
        server.sql(&format!("INSERT INTO d.t VALUES ({})", 10 + round)).unwrap();
        caught_up(&runtime, &source);
        let archive = to.archive();
        let here = archive.files().into_iter().find(|kept| path.ends_with(&kept.name)).unwrap();
        assert_eq!((here.closed, here.len), (true, (whole + sent) as u64), "round {round}");
        let ours = std::fs::read(archive.path(here.lineage, here.ordinal).unwrap()).unwrap();
        file[21] &= !1;
        assert!(file.starts_with(&ours), "round {round}");
    }
    assert!(torn > 0);
    assert_eq!(to.archive().lineages().len(), 1, "{:?}", source.status());
    let gtid = server.value("SELECT @@gtid_binlog_pos").unwrap();
    wait("the state", || source.status().gtid == gtid);
    runtime.block_on(source.stop());
    assert_eq!(to.archive().maintain(&|| false).unwrap(), Vec::new());
    let opened = to.archive().status();
    assert_eq!(opened.gtid, gtid);
}
