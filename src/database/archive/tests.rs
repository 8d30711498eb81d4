//! An archive on a disk that crashes, fed with the binary logs of a server that is made up, and of real ones.

mod crash;
mod damage;
mod desk;
mod joined;
mod lane;
mod lookup;
mod seals;

use super::append::{Append, Appender, End};
use super::disk::ArchiveDisk;
use super::{Archive, Options, Recovered};
use crate::store::pack::disk::Disk as _;
use crate::store::pack::simulated::SimulatedDisk;
use bytes::Bytes;
use ehpc_proto::binlog::header::MAGIC;
use ehpc_proto::binlog::{EventHeader, Flavor, Kind};
use ehpc_proto::replication::Timestamp;
use ehpc_proto::replication::database::Lineage;
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl ArchiveDisk for SimulatedDisk {
    fn folders(&self) -> io::Result<Vec<String>> {
        self.names_in(None)
    }

    fn make_folder(&self, folder: &str) -> io::Result<()> {
        SimulatedDisk::make_folder(self, folder)
    }

    fn files(&self, folder: &str) -> io::Result<Vec<String>> {
        self.names_in(Some(folder))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.sync_names_in(Some(folder))
    }
}

/// Opens it as soon as nobody has it: the lock outlives its holder for a moment, because a program that another test
/// starts has it until it is executed.
fn open_patiently(directory: &Path, options: Options) -> (Arc<Archive>, Recovered) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        match Archive::open(directory, options) {
            Err(super::ArchiveError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            opened => return opened.unwrap(),
        }
    }
}

/// An archive without a thread of its own.
struct Life {
    archive: Arc<Archive>,
    appender: Appender,
    recovered: Recovered,
}

fn live(disk: &SimulatedDisk) -> Result<Life, super::ArchiveError> {
    let disk: Arc<dyn ArchiveDisk> = Arc::new(disk.clone());
    let (archive, writer, _, recovered) = Archive::over(Path::new("/"), disk, Options::default())?;
    Ok(Life { archive, appender: writer.appender, recovered })
}

/// A group of a made-up file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Made {
    start: u64,
    end: u64,
    seq: u64,
    time: u32,
}

/// A made-up binary log of MariaDB.
#[derive(Clone)]
struct MadeFile {
    name: String,
    bytes: Bytes,
    groups: Vec<Made>,
    /// Number of the last transaction before the file.
    before: u64,
}

