//! Binary log files: however they arrive, the same events, groups and faults; memory stays small.
#![no_main]

use ehpc_proto::binlog::{Event, FileScan, Group, GroupFault, Grouper, ScanFault};
use libfuzzer_sys::fuzz_target;

/// What is read of a file that arrives in pieces of `step` bytes.
fn read(file: &[u8], step: usize) -> (Vec<(u64, u64)>, Vec<Group>, Option<GroupFault>, Result<u64, ScanFault>) {
    let (mut scan, mut grouper) = (FileScan::new(), Grouper::new());
    let (mut events, mut groups, mut bad) = (Vec::new(), Vec::new(), None);
    for mut piece in file.chunks(step) {
        loop {
            let event: Event<'_> = match scan.next(&mut piece) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(fault) => return (events, groups, bad, Err(fault)),
            };
            assert!(event.body.len() <= event.header.size as usize);
            events.push((event.start, event.end()));
            if bad.is_none() {
                match grouper.event(&event) {
                    Ok(group) => groups.extend(group),
                    Err(fault) => bad = Some(fault),
                }
            }
        }
    }
    assert_eq!(scan.position(), file.len() as u64);
    let boundary = scan.boundary();
    (events, groups, bad, Ok(boundary))
}

fuzz_target!(|data: &[u8]| {
    let Some((step, file)) = data.split_first() else { return };
    let whole = read(file, file.len().max(1));
    assert_eq!(read(file, usize::from(*step).max(1)), whole);
    let (events, groups, ..) = whole;
    assert!(events.windows(2).all(|pair| pair[0].1 == pair[1].0));
    assert!(groups.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(groups.iter().all(|group| group.start < group.end));
});
