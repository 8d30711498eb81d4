//! Files of real servers (`tools/record/binlogs`): MariaDB 10.11 with every kind of group, MySQL 5.6 with and without
//! GTIDs. However they arrive, the same is read; whatever is changed in them is seen.

use super::random_tests::with_seeds;
use super::*;

macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../tests/data/binlog/", $name)).as_slice())
    };
}

/// Name and bytes.
pub(super) const FILES: [(&str, &[u8]); 9] = [
    file!("mariadb.000001"),
    file!("mariadb.000002"),
    file!("mariadb.000003"),
    file!("mariadb.000004"),
    file!("mariadb.000005"),
    file!("mysql56.000001"),
    file!("mysql56.000002"),
    file!("mysql56.000003"),
    file!("mysql56.000004"),
];

fn bytes(name: &str) -> &'static [u8] {
    FILES.iter().find(|(known, _)| *known == name).unwrap().1
}

/// An event with its body owned.
type Owned = (u64, EventHeader, Vec<u8>, bool);

fn read(scan: &mut FileScan, mut piece: &[u8], events: &mut Vec<Owned>) -> Result<(), ScanFault> {
    while let Some(event) = scan.next(&mut piece)? {
        events.push((event.start, event.header, event.body.to_vec(), event.complete));
    }
    assert!(piece.is_empty());
    Ok(())
}

/// All events of a file, or the fault; and the scan.
fn scanned(file: &[u8]) -> (Vec<Owned>, Result<(), ScanFault>, FileScan) {
    let (mut scan, mut events) = (FileScan::new(), Vec::new());
    let outcome = read(&mut scan, file, &mut events);
    (events, outcome, scan)
}

fn groups(file: &[u8]) -> (Vec<Group>, Grouper) {
    let (mut scan, mut grouper, mut groups, mut rest) = (FileScan::new(), Grouper::new(), Vec::new(), file);
    while let Some(event) = scan.next(&mut rest).unwrap() {
        groups.extend(grouper.event(&event).unwrap());
    }
    assert!(scan.is_at_boundary());
    assert_eq!(grouper.open(), None);
    (groups, grouper)
}

/// A group in one line.
fn line(group: &Group) -> String {
    let gtid = group.gtid.map_or("-".to_owned(), |gtid| match gtid {
        GroupGtid::Maria(gtid) => gtid.to_string(),
        GroupGtid::MySql(gtid) => gtid.number.to_string(),
    });
    let kind = match &group.kind {
        GroupKind::Ddl => "ddl".to_owned(),
        GroupKind::Transaction => "transaction".to_owned(),
        GroupKind::XaPrepare(xid) => format!("prepare {xid}"),
        GroupKind::XaEnd(xid) => format!("end {xid}"),
        GroupKind::Other => "other".to_owned(),
    };
    format!("{}-{} {gtid} {kind}", group.start, group.end)
}

fn lines(name: &str) -> Vec<String> {
    groups(bytes(name)).0.iter().map(line).collect()
}

#[test]
fn every_file_is_read_to_its_end() {
    for (name, file) in FILES {
        let (events, outcome, scan) = scanned(file);
        assert_eq!(outcome, Ok(()), "{name}");
        assert_eq!((scan.boundary(), scan.position()), (file.len() as u64, file.len() as u64), "{name}");
        let mut at = 4;
        for (start, header, ..) in &events {
            assert_eq!(*start, at);
            at += u64::from(header.size);
        }
        let format = scan.format().unwrap();
        let none = matches!(name, "mariadb.000004" | "mysql56.000004");
        assert_eq!(format.checksum, if none { Checksum::None } else { Checksum::Crc32 }, "{name}");
        assert_eq!(format.in_use, name == "mariadb.000005", "{name}");
        let (version, flavor) = match name.starts_with("maria") {
            true => ("10.11.", Flavor::MariaDb),
            false => ("5.6.24-log", Flavor::MySql),
        };
        assert!(format.server_version.starts_with(version), "{}", format.server_version);
        assert_eq!(format.flavor(), flavor);
        let last = events.last().unwrap();
        match last.1.kind {
            Kind::ROTATE => {
                let rotate = Rotate::decode(&last.2).unwrap();
                assert_eq!(rotate.position, 4);
                assert!(rotate.next.starts_with("bin.0000"));
            }
            kind => assert_eq!(kind, if name == "mariadb.000005" { Kind::XID } else { Kind::STOP }, "{name}"),
        }
    }
}

