//! GTIDs: what is read as text or as bytes is written and read back the same; bodies of events never panic.
#![no_main]

use ehpc_proto::binlog::event::decode_previous_gtids;
use ehpc_proto::binlog::{
    EventHeader, Flavor, FormatDescription, GtidList, GtidState, MariaGtid, MySqlGtidEvent, MySqlSet, Query, Rotate,
    XaPrepare, Xid,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        for flavor in [Flavor::MariaDb, Flavor::MySql] {
            if let Ok(state) = GtidState::parse(flavor, text) {
                assert_eq!(GtidState::parse(flavor, &state.to_string()).as_ref(), Ok(&state));
                assert!(state.contains_all(&state));
                let mut merged = GtidState::empty(flavor);
                merged.merge(&state);
                assert_eq!(merged, state);
            }
        }
    }
    if let Ok(set) = MySqlSet::decode(data) {
        assert_eq!(MySqlSet::decode(&set.encode()).as_ref(), Ok(&set));
        assert_eq!(set.to_string().parse().as_ref(), Ok(&set));
    }
    if let Some(xid) = Xid::parse(data) {
        assert_eq!(Xid::parse(xid.to_string().as_bytes()), Some(xid));
    }
    if let Ok(format) = FormatDescription::decode(data) {
        let middle = format.as_mid_file();
        assert_eq!(FormatDescription::decode(middle.bytes()), Ok(middle));
    }
    if let Ok(header) = EventHeader::decode(data) {
        assert_eq!(header.encode(), data[..EventHeader::LEN]);
        let body = &data[EventHeader::LEN..];
        let _ = MariaGtid::decode(&header, body);
        let _ = MySqlGtidEvent::decode(body);
        let _ = GtidList::decode(body);
        let _ = Query::decode(body);
        let _ = Rotate::decode(body);
        let _ = XaPrepare::decode(body);
        let _ = decode_previous_gtids(body);
    }
});
