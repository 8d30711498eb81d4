//! Semi-synchronous replication: which acknowledgement the server may have. Pure.

use ehpc_proto::mysql::command::SemiSyncAck;
use ehpc_proto::replication::database::Place;
use std::collections::VecDeque;

/// Acknowledgements that the server waits for, in the order of the log.
#[derive(Default, Debug)]
pub struct Acks {
    wanted: VecDeque<(Place, String)>,
}

impl Acks {
    /// The server waits for everything up to `end`, in the file `name`.
    pub fn want(&mut self, end: Place, name: &str) {
        self.wanted.push_back((end, name.to_owned()));
    }

    /// The acknowledgement for what is on the backup's disk: the newest one that is wanted, once, and for how many it
    /// stands.
    pub fn answer(&mut self, durable: Place) -> Option<(SemiSyncAck, u64)> {
        let (mut newest, mut count) = (None, 0);
        while self.wanted.front().is_some_and(|(end, _)| *end <= durable) {
            newest = self.wanted.pop_front();
            count += 1;
        }
        newest.map(|(end, file)| (SemiSyncAck { position: end.offset, file }, count))
    }

    /// Acknowledgements that are still owed.
    pub fn owed(&self) -> usize {
        self.wanted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: u32, offset: u64) -> Place {
        Place { lineage: 1, file, offset }
    }

    #[test]
    fn only_what_is_durable_is_acknowledged_and_only_the_newest_of_it() {
        let mut acks = Acks::default();
        acks.want(place(1, 100), "bin.000001");
        acks.want(place(1, 200), "bin.000001");
        acks.want(place(2, 50), "bin.000002");
        assert_eq!(acks.answer(place(1, 99)), None);
        let ack =
            |position, file: &str, count| Some((SemiSyncAck { position, file: file.to_owned() }, count));
        assert_eq!(acks.answer(place(1, 250)), ack(200, "bin.000001", 2));
        assert_eq!(acks.answer(place(1, 260)), None, "once");
        assert_eq!(acks.owed(), 1);
        assert_eq!(acks.answer(place(2, 50)), ack(50, "bin.000002", 1));
        assert_eq!(acks.owed(), 0);
    }
}