#[test]
fn groups_of_mariadb() {
    assert_eq!(
        lines("mariadb.000001"),
        [
            "322-451 0-7-1 ddl",
            "451-681 0-7-2 ddl",
            "681-975 0-7-3 transaction",
            "975-1436 0-7-4 transaction",
            "1436-1593 0-7-5 ddl",
            "1593-1853 0-7-6 transaction",
            "1853-2014 0-7-7 ddl",
            "2014-2372 0-7-8 prepare X'706179',X'6272616e6368',7",
            "2372-2547 0-7-9 ddl",
            "2547-2702 0-7-10 end X'706179',X'6272616e6368',7",
            "2702-3048 0-7-11 prepare X'756e646f6e65',X'',1",
            "3048-3196 0-7-12 end X'756e646f6e65',X'',1",
            "3196-3442 0-7-13 transaction",
            "3442-3579 0-7-14 ddl",
            "3579-3880 0-7-15 transaction",
            "3880-4107 0-7-16 transaction",
            "4107-4433 0-7-17 transaction",
            "4433-4685 3-7-1 transaction",
        ]
    );
    let (second, grouper) = groups(bytes("mariadb.000002"));
    assert_eq!(grouper.initial().unwrap().to_string(), "0-7-17,3-7-1");
    assert_eq!(second.iter().map(line).next_back().unwrap(), "2002-2570 0-7-23 ddl");
    assert_eq!(second.len(), 6);
    assert_eq!(
        lines("mariadb.000003"),
        ["352-644 0-7-24 transaction", "644-1023 0-7-25 transaction", "1023-1201 0-7-26 ddl"]
    );
    assert_eq!(lines("mariadb.000004").len(), 4);
    assert_eq!(lines("mariadb.000005"), ["389-624 0-7-31 transaction"]);
}

#[test]
fn groups_of_mysql() {
    assert_eq!(
        lines("mysql56.000001"),
        [
            "120-214 - ddl",
            "214-358 - ddl",
            "358-555 - transaction",
            "555-854 - transaction",
            "854-1092 - transaction",
            "1092-1206 - ddl",
            "1206-1439 - transaction",
            "1439-1663 - transaction",
            "1663-2025 - transaction",
        ]
    );
    assert_eq!(
        lines("mysql56.000002"),
        ["151-326 1 ddl", "326-566 2 transaction", "566-901 3 transaction", "901-1068 4 ddl"]
    );
    let (third, grouper) = groups(bytes("mysql56.000003"));
    let initial = grouper.initial().unwrap();
    assert!(initial.to_string().ends_with(":1-4"), "{initial}");
    assert!(!initial.contains(&third[0].gtid.unwrap()));
    let mut after = initial.clone();
    third.iter().for_each(|group| after.add(&group.gtid.unwrap()));
    let (_, grouper) = groups(bytes("mysql56.000004"));
    assert_eq!(grouper.initial(), Some(&after));
}

