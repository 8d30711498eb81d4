//! What is shipped for what happened.

use super::*;

#[test]
fn a_tree_that_was_there_before_is_shipped_whole() {
    let mut bench = Bench::new(1);
    fs::create_dir_all(bench.root.join("a/b/c")).unwrap();
    for n in 0..300 {
        fs::write(bench.root.join(format!("a/b/file{n}")), noise(n, 100 * n as usize)).unwrap();
    }
    fs::write(bench.root.join("a/big"), noise(7, 3_000_000)).unwrap();
    std::os::unix::fs::symlink("nowhere/at/all", bench.root.join("a/link")).unwrap();
    fs::hard_link(bench.root.join("a/big"), bench.root.join("a/b/c/hard")).unwrap();
    fs::set_permissions(bench.root.join("a/b"), fs::Permissions::from_mode(0o2751)).unwrap();
    let sparse = fs::File::create(bench.root.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 50_000_000).unwrap();
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    assert!(backup.blob_bytes < 12_000_000, "holes are not sent: {}", backup.blob_bytes);
    assert_eq!(backup.history[0].1.objects[0].id, ObjectId::ROOT, "the root comes first");
    drop(backup);
    let batches = bench.backup.lock().history.len();
    bench.scan();
    bench.settle();
    assert_eq!(bench.backup.lock().history.len(), batches, "nothing differs, nothing is shipped");
}

#[test]
fn an_appended_hundred_bytes_cost_one_chunk_one_page_and_the_root() {
    let mut bench = Bench::new(2);
    bench.write("big", &noise(3, 60_000_000));
    let sparse = fs::File::create(bench.root.join("sparse")).unwrap();
    sparse.set_len(8 << 30).unwrap();
    for n in 0..40 {
        sparse.write_all_at(&noise(n, 5000), n << 26).unwrap();
    }
    bench.note_entry("sparse");
    bench.settle();
    bench.assert_equal_but_huge();
    for (path, chunks) in [("big", 1..=2), ("sparse", 1..=1)] {
        let file = fs::OpenOptions::new().append(true).open(bench.root.join(path)).unwrap();
        let end = file.metadata().unwrap().len();
        bench.backup.lock().blobs_received.clear();
        let read_before = bench.control.status().report().read_bytes;
        std::io::Write::write_all(&mut &file, &[b'x'; 100]).unwrap();
        bench.dirty.note(Change::Object(bench.key(path), Touch::range(end..end + 100)));
        bench.settle();
        let backup = bench.backup.lock();
        let received = &backup.blobs_received;
        let pages = received
            .iter()
            .filter(|(kind, _, _)| *kind == ehpc_proto::replication::message::BlobKind::Page)
            .count();
        assert!(pages <= 2, "{path}: {received:?}");
        assert!(chunks.contains(&(received.len() - pages)), "{path}: {received:?}");
        let _ = read_before;
        let model = backup.model();
        assert_eq!(model.at(path).unwrap().size, end + 100);
        let content = &model.at(path).unwrap().content;
        let whole = {
            drop(backup);
            bench.whole_manifest(path)
        };
        assert_eq!(*content, whole, "{path}: as if it had been read whole");
    }
}

impl Bench {
    /// The manifest of a file as made from scratch.
    fn whole_manifest(&self, path: &str) -> ehpc_proto::replication::Manifest {
        crate::replication::read_content::manifest_of_file(&fs::File::open(self.root.join(path)).unwrap())
    }

    /// Compares attributes and manifests only.
    fn assert_equal_but_huge(&self) {
        let model = self.backup.lock().model();
        for name in ["big", "sparse"] {
            assert_eq!(model.at(name).unwrap().content, self.whole_manifest(name), "{name}");
        }
    }
}

#[test]
fn renaming_a_directory_of_ten_thousand_files_ships_a_handful_of_states() {
    let mut bench = Bench::new(3);
    fs::create_dir_all(bench.root.join("from/deep/er")).unwrap();
    fs::create_dir(bench.root.join("to")).unwrap();
    for n in 0..10_000 {
        fs::write(bench.root.join(format!("from/deep/er/{n}")), b"same").unwrap();
    }
    bench.settle();
    assert_eq!(bench.backup.lock().blobs_received.len(), 1, "equal content is sent once");
    let before = bench.backup.lock().history.len();
    bench.rename("from/deep", "to/moved");
    bench.settle();
    let backup = bench.backup.lock();
    let (objects, entries) = backup.history[before..]
        .iter()
        .fold((0, 0), |(o, e), (_, batch, _)| (o + batch.objects.len(), e + batch.entries.len()));
    assert!(objects <= 3 && entries == 2, "{objects} states, {entries} entries");
    drop(backup);
    bench.assert_equal();
}

