//! Files of real servers, sent as a server sends them, come out byte for byte; what is wrong is named.

use super::*;
use ehpc_proto::binlog::{Checksum, build};
use ehpc_proto::mysql::packet::{StreamAssembler, write_packet};

const FILES: [(&str, &[u8]); 4] = [
    ("mariadb.000001", include_bytes!("../../../tests/data/binlog/mariadb.000001")),
    ("mariadb.000002", include_bytes!("../../../tests/data/binlog/mariadb.000002")),
    ("mysql56.000001", include_bytes!("../../../tests/data/binlog/mysql56.000001")),
    ("mysql56.000002", include_bytes!("../../../tests/data/binlog/mysql56.000002")),
];

/// Whole events of a file.
fn events(file: &[u8]) -> Vec<&[u8]> {
    let mut rest = &file[4..];
    let mut all = Vec::new();
    while !rest.is_empty() {
        let size = EventHeader::decode(rest).unwrap().size as usize;
        let (event, later) = rest.split_at(size);
        all.push(event);
        rest = later;
    }
    all
}

fn format(file: &[u8]) -> FormatDescription {
    FormatDescription::decode(events(file)[0]).unwrap().with_in_use(false)
}

/// A server's stream: packets.
struct Wire {
    bytes: Vec<u8>,
    sequence: u8,
    prefix: &'static [u8],
}

impl Wire {
    fn new(prefix: &'static [u8]) -> Wire {
        Wire { bytes: Vec::new(), sequence: 1, prefix }
    }

    fn event(&mut self, event: &[u8]) {
        let payload = [&[0], self.prefix, event].concat();
        write_packet(&mut self.bytes, &mut self.sequence, &payload);
    }

    fn rotate(&mut self, file: &str, position: u64, sum: Checksum) {
        self.event(&build::fake_rotate(1, file, position, sum));
    }

    /// A file from `from` on; its events from there.
    fn file(&mut self, name: &str, file: &[u8], from: u64) {
        self.rotate(name, from, Checksum::None);
        if from > 4 {
            self.event(format(file).as_mid_file().bytes());
        }
        let mut at = 4;
        for event in events(file) {
            if at >= from {
                let described = EventHeader::decode(event).unwrap().kind == Kind::FORMAT_DESCRIPTION;
                let format = described.then(|| format(event_file(event)));
                self.event(format.as_ref().map_or(event, |format| format.bytes()));
            }
            at += event.len() as u64;
        }
    }
}

/// `format` wants a file: the magic and its first event.
fn event_file(event: &[u8]) -> &[u8] {
    let file = FILES.iter().find(|(_, file)| file[4..].starts_with(event)).unwrap().1;
    &file[..4 + event.len()]
}

fn run(session: &mut StreamSession, bytes: &[u8], step: usize) -> Result<Vec<Ship>, StreamFault> {
    let mut assembler = StreamAssembler::new();
    let mut out = Vec::new();
    for mut chunk in bytes.chunks(step) {
        while let Some(piece) = assembler.push(&mut chunk).unwrap() {
            session.piece(piece, &mut out)?;
        }
        session.flush(&mut out);
    }
    Ok(out)
}

/// Bytes per file, put at their offsets.
fn files(ships: &[Ship], first: &str, have: u64) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(first.to_owned(), vec![0; have as usize])];
    for ship in ships {
        match ship {
            Ship::Bytes { offset, bytes } => {
                let (_, content) = files.last_mut().unwrap();
                assert_eq!(*offset, content.len() as u64, "gapless");
                assert!(!bytes.is_empty() && bytes.len() <= MAX_PIECE);
                content.extend_from_slice(bytes);
            }
            Ship::Rotated { len, next } => {
                assert_eq!(*len, files.last().unwrap().1.len() as u64);
                files.push((next.clone(), Vec::new()));
            }
            Ship::Begin { file, .. } => assert_eq!(*file, files.last().unwrap().0),
            Ship::AckWanted { .. } | Ship::Alive | Ship::Group(_) => {}
        }
    }
    files
}

fn closed(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[21] &= !1;
    file
}

#[test]
fn files_come_out_byte_for_byte_in_every_cut() {
    for pair in FILES.chunks(2) {
        for prefix in [&[][..], &[0xef, 0][..]] {
            let mut wire = Wire::new(prefix);
            for (name, file) in pair {
                wire.file(name, file, 4);
            }
            for step in [1, 7, 23, 4096, wire.bytes.len()] {
                let mut session = StreamSession::at(pair[0].0, 0, None, !prefix.is_empty());
                let ships = run(&mut session, &wire.bytes, step).unwrap();
                let files = files(&ships, pair[0].0, 0);
                for ((name, file), (found_name, found)) in pair.iter().zip(&files) {
                    assert_eq!(name, found_name);
                    assert!(*found == closed(file), "{name} in steps of {step}");
                }
                assert_eq!(session.end(), pair[1].1.len() as u64);
            }
        }
    }
}