#[test]
fn any_pieces_give_the_same_events() {
    for (name, file) in FILES {
        let whole = scanned(file).0;
        let one_by_one = {
            let (mut scan, mut events) = (FileScan::new(), Vec::new());
            file.iter().for_each(|byte| read(&mut scan, &[*byte], &mut events).unwrap());
            events
        };
        assert_eq!(one_by_one, whole, "{name}");
        with_seeds(50, |random| {
            let (mut scan, mut events, mut rest) = (FileScan::new(), Vec::new(), file);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.below(300).min(rest.len()));
                read(&mut scan, piece, &mut events).unwrap();
                rest = after;
                let end = events.last().map_or(4, |(start, header, ..)| start + u64::from(header.size));
                assert_eq!(scan.position(), (file.len() - rest.len()) as u64);
                assert_eq!(scan.boundary(), if scan.position() < 4 { 0 } else { end });
                assert_eq!(scan.is_at_boundary(), scan.position() == end);
            }
            assert_eq!(events, whole);
        });
    }
}

#[test]
fn a_scan_goes_on_at_any_boundary() {
    for (name, file) in FILES {
        let (whole, _, first) = scanned(file);
        let format = first.format().unwrap();
        for (at, (start, ..)) in whole.iter().enumerate().skip(1) {
            let (mut scan, mut events) = (FileScan::resume(*start, format), Vec::new());
            assert!(scan.is_at_boundary());
            read(&mut scan, &file[*start as usize..], &mut events).unwrap();
            assert_eq!(events, whole[at..], "{name} from {start}");
            // One byte off is seen at once.
            let mut scan = FileScan::resume(*start + 1, format);
            assert!(read(&mut scan, &file[*start as usize..], &mut Vec::new()).is_err());
        }
    }
}

#[test]
fn every_cut_is_seen() {
    for (name, file) in FILES {
        let whole = scanned(file).0;
        for cut in 0..file.len() {
            let (events, outcome, scan) = scanned(&file[..cut]);
            assert_eq!(outcome, Ok(()));
            let complete =
                whole.iter().filter(|(start, header, ..)| start + u64::from(header.size) <= cut as u64);
            assert_eq!(events.len(), complete.count(), "{name} cut at {cut}");
            let end = events.last().map_or(4, |(start, header, ..)| start + u64::from(header.size));
            assert_eq!(scan.is_at_boundary(), cut as u64 == end);
        }
    }
}

#[test]
fn every_changed_bit_is_seen() {
    for (name, file) in FILES {
        let whole = scanned(file).0;
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.to_vec();
                changed[at] ^= 1 << bit;
                let (events, outcome, scan) = scanned(&changed);
                // Without checksums only what the format says can be seen: but nothing may panic.
                let mut grouper = Grouper::new();
                for (start, header, body, complete) in &events {
                    let event = Event { start: *start, header: *header, body, complete: *complete };
                    if grouper.event(&event).is_err() {
                        break;
                    }
                }
                let in_use = at == 4 + 17 && bit == 0;
                if in_use {
                    assert_eq!((events.len(), &outcome), (whole.len(), &Ok(())), "{name}");
                } else if at < 4 + scanned(file).2.format().unwrap().bytes().len() {
                    assert!(outcome.is_err() || !scan.is_at_boundary(), "{name}: bit {bit} of byte {at}");
                } else if scan.format().is_none_or(|format| format.checksum == Checksum::Crc32) {
                    let good = events == whole && scan.is_at_boundary();
                    assert!(outcome.is_err() || !good, "{name}: bit {bit} of byte {at} changed nothing");
                    assert!(outcome.is_err() || !scan.is_at_boundary(), "{name}: bit {bit} of byte {at}");
                }
            }
        }
    }
}

#[test]
fn a_fault_stays() {
    let mut file = bytes("mariadb.000001").to_vec();
    file[500] ^= 1;
    let (_, outcome, mut scan) = scanned(&file);
    let fault = outcome.unwrap_err();
    assert_eq!(fault, ScanFault::Checksum { at: 493, kind: Kind::QUERY });
    let mut rest: &[u8] = &file;
    assert_eq!(scan.next(&mut rest), Err(fault));
}

