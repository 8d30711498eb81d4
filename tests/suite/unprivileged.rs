//! A server that is not root: it says what is lost, and does the rest.

use crate::executable::get;
use crate::scratch;
use ehpc_proto::nfs3::arguments::NodeKind;
use ehpc_proto::nfs3::{sattr3, set_uid3, specdata3};
use ehpc_tools::cluster::Cluster;
use ehpc_tools::nfs_client::{Client, Error, mode};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

const UID: u32 = 4712;
const PERM: u32 = 1;

fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> u32 {
    result.expect_err("refused").status().expect("an NFS status")
}

#[test]
fn without_root_it_says_what_is_lost_and_does_the_rest() {
    let directory = scratch::directory();
    let mut cluster = Cluster::new(directory.path()).unwrap();
    cluster.uid = Some(UID);
    cluster.nfs1_arguments = ["--slow-request", "1ms"].map(str::to_owned).to_vec();
    for path in [directory.path(), &cluster.share()] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
    cluster.start().unwrap();

    // Said at the start, and whenever somebody asks.
    let told = cluster.status().unwrap();
    let notes = told["nfs"]["notes"].as_array().unwrap();
    let log = fs::read_to_string(directory.path().join("nfs1.log")).unwrap();
    for what in [
        "every client acts as uid 4712",
        "belongs to the server's own user",
        "device nodes",
        "1024",
        "fanotify",
    ] {
        assert!(notes.iter().any(|note| note.as_str().unwrap().contains(what)), "{what}: {notes:#?}");
        assert!(log.contains(what), "{what} is not in the log:\n{log}");
    }

    // Every user works, as the server's own.
    let mut client = Client::connect(("127.0.0.1", cluster.nfs_port().unwrap())).unwrap();
    let root = client.mount("/share").unwrap();
    for uid in [0, 33, UID] {
        client.act_as(uid, uid, &[]);
        let name = format!("d{uid}");
        let dir = client.mkdir(&root, name.as_bytes()).unwrap();
        let file = client.create(&dir, b"f").unwrap();
        client.write(&file, 0, b"text").unwrap();
        client.commit(&file).unwrap();
        client.setattr(&file, mode(0o640)).unwrap();
        client.symlink(&dir, b"l", b"f").unwrap();
        client.link(&file, &dir, b"second").unwrap();
        client.rename((&dir, b"second"), (&dir, b"third")).unwrap();
        client.remove(&dir, b"f").unwrap();
        assert_eq!(client.read(&file, 0, 100).unwrap().data, b"text");
        let real = fs::metadata(cluster.share().join(&name).join("third")).unwrap();
        assert_eq!((real.uid(), real.mode() & 0o7777, real.nlink()), (UID, 0o640, 1));
        let given = sattr3 { uid: set_uid3::uid(1001), ..sattr3::default() };
        assert_eq!(status(client.setattr(&file, given)), PERM);
        let device = specdata3 { specdata1: 1, specdata2: 3 };
        let null = NodeKind::Device { block: false, attributes: mode(0o600), device };
        assert_eq!(status(client.mknod(&dir, b"null", null)), PERM);
    }

    // A create that goes to the disk takes more than a millisecond sooner or later.
    let mut number = 0;
    cluster
        .wait("a slow request is told of", || {
            number += 1;
            client.create(&root, format!("n{number}").as_bytes()).unwrap();
            let log = fs::read_to_string(directory.path().join("nfs1.log")).unwrap();
            log.lines().any(|line| {
                let words =
                    ["a slow NFS request", "procedure=", "export=", "object=", "waiting_ms=", "settling_ms="];
                words.iter().all(|word| line.contains(word))
            })
        })
        .unwrap();

    // What was done is on the page for Prometheus and on the screen.
    // (A request is counted as done when its answer is on its way: a moment after the client has it.)
    let address = format!("127.0.0.1:{}", cluster.nfs1.as_ref().unwrap().port("dashboard").unwrap());
    let lines = [
        "ehpc_nfs_request_seconds_count{procedure=\"mkdir\"} 3",
        "ehpc_nfs_procedure_errors_total{procedure=\"mknod\",status=\"PERM\"} 3",
        "ehpc_nfs_client_written_bytes_total{client=\"127.0.0.1\"} 12",
        "ehpc_nfs_export_read_bytes_total{export=\"/share\"} 12",
        "ehpc_nfs_in_flight 0",
        "ehpc_nfs_queued 0",
        "ehpc_nfs_connections 1",
    ];
    let mut page = String::new();
    let whole = cluster.wait("every line is on the page", || {
        page = get(&address, "/metrics");
        lines.iter().all(|line| page.lines().any(|found| found == *line))
    });
    if let Err(error) = whole {
        let missing: Vec<_> =
            lines.iter().filter(|line| !page.lines().any(|found| found == **line)).collect();
        panic!("{missing:?} are not on the page: {error:#}\n{page}");
    }
    let (_, screen, _) = cluster.command(&["status"]).unwrap();
    for text in [
        "127.0.0.1: ",
        "12 B read, 12 B written",
        "mkdir: 3, p50 ",
        "3 errors (3 PERM)",
        "note          not root",
    ] {
        assert!(screen.contains(text), "{text} is not in\n{screen}");
    }

    // The backup has it all the same.
    cluster.fence().unwrap();
    cluster.assert_equal().unwrap();
    drop(client);
    assert_eq!(cluster.nfs1.take().unwrap().terminate().unwrap(), 0);
}
