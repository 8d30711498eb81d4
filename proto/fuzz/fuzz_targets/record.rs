//! Record marking: however the bytes are cut, the same records come out, none over the limit.
#![no_main]

use ehpc_proto::record::{Assembler, RecordError};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 5000;

fn all(bytes: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<RecordError>) {
    let mut assembler = Assembler::new(LIMIT);
    let mut records = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            match assembler.feed(&mut piece) {
                Ok(Some(record)) => {
                    assert!(record.len() <= LIMIT);
                    records.push(record);
                }
                Ok(None) => break,
                Err(error) => return (records, Some(error)),
            }
        }
        assert!(piece.is_empty());
        assert!(assembler.announced() <= LIMIT);
    }
    (records, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    assert_eq!(all(bytes, step), all(bytes, bytes.len().max(1)));
});
