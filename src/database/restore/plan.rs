//! Which base, and which parts of the binary log after it, lead to a place of the archive. Pure.

use ehpc_proto::replication::database::Place;

/// A base snapshot, as far as the choice needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BaseAt {
    /// Its number.
    pub number: u64,
    /// Its place in the archive.
    pub place: Place,
}

/// A lineage, as far as the choice needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Its number.
    pub lineage: u32,
    /// Where the lineage before it ended, and the GTID state there, when this one goes on from it (a failover). Without, what
    /// is before it leads nowhere (a gap).
    pub joined: Option<(Place, String)>,
}

/// Part of the archive that is applied in one go: everything between two places of one lineage.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First group.
    pub from: Place,
    /// After the last group; in the same lineage.
    pub to: Place,
    /// Groups that are in this GTID state are left out: they were applied before.
    pub skip: Option<String>,
}

/// The parts of the archive from `base` to `stop`, in order; `None` when no history leads from one to the other.
pub fn segments(base: Place, stop: Place, spans: &[Span]) -> Option<Vec<Segment>> {
    let mut segments = Vec::new();
    let mut to = stop;
    // Backwards, lineage by lineage.
    while to.lineage > base.lineage {
        let span = spans.iter().find(|span| span.lineage == to.lineage)?;
        let (end, gtid) = span.joined.as_ref()?;
        // A lineage goes on from an earlier one; anything else would never end.
        if end.lineage >= to.lineage {
            return None;
        }
        let from = Place { lineage: to.lineage, file: 1, offset: 0 };
        segments.push(Segment { from, to, skip: Some(gtid.clone()) });
        to = *end;
    }
    if to < base {
        return None;
    }
    if to > base {
        segments.push(Segment { from: base, to, skip: None });
    }
    segments.reverse();
    Some(segments)
}

/// The base that needs the least of the archive to reach `stop`, with that.
pub fn choose(bases: &[BaseAt], stop: Place, spans: &[Span]) -> Option<(BaseAt, Vec<Segment>)> {
    let mut newest_first = bases.to_vec();
    newest_first.sort_by_key(|base| std::cmp::Reverse((base.place, base.number)));
    newest_first.into_iter().filter(|base| base.place <= stop).find_map(|base| {
        let segments = segments(base.place, stop, spans)?;
        Some((base, segments))
    })
}

/// Cuts segments at `place`: what is before it, and the rest. `None` when it is on none of them.
pub fn cut(segments: &[Segment], place: Place) -> Option<(Vec<Segment>, Vec<Segment>)> {
    let at = segments
        .iter()
        .position(|one| one.from.lineage == place.lineage && one.from <= place && place <= one.to)?;
    let (mut before, mut after) = (segments[..at].to_vec(), segments[at + 1..].to_vec());
    let one = &segments[at];
    if place > one.from {
        before.push(Segment { to: place, ..one.clone() });
    }
    if place < one.to {
        after.insert(0, Segment { from: place, ..one.clone() });
    }
    Some((before, after))
}

/// A part of one file that is left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Its first byte.
    pub from: Place,
    /// Behind its last.
    pub to: Place,
    /// The GTID state there, with what was applied before that segment: one that leaves groups out by GTID goes on by it.
    pub behind: String,
}