#[test]
fn a_file_goes_on_at_every_event() {
    for (name, file) in FILES {
        let mut at = 4;
        for event in events(file) {
            at += event.len() as u64;
            let mut wire = Wire::new(&[]);
            wire.file(name, file, at);
            let mut session = StreamSession::at(name, at, Some(format(file)), false);
            assert_eq!(u64::from(StreamSession::dump_from(at)), at);
            let ships = run(&mut session, &wire.bytes, 1000).unwrap();
            assert!(!ships.iter().any(|ship| matches!(ship, Ship::Begin { .. })));
            let found = &files(&ships, name, at)[0].1;
            assert!(found[at as usize..] == file[at as usize..], "{name} from {at}");
        }
    }
}

#[test]
fn behind_four_gigabytes_the_start_is_read_and_not_shipped() {
    assert_eq!(StreamSession::dump_from(u64::from(u32::MAX) + 1), 4);
    let (name, file) = FILES[0];
    let mut wire = Wire::new(&[]);
    wire.file(name, file, 4);
    let have = 4 + (events(file)[0].len() + events(file)[1].len()) as u64;
    let mut session = StreamSession::at(name, have, Some(format(file)), false);
    session.offset = 4; // as if `have` had more than 32 bits
    let ships = run(&mut session, &wire.bytes, 500).unwrap();
    let found = &files(&ships, name, have)[0].1;
    assert!(found[have as usize..] == file[have as usize..]);
    // The server's file is shorter than what is there of it.
    let len = file.len() as u64;
    let mut session = StreamSession::at(name, len + 100, Some(format(file)), false);
    session.offset = 4;
    wire.rotate("mariadb.000099", 4, Checksum::None);
    let fault = run(&mut session, &wire.bytes, 500).unwrap_err();
    assert_eq!(fault, StreamFault::Shorter { file: name.to_owned(), len });
}

#[test]
fn a_file_of_the_same_name_from_another_server_is_not_continued() {
    let (name, file) = FILES[0];
    let at = file.len() as u64;
    let mut wire = Wire::new(&[]);
    wire.file(name, file, at);
    let mut session = StreamSession::at(name, at, Some(format(FILES[1].1)), false);
    let fault = run(&mut session, &wire.bytes, 100).unwrap_err();
    assert_eq!(fault, StreamFault::AnotherServer { file: name.to_owned() });
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let (name, file) = FILES[0];
    let first = events(file)[0].len();
    let mut changed = 0;
    for at in (4 + first..file.len()).step_by(3) {
        let mut bad = file.to_vec();
        bad[at] ^= 0x10;
        let mut wire = Wire::new(&[]);
        wire.rotate(name, 4, Checksum::None);
        wire.event(format(file).bytes());
        let mut from = 4 + first;
        for event in events(file).iter().skip(1) {
            wire.event(&bad[from..from + event.len()]);
            from += event.len();
        }
        let mut session = StreamSession::at(name, 0, None, false);
        let mut out = Vec::new();
        let mut assembler = StreamAssembler::new();
        let mut bytes = wire.bytes.as_slice();
        let mut fault = None;
        while let Some(piece) = assembler.push(&mut bytes).unwrap() {
            if let Err(found) = session.piece(piece, &mut out) {
                fault = Some(found);
                break;
            }
        }
        // A flag or a log_pos may make an event look artificial: then the next one does not follow.
        assert!(fault.is_some() || session.end() < file.len() as u64, "byte {at}");
        changed += 1;
    }
    assert!(changed > 50);
}

#[test]
fn a_missing_event_is_a_gap() {
    let (name, file) = FILES[0];
    let mut wire = Wire::new(&[]);
    wire.rotate(name, 4, Checksum::Crc32);
    wire.event(format(file).bytes());
    wire.event(events(file)[2]);
    let mut session = StreamSession::at(name, 0, None, false);
    let fault = run(&mut session, &wire.bytes, 100).unwrap_err();
    assert!(matches!(fault, StreamFault::Scan { fault: ScanFault::LogPos { .. }, .. }), "{fault}");
}

