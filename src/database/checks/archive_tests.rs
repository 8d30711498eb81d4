//! An archive against a real server's files: equal, and every kind of difference found at its place.

use super::local::NARROW;
use super::*;
use crate::database::checks::{DatabaseReport, Whole};
use crate::database::link::BoxFuture;
use ehpc_proto::replication::database::{ArchiveDamage, DrillState};
use ehpc_tools::database::{Maria, Options};

/// Copies of a server's files as an archive holds them, and the answers of a backup about them.
struct Copies {
    dir: tempfile::TempDir,
    files: Vec<ArchivedFile>,
    damage: Vec<ArchiveDamage>,
    /// Files that the backup has no answer about, by their ordinals: one that is listed, and one that is pruned meanwhile.
    refused: [Option<u32>; 2],
    /// The connection to the backup is lost when this file's turn comes.
    broken: Option<u32>,
    /// What becomes of a drill.
    drill: Option<DrillState>,
}

impl Copies {
    fn of(server: &Maria) -> Copies {
        let dir = tempfile::tempdir().unwrap();
        let archived = server.archived_binlogs().unwrap();
        let count = archived.len();
        let files = archived.into_iter().zip(1..).map(|((name, bytes), ordinal)| {
            std::fs::write(dir.path().join(&name), &bytes).unwrap();
            let closed = usize::try_from(ordinal).unwrap() < count;
            ArchivedFile { lineage: 1, ordinal, name, len: bytes.len() as u64, closed }
        });
        let files = files.collect();
        Copies { dir, files, damage: Vec::new(), refused: [None; 2], broken: None, drill: None }
    }

    fn path(&self, at: usize) -> PathBuf {
        self.dir.path().join(&self.files[at].name)
    }

    fn ask(&self) -> Ask {
        let (dir, files, damage) = (self.dir.path().to_owned(), self.files.clone(), self.damage.clone());
        let (refused, pruned) = (self.refused, AtomicBool::new(false));
        let (broken, drill) = (self.broken, self.drill.clone());
        Arc::new(move |query| {
            let answer = match query {
                DbQuery::Check { ordinal, .. } if broken == Some(ordinal) => {
                    return Box::pin(async { Err("the connection was lost".to_owned()) });
                }
                DbQuery::Check { ordinal, .. } if refused.contains(&Some(ordinal)) => {
                    pruned.fetch_or(refused[1] == Some(ordinal), Ordering::Relaxed);
                    DbAnswer::Failed { reason: "no such luck".to_owned() }
                }
                DbQuery::Files { from } => DbAnswer::Files(
                    files
                        .iter()
                        .filter(|file| !pruned.load(Ordering::Relaxed) || Some(file.ordinal) != refused[1])
                        .filter(|file| (file.lineage, file.ordinal) >= from)
                        .take(2)
                        .cloned()
                        .collect(),
                ),
                DbQuery::Check { ordinal, .. } => {
                    DbAnswer::Checked(if ordinal == 1 { damage.clone() } else { Vec::new() })
                }
                DbQuery::Hash { ordinal, from, to, .. } => {
                    let file = files.iter().find(|file| file.ordinal == ordinal).unwrap();
                    let bytes = std::fs::read(dir.join(&file.name)).unwrap();
                    let (from, to) = (usize::try_from(from).unwrap(), usize::try_from(to).unwrap());
                    DbAnswer::Hash(Hash::of(&bytes[from..to]))
                }
                DbQuery::Drill { .. } => DbAnswer::Drill(drill.clone().unwrap()),
                DbQuery::StandbySql { .. } | DbQuery::StandbyClose { .. } => {
                    DbAnswer::Failed { reason: "no standby there".to_owned() }
                }
                other => panic!("{other:?}"),
            };
            Box::pin(async { Ok(vec![answer]) }) as BoxFuture<'static, _>
        })
    }
}