fn event(out: &mut Vec<u8>, kind: Kind, time: u32, body: &[u8]) {
    let size = (EventHeader::LEN + body.len() + 4) as u32;
    let log_pos = out.len() as u32 + size;
    let header = EventHeader { timestamp: time, kind, server_id: 7, size, log_pos, flags: 0 };
    let from = out.len();
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(body);
    let sum = crc32fast::hash(&out[from..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// A real server's format description.
fn format() -> Vec<u8> {
    let file = real("mariadb.000001");
    let header = EventHeader::decode(&file[4..]).unwrap();
    file[4..4 + header.size as usize].to_vec()
}

/// A file of a real server.
fn real(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/binlog");
    std::fs::read(Path::new(folder).join(name)).unwrap_or_else(|e| panic!("{folder}/{name}: {e}"))
}

/// `groups` sizes of rows; the transactions are numbered from `before` + 1, each a second after the one before.
fn made(name: &str, before: u64, sizes: &[usize], rng: &mut StdRng) -> MadeFile {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&format());
    let mut list = if before == 0 { 0u32 } else { 1 }.to_le_bytes().to_vec();
    if before > 0 {
        for word in [0u32, 7] {
            list.extend_from_slice(&word.to_le_bytes());
        }
        list.extend_from_slice(&before.to_le_bytes());
    }
    event(&mut bytes, Kind::GTID_LIST, 1000, &list);
    let mut groups = Vec::new();
    for (at, &size) in sizes.iter().enumerate() {
        let (start, seq) = (bytes.len() as u64, before + 1 + at as u64);
        let time = 1000 + seq as u32;
        let gtid = [&seq.to_le_bytes()[..], &0u32.to_le_bytes(), &[0; 7]].concat();
        event(&mut bytes, Kind::MARIA_GTID, time, &gtid);
        let mut rows = vec![0; size];
        rng.fill_bytes(&mut rows);
        event(&mut bytes, Kind(23), time, &rows);
        event(&mut bytes, Kind::XID, time, &seq.to_le_bytes());
        groups.push(Made { start, end: bytes.len() as u64, seq, time });
    }
    MadeFile { name: name.to_owned(), bytes: bytes.into(), groups, before }
}

/// Files of one server, with groups of random sizes.
fn history(files: usize, rng: &mut StdRng) -> Vec<MadeFile> {
    let mut before = 0;
    (1..=files)
        .map(|n| {
            let sizes: Vec<usize> = (0..rng.random_range(0..12))
                .map(|_| {
                    if rng.random_bool(0.1) { rng.random_range(0..40_000) } else { rng.random_range(0..300) }
                })
                .collect();
            let file = made(&format!("bin.{n:06}"), before, &sizes, rng);
            before += sizes.len() as u64;
            file
        })
        .collect()
}

fn lineage(number: u32) -> Lineage {
    let mut first_event = [0; 19];
    first_event.copy_from_slice(&format()[..19]);
    Lineage {
        number,
        flavor: Flavor::MariaDb,
        server_id: 7,
        server_uuid: None,
        version: "10.11.6-MariaDB".to_owned(),
        first_file: "bin.000001".to_owned(),
        first_event,
    }
}

fn open(file: &MadeFile, ordinal: u32) -> Append {
    Append::Open { lineage: lineage(1), name: file.name.clone(), ordinal, joined: None }
}

fn piece(file: &MadeFile, offset: u64, len: usize) -> Append {
    let from = offset as usize;
    let to = (from + len).min(file.bytes.len());
    Append::Bytes { offset, arrived: Timestamp::default(), bytes: file.bytes.slice(from..to) }
}

/// Appends whole files and syncs.
fn fill(appender: &mut Appender, files: &[MadeFile]) {
    appender.begin().unwrap();
    for (at, file) in files.iter().enumerate() {
        appender.append(open(file, at as u32 + 1)).unwrap();
        appender.append(piece(file, 0, usize::MAX / 2)).unwrap();
        if at + 1 < files.len() {
            let len = file.bytes.len() as u64;
            appender.append(Append::Closed { name: file.name.clone(), len }).unwrap();
        }
    }
    appender.sync().unwrap();
}

/// Bytes of a file on the disk.
fn on_disk(disk: &SimulatedDisk, file: &MadeFile) -> Vec<u8> {
    disk.bytes(&format!("0001/{}", file.name)).unwrap_or_default()
}

/// What the index tells must be what was made.
fn check_index(archive: &Archive, files: &[MadeFile]) {
    for file in archive.files() {
        let made = &files[file.ordinal as usize - 1];
        let mut found = Vec::new();
        let read = archive.groups(file.lineage, file.ordinal, &mut |entry| {
            let Some(ehpc_proto::binlog::GroupGtid::Maria(gtid)) = entry.gtid else { panic!("{entry:?}") };
            let (start, end, seq, time) = (entry.start, entry.end, gtid.seq, entry.header_time);
            found.push(Made { start, end, seq, time });
        });
        match read {
            Err(error) if error.to_string().contains("machine is off") => return,
            read => read.unwrap(),
        }
        let expected: Vec<Made> = made.groups.iter().copied().filter(|group| group.end <= file.len).collect();
        assert_eq!(found, expected, "{}", file.name);
    }
}

fn opened(disk: &SimulatedDisk, name: &str) -> bool {
    disk.open(name).is_ok()
}

/// The end as (ordinal, offset).
fn place(end: &End) -> (u32, u64) {
    end.file.as_ref().map_or((0, 0), |file| (file.ordinal, file.len))
}