#[test]
fn errors_ends_and_encryption_are_told_apart() {
    let (name, file) = FILES[0];
    let purged =
        ServerError::new(1236, "HY000", "Could not find first log file name in binary log index file");
    let mut wire = Wire::new(&[]);
    write_packet(&mut wire.bytes, &mut wire.sequence, &purged.encode());
    let fault = run(&mut StreamSession::at(name, 0, None, false), &wire.bytes, 5).unwrap_err();
    assert_eq!(fault, StreamFault::Server(purged));

    let mut wire = Wire::new(&[]);
    wire.rotate(name, 4, Checksum::None);
    write_packet(&mut wire.bytes, &mut wire.sequence, &[0xfe, 0, 0, 2, 0]);
    let fault = run(&mut StreamSession::at(name, 0, None, false), &wire.bytes, 5).unwrap_err();
    assert_eq!(fault, StreamFault::Ended);

    let mut wire = Wire::new(&[]);
    wire.rotate(name, 4, Checksum::None);
    wire.event(format(file).bytes());
    let header = EventHeader {
        timestamp: 1,
        kind: Kind::START_ENCRYPTION,
        server_id: 1,
        size: 36,
        log_pos: 0,
        flags: 0,
    };
    wire.event(&[&header.encode()[..], &[0; 17]].concat());
    let fault = run(&mut StreamSession::at(name, 0, None, false), &wire.bytes, 5).unwrap_err();
    assert_eq!(fault, StreamFault::Encrypted);

    let mut wire = Wire::new(&[]);
    wire.rotate("other.000009", 4, Checksum::None);
    let fault = run(&mut StreamSession::at(name, 0, None, false), &wire.bytes, 5).unwrap_err();
    assert!(matches!(fault, StreamFault::AnotherFile { .. }));
}

#[test]
fn acknowledgements_are_wanted_where_the_server_says_so() {
    let (name, file) = FILES[0];
    let mut wire = Wire::new(&[0xef, 0]);
    wire.rotate(name, 4, Checksum::None);
    wire.event(format(file).bytes());
    wire.prefix = &[0xef, 1];
    wire.event(events(file)[1]);
    let mut session = StreamSession::at(name, 0, None, true);
    let ships = run(&mut session, &wire.bytes, 9).unwrap();
    let end = (4 + events(file)[0].len() + events(file)[1].len()) as u64;
    assert!(ships.contains(&Ship::AckWanted { end }));
    // A server that does not know semi-sync sends no prefix, although it was offered.
    let mut wire = Wire::new(&[]);
    wire.file(name, file, 4);
    let mut session = StreamSession::at(name, 0, None, true);
    assert!(run(&mut session, &wire.bytes, 9).is_ok());
    assert_eq!(session.end(), file.len() as u64);
}

#[test]
fn heartbeats_say_that_the_server_is_alive() {
    let (name, file) = FILES[0];
    let mut wire = Wire::new(&[]);
    wire.file(name, file, 4);
    wire.event(&build::heartbeat(1, name, file.len() as u64, Checksum::Crc32));
    let mut session = StreamSession::at(name, 0, None, false);
    let ships = run(&mut session, &wire.bytes, 100).unwrap();
    assert!(ships.contains(&Ship::Alive));
    assert_eq!(session.end(), file.len() as u64);
}

#[test]
fn garbage_is_a_fault_and_never_a_panic() {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut faults = 0;
    for round in 0..1500 {
        let semi = round % 2 == 0;
        let pair = &FILES[if round % 4 < 2 { 0..2 } else { 2..4 }];
        let mut wire = Wire::new(if semi { &[0xef, 1] } else { &[] });
        for (name, file) in pair {
            wire.file(name, file, 4);
        }
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..wire.bytes.len());
            match random.random_range(0..3) {
                0 => wire.bytes[at] = random.random(),
                1 => wire.bytes.truncate(at.max(1)),
                _ => drop(wire.bytes.drain(at..(at + random.random_range(1..40)).min(wire.bytes.len()))),
            }
            if wire.bytes.is_empty() {
                break;
            }
        }
        let mut session = StreamSession::at(pair[0].0, 0, None, semi);
        let (mut assembler, mut out) = (StreamAssembler::new(), Vec::new());
        let step = random.random_range(1..5000);
        'stream: for mut chunk in wire.bytes.chunks(step) {
            loop {
                match assembler.push(&mut chunk) {
                    Ok(Some(piece)) if session.piece(piece, &mut out).is_err() => {
                        faults += 1;
                        break 'stream;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
        }
        session.flush(&mut out);
        // What was shipped of whole events is what the server has.
        let shipped = files(&out, pair[0].0, 0);
        for ((name, bytes), (_, theirs)) in shipped.iter().zip(pair) {
            let whole = if *name == session.file() {
                session.end().min(bytes.len() as u64)
            } else {
                bytes.len() as u64
            };
            assert!(bytes[..whole as usize] == closed(theirs)[..whole as usize], "{name}");
        }
    }
    assert!(faults > 300, "{faults}");
}