#[test]
fn missing_doubled_and_foreign_events_are_seen() {
    let file = bytes("mariadb.000001");
    let events = scanned(file).0;
    let cut = |n: usize| events[n].0 as usize..(events[n].0 + u64::from(events[n].1.size)) as usize;
    let without = [&file[..cut(5).start], &file[cut(5).end..]].concat();
    assert!(matches!(scanned(&without).1, Err(ScanFault::LogPos { .. })));
    let doubled = [&file[..cut(5).end], &file[cut(5).start..]].concat();
    assert!(matches!(scanned(&doubled).1, Err(ScanFault::LogPos { .. })));
    let second_format = [&file[..cut(0).end], &file[cut(0)]].concat();
    assert!(matches!(scanned(&second_format).1, Err(ScanFault::SecondFormat { at: 256 })));
    let no_format = [&file[..4], &file[cut(1)]].concat();
    assert!(matches!(scanned(&no_format).1, Err(ScanFault::Format(FormatFault::Kind(Kind::GTID_LIST)))));
    assert_eq!(scanned(b"#binlog").1, Err(ScanFault::Magic));
}

#[test]
fn an_encrypted_file_is_refused() {
    let mut file = bytes("mariadb.000004")[..256].to_vec();
    let header = EventHeader {
        timestamp: 1,
        kind: Kind::START_ENCRYPTION,
        server_id: 7,
        size: 19 + 17,
        log_pos: 256 + 19 + 17,
        flags: 0,
    };
    file.extend_from_slice(&header.encode());
    file.extend_from_slice(&[1; 17]);
    assert_eq!(scanned(&file).1, Err(ScanFault::Encrypted { at: 256 }));
}

#[test]
fn large_events_are_not_held() {
    // A statement and rows of 3 MiB, in a file without checksums, and offsets beyond 4 GiB.
    let format = scanned(bytes("mariadb.000004")).2.format().unwrap().clone();
    let start = (1 << 32) + 5;
    for (kind, kept) in [(Kind::QUERY, 64 * 1024 + 4), (Kind(30), 0), (Kind::GTID_LIST, 1024 * 1024 + 4)] {
        let size = 3 * 1024 * 1024;
        let log_pos = (start + u64::from(size)) as u32;
        let header = EventHeader { timestamp: 1, kind, server_id: 7, size, log_pos, flags: 0 };
        let (mut scan, mut events) = (FileScan::resume(start, &format), Vec::new());
        read(&mut scan, &header.encode(), &mut events).unwrap();
        let piece = vec![7; 1000];
        let mut left = size as usize - EventHeader::LEN;
        while left > 0 {
            let len = left.min(piece.len());
            read(&mut scan, &piece[..len], &mut events).unwrap();
            left -= len;
        }
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].2.len(), events[0].3), (kept, false), "{}", kind.0);
        assert_eq!(scan.boundary(), start + u64::from(size));
    }
}

#[test]
fn the_bit_in_use_and_the_copy_for_the_middle_of_a_file() {
    for (name, file) in FILES {
        let format = scanned(file).2.format().unwrap().clone();
        let used = format.clone().with_in_use(true);
        assert_eq!(FormatDescription::decode(used.bytes()).unwrap(), used);
        assert!(used.in_use);
        let unused = used.with_in_use(false);
        assert_eq!(unused.bytes(), format.clone().with_in_use(false).bytes());
        assert_eq!(FormatDescription::decode(unused.bytes()).unwrap(), unused);
        if name != "mariadb.000005" {
            assert_eq!(unused.bytes(), &file[4..4 + unused.bytes().len()]);
        }
        let middle = format.clone().as_mid_file();
        assert_eq!(FormatDescription::decode(middle.bytes()).unwrap(), middle);
        assert_eq!((middle.created, middle.header().log_pos, middle.in_use), (0, 0, false));
        assert_eq!(middle.checksum, format.checksum);
        assert_eq!(middle.header().timestamp, format.header().timestamp);
    }
}

