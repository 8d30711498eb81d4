//! GTIDs and sets of them: what is written is read back, and sets behave as sets of numbers do.

use super::random_tests::with_seeds;
use super::*;
use std::collections::BTreeSet;

#[test]
fn texts_of_mariadb() {
    let gtid: Gtid = "0-1-100".parse().unwrap();
    assert_eq!(gtid, Gtid { domain: 0, server: 1, seq: 100 });
    assert_eq!(gtid.to_string(), "0-1-100");
    for bad in
        ["", "0-1", "0-1-2-3", "-1-2-3", "a-1-2", "0-1-+2", "4294967296-1-1", "0-1-18446744073709551616"]
    {
        assert!(bad.parse::<Gtid>().is_err(), "{bad}");
    }
    let state: MariaState = "3-7-1, 0-1-100".parse().unwrap();
    assert_eq!(state.to_string(), "0-1-100,3-7-1");
    assert_eq!("".parse::<MariaState>().unwrap(), MariaState::default());
    assert_eq!("0-1-1,0-2-5".parse::<MariaState>(), Err(GtidFault::Twice(0)));
    assert!("0-1-1,".parse::<MariaState>().is_err());
}

#[test]
fn states_of_mariadb() {
    let state = |text: &str| GtidState::parse(Flavor::MariaDb, text).unwrap();
    let mut at = state("0-1-100,3-7-1");
    let gtid = |text: &str| GroupGtid::Maria(text.parse().unwrap());
    assert!(at.contains(&gtid("0-2-100")) && at.contains(&gtid("3-7-1")));
    assert!(!at.contains(&gtid("0-1-101")) && !at.contains(&gtid("1-1-1")));
    assert!(at.contains_all(&state("0-9-50")) && at.contains_all(&state("")));
    assert!(!at.contains_all(&state("0-1-100,4-1-1")));
    assert!(
        !at.contains_all(&GtidState::parse(Flavor::MySql, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1").unwrap())
    );
    at.add(&gtid("0-2-101"));
    at.merge(&state("0-1-90,5-1-2"));
    assert_eq!(at.to_string(), "0-2-101,3-7-1,5-1-2");
    let list = ["0-1-9", "1-1-1", "0-2-7"].map(|text| text.parse::<Gtid>().unwrap());
    assert_eq!(list.into_iter().collect::<MariaState>().to_string(), "0-2-7,1-1-1");
}

#[test]
fn texts_of_mysql() {
    let text = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,\n5E11FA47-71CA-11E1-9E33-C80AA9429562:3";
    let set: MySqlSet = text.parse().unwrap();
    assert_eq!(
        set.to_string(),
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,5e11fa47-71ca-11e1-9e33-c80aa9429562:3"
    );
    let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    for bad in [":0", ":5-4", ":", "", ":1-", ":-1", ":1-2-3", ":9223372036854775807"] {
        assert!(matches!(format!("{uuid}{bad}").parse::<MySqlSet>(), Err(GtidFault::MySql(_))), "{bad}");
    }
    assert!(matches!(format!("{uuid}:tag:1").parse::<MySqlSet>(), Err(GtidFault::Tag(_))));
    assert!("3e11fa4771ca11e19e33c80aa9429562:1".parse::<MySqlSet>().is_err());
    assert!("3e11fa47-71ca-11e1-9e33-c80aa942956ü:1".parse::<MySqlSet>().is_err());
}

#[test]
fn bytes_of_mysql_out_of_order_are_refused() {
    let set: MySqlSet = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7".parse().unwrap();
    let good = set.encode();
    assert_eq!(MySqlSet::decode(&good).unwrap(), set);
    for cut in 0..good.len() {
        assert_eq!(MySqlSet::decode(&good[..cut]), Err(GtidFault::Bytes), "{cut}");
    }
    for (at, byte) in [(32, 0), (40, 1), (48, 6), (48, 5), (56, 7), (63, 0xff)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(MySqlSet::decode(&bad), Err(GtidFault::Bytes), "{at}");
    }
    assert_eq!(MySqlSet::decode(&[0xff; 8]), Err(GtidFault::Bytes));
}

#[test]
fn sets_behave_as_sets() {
    with_seeds(300, |random| {
        let (mut set, mut model) = (MySqlSet::default(), BTreeSet::new());
        let (mut other, mut other_model) = (MySqlSet::default(), BTreeSet::new());
        for _ in 0..random.below(40) {
            let (set, model) =
                if random.below(3) == 0 { (&mut other, &mut other_model) } else { (&mut set, &mut model) };
            let (sid, first) = (random.below(3) as u8, 1 + random.below(40) as u64);
            let last = first + random.below(6) as u64;
            set.add_interval([sid; 16], first, last);
            model.extend((first..=last).map(|number| (sid, number)));
        }
        assert_eq!(set.contains_all(&other), other_model.is_subset(&model));
        for sid in 0..3 {
            for number in 1..50 {
                let gtid = MySqlGtid { sid: [sid; 16], number };
                assert_eq!(set.contains(gtid), model.contains(&(sid, number)), "{set} {gtid}");
            }
        }
        assert_eq!(set.to_string().parse::<MySqlSet>().unwrap(), set);
        assert_eq!(MySqlSet::decode(&set.encode()).unwrap(), set);
        // However it was built, it looks the same.
        let mut again = MySqlSet::default();
        model
            .iter()
            .rev()
            .for_each(|(sid, number)| again.add(MySqlGtid { sid: [*sid; 16], number: *number }));
        assert_eq!(again, set);
        set.merge(&other);
        assert!(set.contains_all(&other));
        model.extend(other_model);
        let mut again = MySqlSet::default();
        model.iter().for_each(|(sid, number)| again.add(MySqlGtid { sid: [*sid; 16], number: *number }));
        assert_eq!(again, set);
    });
}
