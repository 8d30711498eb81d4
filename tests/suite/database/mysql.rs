//! A genuine MySQL beside the share: its archive is byte-equal too, whatever is killed.

use super::{assert_archived, pause, seed};
use crate::scratch;
use ehpc_tools::bench::tree::Random;
use ehpc_tools::database::{MySql56, Options, Stack, Work, Workload};

#[test]
fn mysql_is_archived_byte_for_byte_over_kills_of_everybody() {
    let seed = seed();
    let mut random = Random(seed);
    let directory = scratch::directory();
    let mut server = MySql56::start(Options::default()).unwrap();
    let lines = format!("address = \"{}\"\nuser = \"root\"", server.socket().display());
    let mut stack = Stack::new(directory.path(), &lines).unwrap();
    stack.start().unwrap();
    let work = Workload::start(&server.access(), Work::mysql(seed)).unwrap();
    let mut killed = [0, 1, 2];
    killed.swap(0, random.number() as usize % 3);
    for kill in killed {
        work.wait_for(work.done() + 20).unwrap();
        pause(random.number() % 300);
        match kill {
            0 => {
                stack.kill_nfs1().unwrap();
                // A file ends while nobody reads.
                server.sql("FLUSH LOGS").unwrap();
                stack.start_nfs1().unwrap();
            }
            1 => {
                stack.kill_backup().unwrap();
                stack.start_backup().unwrap();
            }
            _ => {
                server.kill9().unwrap();
                server.restart().unwrap();
            }
        }
    }
    work.wait_for(work.done() + 20).unwrap();
    work.stop().unwrap();
    assert_archived(&stack, &server.binlog_files().unwrap());
    let status = stack.status("backup").unwrap();
    assert_eq!(status["archive"]["lineages"], 1, "{status:#}");
    stack.stop().unwrap();
}