#[test]
fn made_events_are_read_back() {
    for checksum in [Checksum::None, Checksum::Crc32] {
        let body = |event: &[u8]| {
            let header = EventHeader::decode(event).unwrap();
            assert_eq!(header.size as usize, event.len());
            assert!(header.is_artificial());
            let end = event.len() - checksum.len();
            if checksum == Checksum::Crc32 {
                assert_eq!(crc32fast::hash(&event[..end]).to_le_bytes(), event[end..]);
            }
            (header, event[EventHeader::LEN..end].to_vec())
        };
        let (header, rotate) = body(&build::fake_rotate(7, "bin.000002", 4, checksum));
        assert_eq!((header.kind, header.timestamp, header.log_pos), (Kind::ROTATE, 0, 0));
        assert_eq!(Rotate::decode(&rotate).unwrap(), Rotate { position: 4, next: "bin.000002".into() });
        let (header, name) = body(&build::heartbeat(7, "bin.000002", (1 << 32) + 300, checksum));
        assert_eq!(
            (header.kind, header.log_pos, name.as_slice()),
            (Kind::HEARTBEAT, 300, b"bin.000002".as_slice())
        );
        for gtids in [vec![], vec!["0-1-5".parse::<Gtid>().unwrap(), "3-2-9".parse().unwrap()]] {
            for until_reached in [false, true] {
                let (_, list) = body(&build::gtid_list(7, &gtids, until_reached, 0, checksum));
                assert_eq!(
                    GtidList::decode(&list).unwrap(),
                    GtidList { gtids: gtids.clone(), until_reached }
                );
            }
        }
    }
}

#[test]
fn names_of_files() {
    for good in ["bin.000001", "mysql-bin.999999", "a"] {
        assert!(is_file_name(good.as_bytes()));
    }
    for bad in ["", ".hidden", "..", "a/b", "a\0", "grün.1", "a b", &"x".repeat(256)] {
        assert!(!is_file_name(bad.as_bytes()), "{bad}");
    }
    let mut body = 4u64.to_le_bytes().to_vec();
    body.extend_from_slice(b"../../etc/passwd");
    assert!(matches!(Rotate::decode(&body), Err(BodyFault::FileName(_))));
}

#[test]
fn commit_time_of_mysql_8() {
    // From the manual; there is no such server here: flags, uuid, number, clock kind 2 with two numbers, 7 bytes of time
    // whose highest bit says that the original time follows, lengths and versions.
    let mut body = vec![1];
    body.extend_from_slice(&[7; 16]);
    body.extend_from_slice(&9u64.to_le_bytes());
    let old = MySqlGtidEvent::decode(&body).unwrap();
    assert_eq!((old.gtid, old.commit_micros), (MySqlGtid { sid: [7; 16], number: 9 }, None));
    body.push(2);
    body.extend_from_slice(&[0; 16]);
    assert_eq!(MySqlGtidEvent::decode(&body).unwrap().commit_micros, None);
    let micros = 1_700_000_000_123_456u64;
    for both in [0, 1 << 55] {
        let mut body = body.clone();
        body.extend_from_slice(&(micros | both).to_le_bytes()[..7]);
        body.extend_from_slice(&[9; 20]);
        assert_eq!(MySqlGtidEvent::decode(&body).unwrap().commit_micros, Some(micros));
    }
}

#[test]
fn branches_as_text() {
    let xid = Xid { format: 7, gtrid: b"pay".to_vec(), bqual: b"branch".to_vec() };
    assert_eq!(Xid::parse(xid.to_string().as_bytes()), Some(xid));
    for bad in ["", "X'7',X'',1", "X'zz',X'',1", "X'70'", "X'70',X'',", "X'70',X'',4294967296", "'a','b',1"] {
        assert_eq!(Xid::parse(bad.as_bytes()), None, "{bad}");
    }
}