fn dsn(server: &Maria) -> Dsn {
    Dsn::socket(server.socket(), "root")
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn check_with(server: &Maria, copies: &Copies) -> ArchiveReport {
    run(async { check(&dsn(server), &copies.ask(), &Arc::default()).await.unwrap() })
}

/// As if the server's files were in `directory`, if they are on this host at all.
fn check_from(server: &Maria, directory: Option<PathBuf>, copies: &Copies) -> ArchiveReport {
    run(async {
        let dsn = dsn(server);
        let mut sql = Sql::connect(&dsn).await.unwrap();
        check_at(&mut sql, &dsn, directory, &copies.ask(), &Arc::default()).await.unwrap()
    })
}

/// What verify as a whole says.
fn whole(server: &Maria, copies: &Copies) -> DatabaseReport {
    let primary = dsn(server);
    let whole = Whole {
        primary: &primary,
        ask: copies.ask(),
        standby: copies.drill.is_some(),
        drill: copies.drill.is_some(),
        deep: false,
        progress: &|_| {},
        tell: &|_| {},
        stop: Arc::default(),
    };
    run(whole.run()).unwrap()
}

fn server() -> Maria {
    server_with(1)
}

fn server_with(id: u32) -> Maria {
    let server = Maria::start(Options::default().server_id(id)).unwrap();
    server.sql("CREATE DATABASE d; CREATE TABLE d.t (a INT PRIMARY KEY, b LONGBLOB)").unwrap();
    for n in 0..4 {
        server.sql(&format!("INSERT INTO d.t VALUES ({n}, REPEAT('x', 100000)); FLUSH BINARY LOGS")).unwrap();
    }
    server.sql("INSERT INTO d.t VALUES (9, 'open')").unwrap();
    server
}

#[test]
fn equal_with_a_file_in_use() {
    let mut server = server();
    // The mark of being in use stays in the file that a killed server leaves.
    server.kill9().unwrap();
    server.restart().unwrap();
    server.sql("INSERT INTO d.t VALUES (10, 'after')").unwrap();
    let copies = Copies::of(&server);
    // What comes later is not in the archive yet.
    server.sql("INSERT INTO d.t VALUES (11, 'later')").unwrap();
    let report = check_with(&server, &copies);
    assert_eq!((&report.differences, &report.unchecked), (&Vec::new(), &Vec::new()), "{report}");
    assert_eq!((report.files, report.compared, report.older), (6, 6, 0));
    assert!(report.bytes > 400_000 && report.bytes == report.compared_bytes);
    // What fails after that takes nothing of what was found away; a backup that cannot be restored is a finding.
    let mut copies = copies;
    for (state, equal) in [
        (DrillState::Failed("no mariadbd".to_owned()), true),
        (DrillState::Unsound("ERROR 1146".to_owned()), false),
    ] {
        copies.drill = Some(state);
        let report = whole(&server, &copies);
        let said = report.to_string();
        assert_eq!((report.archive.compared, report.equal), (6, equal), "{said}");
        assert!(report.failed[0].contains("no standby there") && said.contains("no standby there"), "{said}");
        assert_eq!((report.failed.len() == 2, report.unsound.is_some()), (equal, !equal), "{said}");
        assert!(said.contains(if equal { "no mariadbd" } else { "NOT SOUND ERROR 1146" }), "{said}");
    }
    copies.drill = None;
    // Purged files are the backup's alone.
    server.sql("PURGE BINARY LOGS TO 'bin.000003'").unwrap();
    let report = check_with(&server, &copies);
    assert_eq!((report.differences.len(), report.compared, report.older), (0, 4, 2), "{report}");
    let said = whole(&server, &copies).to_string();
    assert!(said.contains("EQUAL") && said.contains("as far as its binary logs are still there"), "{said}");
    // With nothing left to compare with, nothing is said.
    server.sql("FLUSH BINARY LOGS").unwrap();
    // One goes only when nothing that is in it can be needed to recover.
    let gone = || server.sql("PURGE BINARY LOGS TO 'bin.000007'; SHOW BINARY LOGS").unwrap().len() == 1;
    ehpc_tools::process::wait_until("purged files", std::time::Duration::from_secs(20), gone).unwrap();
    let said = whole(&server, &copies).to_string();
    assert!(
        said.starts_with("NOT VERIFIED") && said.contains("none of the archive's 6 files could be compared"),
        "{said}"
    );
}

#[test]
fn files_that_are_not_to_be_read_here_are_fetched() {
    let server = server();
    let mut copies = Copies::of(&server);
    // Names and numbers of another server's files are the same.
    let other = server_with(2);
    let elsewhere = other.binlog_files().unwrap()[0].parent().unwrap().to_owned();
    for directory in [None, Some("/nonexistent".into()), Some(elsewhere)] {
        let report = check_from(&server, directory.clone(), &copies);
        assert_eq!((report.differences.len(), report.unchecked.len()), (0, 0), "{directory:?} {report}");
        assert_eq!((report.compared, report.fetched, report.compared_bytes), (5, 5, report.bytes));
        assert!(report.to_string().contains("5 of these were sent by the server once more"), "{report}");
    }
    let mut bytes = std::fs::read(copies.path(1)).unwrap();
    bytes[70_000] ^= 4;
    std::fs::write(copies.path(1), &bytes).unwrap();
    // Without its last event.
    let bytes = std::fs::read(copies.path(2)).unwrap();
    let next = |at: usize| at + u32::from_le_bytes(bytes[at + 9..at + 13].try_into().unwrap()) as usize;
    let last = std::iter::successors(Some(4), |at| Some(next(*at)).filter(|at| *at < bytes.len())).last();
    copies.files[2].len = last.unwrap() as u64;
    copies.files[4].len += 50;
    let report = check_from(&server, None, &copies);
    let found: Vec<(&str, &str)> =
        report.differences.iter().map(|found| (found.name.as_str(), found.what.as_str())).collect();
    assert_eq!(found.len(), 3, "{report}");
    let what = format!("bytes 65536 to {} are not those that the server sends", copies.files[1].len);
    assert_eq!(found[0], ("bin.000002", what.as_str()));
    assert!(found[1].0 == "bin.000003" && found[1].1.contains("which has closed the file"), "{report}");
    assert!(found[2].0 == "bin.000005" && found[2].1.contains("has lost what it sent"), "{report}");
    // Half an event of a server that was killed is never sent.
    let copies = Copies::of(&server);
    let path = &server.binlog_files().unwrap()[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes.extend_from_within(4..60);
    std::fs::write(path, &bytes).unwrap();
    let report = check_from(&server, None, &copies);
    assert_eq!((report.differences.len(), report.compared), (0, 5), "{report}");
}

#[test]
fn differences_are_found_where_they_are() {
    let server = server();
    let mut copies = Copies::of(&server);
    let mut bytes = std::fs::read(copies.path(1)).unwrap();
    bytes[70_000] ^= 4;
    std::fs::write(copies.path(1), &bytes).unwrap();
    // A tail that the server has and the archive has not.
    copies.files[2].len -= 31;
    // A tail that the server has lost.
    copies.files[4].len += 50;
    copies.damage = vec![ArchiveDamage { at: Some(77), reason: "wrong checksum".into() }];
    let report = check_with(&server, &copies);
    let found: Vec<(&str, &str)> =
        report.differences.iter().map(|found| (found.name.as_str(), found.what.as_str())).collect();
    assert_eq!(found.len(), 4, "{report}");
    assert_eq!(found[0], ("bin.000001", "damaged on the backup at byte 77: wrong checksum"));
    let (name, what) = found[1];
    let numbers: Vec<u64> = what.split(' ').filter_map(|word| word.parse().ok()).collect();
    assert!(name == "bin.000002" && numbers[0] <= 70_000 && numbers[1] > 70_000, "{what}");
    assert!(numbers[1] - numbers[0] <= NARROW, "{what}");
    assert!(found[2].0 == "bin.000003" && found[2].1.contains("which has closed the file"), "{report}");
    assert!(found[3].0 == "bin.000005" && found[3].1.contains("has lost what it sent"), "{report}");
    // What ends it early takes none of that away, nor the rest of verify.
    copies.broken = Some(3);
    copies.drill = Some(DrillState::Failed("unused".to_owned()));
    let report = whole(&server, &copies);
    assert_eq!((report.archive.differences.len(), report.equal), (2, false), "{report}");
    assert!(report.failed[0].contains("the connection was lost"), "{report}");
    assert!(report.failed[1].contains("no standby there"), "{report}");
    // Nor does a repair, behind which nobody could look: what was different may be so still.
    copies.damage.clear();
    copies.broken = Some(1);
    let second = whole(&server, &copies);
    assert!(second.archive.is_equal());
    let told = report.clone().after_repair(Ok(second.clone()));
    assert_eq!((told.equal, told.archive.differences.len(), told.repaired.len()), (false, 2, 2));
    assert!(told.failed.last().unwrap().contains("before the repair; then: the backup: the conn"), "{told}");
    let unsound = DatabaseReport { unsound: Some("no base".to_owned()), ..second.clone() };
    assert_eq!(report.clone().after_repair(Ok(unsound)).unsound.as_deref(), Some("no base"));
    let mut whole = second;
    (whole.archive.ended, whole.equal) = (None, true);
    assert!(report.clone().after_repair(Ok(whole.clone())).equal);
    let name = report.archive.differences[0].name.clone();
    whole.archive.unchecked.push(FileUnchecked { name, reason: "no answer".to_owned() });
    let told = report.after_repair(Ok(whole));
    assert_eq!((told.equal, told.archive.differences.len()), (false, 1), "{told}");
}

#[test]
fn a_torn_event_of_a_killed_server_is_no_difference() {
    let server = server();
    let mut copies = Copies::of(&server);
    // A file about which nothing is said is not compared, the others are; one that was pruned meanwhile is nothing.
    copies.refused = [Some(2), Some(3)];
    let report = check_with(&server, &copies);
    assert_eq!((report.files, report.compared, report.differences.len()), (3, 3, 0), "{report}");
    let unchecked = FileUnchecked { name: "bin.000002".to_owned(), reason: "no such luck".to_owned() };
    assert_eq!(report.unchecked, [unchecked]);
    copies.refused = [None; 2];
    let path = &server.binlog_files().unwrap()[0];
    let mut bytes = std::fs::read(path).unwrap();
    // The first part of an event that says it is longer.
    let (event, size) = (bytes[4..60].to_vec(), bytes[4 + 9]);
    assert!(size > 56);
    bytes.extend(event);
    std::fs::write(path, &bytes).unwrap();
    let report = check_with(&server, &copies);
    assert_eq!(report.differences, Vec::new(), "{report}");
}