#[test]
fn both_ends_of_moves_share_a_batch_whatever_was_noted() {
    let mut bench = Bench::new(4);
    for dir in ["a", "b", "a/x", "b/y"] {
        bench.mkdir(dir);
    }
    bench.write("a/file", b"one");
    bench.settle();
    // Swapped directories, one of them noted by one end only.
    fs::rename(bench.root.join("a/x"), bench.root.join("tmp")).unwrap();
    fs::rename(bench.root.join("b/y"), bench.root.join("a/x")).unwrap();
    fs::rename(bench.root.join("tmp"), bench.root.join("b/y")).unwrap();
    bench.note_entry("tmp");
    bench.note_entry("a/x");
    bench.settle();
    bench.assert_equal();
    // A directory under what was its own child; only the new place is noted.
    bench.mkdir("p");
    bench.mkdir("p/q");
    bench.settle();
    fs::rename(bench.root.join("p/q"), bench.root.join("q")).unwrap();
    fs::rename(bench.root.join("p"), bench.root.join("q/p")).unwrap();
    bench.note_entry("q/p");
    bench.settle();
    assert!(bench.backup.lock().model().at("q/p").is_some());
    // A file's old name, noted alone.
    fs::rename(bench.root.join("a/file"), bench.root.join("b/file")).unwrap();
    bench.note_entry("a/file");
    bench.note_entry("b/file");
    bench.note_entry("p");
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    for (_, _, model) in &backup.history {
        let named: Vec<&ObjectId> = model.entries.values().collect();
        assert!(
            model.objects.keys().all(|id| *id == ObjectId::ROOT || named.contains(&id)),
            "an object was without a name"
        );
    }
}

#[test]
fn a_large_file_that_changes_all_the_time_is_not_read_all_the_time() {
    let mut bench = Bench::new(12);
    let content = noise(1, 2_000_000);
    bench.write("log", &content);
    bench.settle();
    let before = bench.control.status().report().read_bytes;
    let file = fs::OpenOptions::new().append(true).open(bench.root.join("log")).unwrap();
    for n in 0..200u8 {
        std::io::Write::write_all(&mut &file, &[n; 10]).unwrap();
        bench.note_content("log");
        bench.write("other", &[n; 100]);
        bench.turn();
    }
    let read = bench.control.status().report().read_bytes - before;
    assert!(read < 60 * 2_000_000, "{read} bytes were read for 200 changes");
    let model = bench.backup.lock().model();
    let shipped = model.at("other").map(|state| bench.backup_content(state));
    assert_eq!(shipped, Some(vec![199; 100]), "others do not wait for it");
    bench.settle();
    bench.assert_equal();
}

#[test]
fn a_huge_directory_that_is_gone_is_taken_away_in_slices() {
    let mut bench = Bench::new(13);
    fs::create_dir_all(bench.root.join("huge/sub")).unwrap();
    for n in 0..12_000 {
        fs::write(bench.root.join(format!("huge/{n}")), b"").unwrap();
    }
    fs::hard_link(bench.root.join("huge/7"), bench.root.join("kept")).unwrap();
    bench.settle();
    let before = bench.backup.lock().history.len();
    fs::remove_dir_all(bench.root.join("huge")).unwrap();
    bench.note_entry("huge");
    bench.settle();
    bench.assert_equal();
    let backup = bench.backup.lock();
    let batches = &backup.history[before..];
    assert!(batches.len() > 1 && batches.iter().all(|(_, batch, _)| batch.destroyed.len() < 10_000));
    assert_eq!(backup.model().objects.len(), 2, "the root, and the file that has another name");
}

#[test]
fn what_may_not_be_read_is_reported_and_shipped_once_it_may() {
    let mut bench = Bench::with_tree(14, |root| Tree::open_without_handles(root).unwrap());
    bench.open_for_everyone();
    let set = |path: &str, mode| {
        fs::set_permissions(bench.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir(bench.root.join("closed")).unwrap();
    for path in ["secret", "closed/inside", "open"] {
        fs::write(bench.root.join(path), path).unwrap();
    }
    set("secret", 0o600);
    set("closed", 0o700);
    crate::host::credentials::assume(65_534, 65_534, &[]).unwrap();
    bench.settle();
    let report = bench.control.status().report();
    let unreadable: Vec<&str> = report.unreadable.iter().map(|what| what.path.as_str()).collect();
    assert_eq!(unreadable, ["closed", "secret"]);
    assert!(report.unreadable.iter().all(|what| what.reason.contains("ermission denied")), "{report:?}");
    let model = bench.backup.lock().model();
    assert!(model.at("open").is_some() && model.at("closed").is_some() && model.at("secret").is_none());
    crate::host::credentials::resume().unwrap();
    let secret = bench.key("secret");
    for (path, mode) in [("secret", 0o644), ("closed", 0o755)] {
        fs::set_permissions(bench.root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    crate::host::credentials::assume(65_534, 65_534, &[]).unwrap();
    bench.dirty.note(Change::Object(secret, Touch::ATTRIBUTES));
    // Nothing is noted of the directory: it is tried again by itself.
    bench.sender().retry_unreadable = Instant::now();
    bench.settle();
    crate::host::credentials::resume().unwrap();
    bench.settle();
    bench.assert_equal();
    assert_eq!(bench.control.status().report().unreadable_total, 0);
}

impl Bench {
    fn backup_content(&self, state: &ehpc_proto::replication::ObjectState) -> Vec<u8> {
        self.backup.lock().content(state)
    }

    /// Another user may use the export and the state directory.
    fn open_for_everyone(&self) {
        for dir in [self.export.path(), self.state.path()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        for entry in fs::read_dir(self.state.path()).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o666)).unwrap();
        }
    }
}
