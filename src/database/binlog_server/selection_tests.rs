//! Who gets which groups, on the file of a real server.

use super::*;
use ehpc_proto::binlog::{FileScan, Flavor};

const MARIA: &[u8] = include_bytes!("../../../tests/data/binlog/mariadb.000001");
const MYSQL: &[u8] = include_bytes!("../../../tests/data/binlog/mysql56.000002");

/// GTIDs (of groups of which the end was sent) and offsets of other events that are sent.
fn sent(file: &[u8], mut selection: Selection) -> Result<(Vec<String>, Vec<u64>, Selection), SelectionFault> {
    let (mut scan, mut rest, mut grouper) = (FileScan::new(), file, Grouper::new());
    let (mut groups, mut others) = (Vec::new(), Vec::new());
    while let Some(event) = scan.next(&mut rest).unwrap() {
        let done = selection.is_done();
        let sends = !done && selection.event(&event)?;
        let open = grouper.open().is_some();
        match grouper.event(&event).unwrap() {
            Some(group) if sends => groups.push(group.gtid.unwrap().to_string()),
            None if sends && !open && grouper.open().is_none() => others.push(event.start),
            _ => {}
        }
    }
    Ok((groups, others, selection))
}

fn maria(state: &str, until: Option<&str>) -> Result<(Vec<String>, Vec<u64>, Selection), SelectionFault> {
    let state = GtidState::parse(Flavor::MariaDb, state).unwrap();
    let initial = GtidState::empty(Flavor::MariaDb);
    let until = until.map(|until| until.parse().unwrap());
    sent(MARIA, Selection::by_gtid(state, Some(&initial), until, true))
}

#[test]
fn from_the_beginning_everything() {
    let (groups, others, selection) = maria("", None).unwrap();
    assert_eq!(groups.len(), 18);
    assert_eq!(others, [4, 256, 285, 4685]);
    assert_eq!(selection.state().unwrap().to_string(), "0-7-17,3-7-1");
}

#[test]
fn what_the_replica_has_is_left_out() {
    for have in 1..=17 {
        let (groups, others, selection) = maria(&format!("0-7-{have}"), None).unwrap();
        let expected: Vec<_> =
            (have + 1..=17).map(|seq| format!("0-7-{seq}")).chain(["3-7-1".into()]).collect();
        assert_eq!(groups, expected);
        assert_eq!(others, [4, 256, 285, 4685]);
        assert_eq!(selection.state().unwrap().to_string(), "0-7-17,3-7-1");
    }
    assert_eq!(maria("0-7-17,3-7-1", None).unwrap().0, Vec::<String>::new());
}

#[test]
fn a_replica_that_has_diverged_is_refused() {
    let start: Gtid = "0-9-5".parse().unwrap();
    assert_eq!(maria("0-9-5", None).unwrap_err(), SelectionFault::Diverged(start));
    // Of a domain that is not in this log, nothing can be said.
    assert_eq!(maria("5-1-1", None).unwrap().0.len(), 18);
}

#[test]
fn until_is_exact() {
    for until in 4..17 {
        let (groups, _, selection) = maria("0-7-3", Some(&format!("0-7-{until}"))).unwrap();
        assert_eq!(groups, (4..=until).map(|seq| format!("0-7-{seq}")).collect::<Vec<_>>());
        assert!(selection.is_done());
        assert_eq!(selection.state().unwrap().to_string(), format!("0-7-{until}"));
    }
    // Both domains: it ends when both have been reached; the other groups of a finished domain are left out.
    let (groups, _, selection) = maria("0-7-15", Some("0-7-16,3-7-1")).unwrap();
    assert_eq!(groups, ["0-7-16", "3-7-1"]);
    assert!(selection.is_done());
    // Reached before anything is sent.
    assert!(maria("0-7-10", Some("0-7-9")).unwrap().2.is_done());
    assert_eq!(maria("0-7-10", Some("0-7-9")).unwrap().0, Vec::<String>::new());
    // Not reached in this file.
    assert!(!maria("0-7-10", Some("0-7-99")).unwrap().2.is_done());
}

#[test]
fn mysql_by_set() {
    let all = sent(MYSQL, Selection::by_gtid(GtidState::empty(Flavor::MySql), None, None, false)).unwrap();
    assert_eq!(all.0.len(), 4);
    assert!(all.2.state().unwrap().to_string().ends_with(":1-4"));
    let uuid = all.2.state().unwrap().to_string();
    let uuid = uuid.split(':').next().unwrap();
    let have = GtidState::parse(Flavor::MySql, &format!("{uuid}:1:3")).unwrap();
    let (groups, ..) = sent(MYSQL, Selection::by_gtid(have, None, None, false)).unwrap();
    assert_eq!(groups, [format!("{uuid}:2"), format!("{uuid}:4")]);
}

#[test]
fn statements_as_comments_only_on_request() {
    let kinds = |annotate| {
        let (mut scan, mut rest, mut selection) = (FileScan::new(), MARIA, Selection::everything(annotate));
        let mut kinds = Vec::new();
        while let Some(event) = scan.next(&mut rest).unwrap() {
            if selection.event(&event).unwrap() {
                kinds.push(event.header.kind);
            }
        }
        kinds
    };
    let with = kinds(true);
    assert!(with.contains(&Kind::ANNOTATE_ROWS));
    let without: Vec<_> = with.into_iter().filter(|kind| *kind != Kind::ANNOTATE_ROWS).collect();
    assert_eq!(kinds(false), without);
}