/// Segments without these parts.
pub fn leave_out(segments: &[Segment], holes: &[Hole]) -> Vec<Segment> {
    let mut rest = segments.to_vec();
    for hole in holes {
        let parts = rest.into_iter().flat_map(|one| {
            if hole.from < one.from || hole.to > one.to {
                return vec![one];
            }
            let skip = one.skip.as_ref().map(|_| hole.behind.clone());
            let parts = [Segment { to: hole.from, ..one.clone() }, Segment { from: hole.to, skip, ..one }];
            parts.into_iter().filter(|part| part.from < part.to).collect()
        });
        rest = parts.collect();
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lineage: u32, file: u32, offset: u64) -> Place {
        Place { lineage, file, offset }
    }

    fn base(number: u64, place: Place) -> BaseAt {
        BaseAt { number, place }
    }

    fn whole(from: Place, to: Place) -> Segment {
        Segment { from, to, skip: None }
    }

    #[test]
    fn the_newest_base_before_the_stop_is_taken() {
        let spans = [Span { lineage: 1, joined: None }];
        let bases = [base(1, at(1, 1, 400)), base(2, at(1, 3, 10)), base(3, at(1, 3, 900))];
        let (chosen, segments) = choose(&bases, at(1, 3, 899), &spans).unwrap();
        assert_eq!((chosen.number, segments), (2, vec![whole(at(1, 3, 10), at(1, 3, 899))]));
        // Exactly there: nothing of the archive is needed.
        let (chosen, segments) = choose(&bases, at(1, 3, 900), &spans).unwrap();
        assert_eq!((chosen.number, segments), (3, vec![]));
        assert_eq!(choose(&bases, at(1, 1, 399), &spans), None);
        // Of two at one place the later one.
        let twice = [base(5, at(1, 1, 4)), base(4, at(1, 1, 4))];
        assert_eq!(choose(&twice, at(1, 1, 4), &spans).unwrap().0.number, 5);
    }

    #[test]
    fn a_failover_is_crossed_and_a_gap_is_not() {
        let joined = Some((at(1, 4, 700), "0-1-99".to_owned()));
        let spans = [
            Span { lineage: 1, joined: None },
            Span { lineage: 2, joined },
            Span { lineage: 3, joined: None },
        ];
        let bases = [base(1, at(1, 2, 50)), base(2, at(1, 4, 800))];
        // The second base is of what the new server never had.
        let (chosen, segments) = choose(&bases, at(2, 2, 60), &spans).unwrap();
        assert_eq!(chosen.number, 1);
        let second = Segment { from: at(2, 1, 0), to: at(2, 2, 60), skip: Some("0-1-99".to_owned()) };
        assert_eq!(segments, [whole(at(1, 2, 50), at(1, 4, 700)), second]);
        assert_eq!(choose(&bases, at(3, 1, 500), &spans), None);
        assert_eq!(choose(&bases, at(1, 4, 900), &spans).unwrap().0.number, 2);
        // A lineage that says of itself that it goes on from itself.
        let circle = [Span { lineage: 2, joined: Some((at(2, 1, 4), String::new())) }];
        assert_eq!(choose(&bases, at(2, 2, 60), &circle), None);
    }

    #[test]
    fn segments_are_cut_at_a_place() {
        let segments = [
            whole(at(1, 2, 50), at(1, 4, 700)),
            Segment { from: at(2, 1, 0), to: at(2, 2, 60), skip: Some("x".to_owned()) },
        ];
        let (before, after) = cut(&segments, at(1, 3, 5)).unwrap();
        assert_eq!(before, [whole(at(1, 2, 50), at(1, 3, 5))]);
        assert_eq!(after, [whole(at(1, 3, 5), at(1, 4, 700)), segments[1].clone()]);
        let (before, after) = cut(&segments, at(1, 2, 50)).unwrap();
        assert_eq!((before, after.as_slice()), (vec![], &segments[..]));
        let (before, after) = cut(&segments, at(2, 2, 60)).unwrap();
        assert_eq!((before.as_slice(), after), (&segments[..], vec![]));
        assert_eq!(cut(&segments, at(1, 4, 701)), None);
    }

    #[test]
    fn what_is_left_out_lies_between_segments() {
        let second = |from, to, skip: &str| Segment { from, to, skip: Some(skip.to_owned()) };
        let segments = [whole(at(1, 2, 50), at(1, 4, 700)), second(at(2, 1, 0), at(2, 2, 60), "0-1-9")];
        let hole = |from, to, behind: &str| Hole { from, to, behind: behind.to_owned() };
        let holes = [hole(at(1, 3, 5), at(1, 3, 25), "0-1-7"), hole(at(2, 1, 30), at(2, 1, 40), "0-1-12")];
        // What leaves groups out by GTID goes on behind what was left out.
        let rest = [
            whole(at(1, 2, 50), at(1, 3, 5)),
            whole(at(1, 3, 25), at(1, 4, 700)),
            second(at(2, 1, 0), at(2, 1, 30), "0-1-9"),
            second(at(2, 1, 40), at(2, 2, 60), "0-1-12"),
        ];
        assert_eq!(leave_out(&segments, &holes), rest);
        // At the ends, and all of it.
        let one = [whole(at(1, 2, 50), at(1, 4, 700))];
        let holes = [hole(at(1, 2, 50), at(1, 2, 60), ""), hole(at(1, 4, 690), at(1, 4, 700), "")];
        assert_eq!(leave_out(&one, &holes), [whole(at(1, 2, 60), at(1, 4, 690))]);
        assert_eq!(leave_out(&one, &[hole(at(1, 2, 50), at(1, 4, 700), "")]), []);
    }
}
