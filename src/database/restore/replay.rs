//! Parts of the archive into a server: the vendor's own binary log program, its output to the client program. The program
//! reads the last file from us, so that it never sees more than it should, however fast the archive grows.

use super::error::RestoreError;
use super::plan::Segment;
use crate::database::archive::Archive;
use crate::database::server::{Client, Flavor, Program, ServerError, last_words};
use crate::host;
use ehpc_proto::replication::database::ArchivedFile;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

const PIECE: usize = 256 << 10;
/// The first event of a binary log.
const FIRST: u64 = 4;

/// Applies parts of the archive.
pub(crate) struct Replay<'a> {
    pub(crate) archive: &'a Arc<Archive>,
    pub(crate) program: Program,
    pub(crate) flavor: Flavor,
}

impl Replay<'_> {
    /// Runs everything of `segment` through `client`; bytes of SQL.
    pub(crate) fn run(
        &self,
        segment: &Segment,
        client: &mut Client,
        progress: &mut dyn FnMut(u64),
        stop: &AtomicBool,
    ) -> Result<u64, RestoreError> {
        let files: Vec<ArchivedFile> = self
            .archive
            .files()
            .into_iter()
            .filter(|file| file.lineage == segment.from.lineage)
            .filter(|file| (segment.from.file..=segment.to.file).contains(&file.ordinal))
            .collect();
        let mut reader = Reader::start(self, segment, &files)?;
        match client.load(&mut reader, progress, stop) {
            Ok(bytes) => {
                reader.finish()?;
                Ok(bytes)
            }
            Err(error) => Err(RestoreError::running(error)),
        }
    }
}

/// The option that says where to begin.
fn start_option(
    program: &Program,
    flavor: Flavor,
    segment: &Segment,
) -> Result<Option<String>, RestoreError> {
    match (segment.skip.as_deref().filter(|gtid| !gtid.is_empty()), flavor) {
        (Some(gtid), Flavor::MariaDb) => Ok(Some(format!("--start-position={gtid}"))),
        (Some(gtid), Flavor::MySql) if program.knows("--exclude-gtids") => {
            Ok(Some(format!("--exclude-gtids={gtid}")))
        }
        (Some(_), Flavor::MySql) => Err(RestoreError::NoExclude { program: program.to_string() }),
        (None, _) if segment.from.offset > FIRST => {
            Ok(Some(format!("--start-position={}", segment.from.offset)))
        }
        (None, _) => Ok(None),
    }
}

/// The running program.
struct Reader {
    program: Program,
    child: Child,
    output: ChildStdout,
    said: Option<JoinHandle<String>>,
    fed: Option<JoinHandle<io::Result<()>>>,
}

impl Reader {
    fn start(replay: &Replay<'_>, segment: &Segment, files: &[ArchivedFile]) -> Result<Reader, RestoreError> {
        let program = replay.program.clone();
        let mut command = program.command();
        // Without it, it hands on what is damaged.
        command.args(["--no-defaults", "--verify-binlog-checksum"]);
        command.args(start_option(&program, replay.flavor, segment)?);
        let Some((last, earlier)) = files.split_last() else {
            let source = io::Error::new(io::ErrorKind::NotFound, "the archive has no such files");
            return Err(RestoreError::Archived { what: format!("{:?}", segment.from), source });
        };
        for file in earlier {
            command.arg(replay.archive.path(file.lineage, file.ordinal)?);
        }
        command.arg("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        host::end_with_parent(&mut command);
        let start = |source| ServerError::Start { program: program.path.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let said = child.stderr.take().map(|stderr| std::thread::spawn(move || last_words(stderr)));
        let source = replay.archive.read(last.lineage, last.ordinal, 0)?.take(segment.to.offset);
        let fed = child.stdin.take().map(|input| std::thread::spawn(move || feed(source, input)));
        match child.stdout.take() {
            Some(output) => Ok(Reader { program, child, output, said, fed }),
            None => Err(start(io::Error::other("it has no output")).into()),
        }
    }

    fn finish(mut self) -> Result<(), RestoreError> {
        let program = self.program.path.clone();
        let status = self.child.wait();
        let status = status.map_err(|source| ServerError::Start { program: program.clone(), source })?;
        let fed = self.fed.take().map(JoinHandle::join);
        let said = self.said.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        if !status.success() || said.contains("ERROR") {
            let failed = ServerError::Failed { program, status: status.to_string(), said };
            return Err(RestoreError::running(failed));
        }
        match fed {
            Some(Ok(Err(source))) => {
                Err(RestoreError::Archived { what: "reading the archive".to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An end of the other side is its own fault to tell.
fn feed(mut source: impl Read, mut input: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        match source.read(&mut buffer)? {
            0 => return Ok(()),
            count => {
                if input.write_all(&buffer[..count]).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehpc_proto::replication::database::Place;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_applied_before_a_failover_is_left_out_in_the_programs_own_way() {
        let directory = tempfile::tempdir().unwrap();
        let program = |help: &str| {
            let path = directory.path().join("mysqlbinlog");
            std::fs::write(&path, format!("#!/bin/sh\necho '{help}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Program { path, flavor: Flavor::MySql, version: "5.7.1".to_owned() }
        };
        let (from, to) =
            (Place { lineage: 2, file: 1, offset: 0 }, Place { lineage: 2, file: 1, offset: 900 });
        let segment = |skip: &str| Segment { from, to, skip: Some(skip.to_owned()) };
        let mysql = program("  --exclude-gtids=name Print all events but ..");
        let (uuid, maria) = (segment("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"), segment("0-1-9"));
        let option =
            |program: &Program, flavor, segment: &Segment| start_option(program, flavor, segment).unwrap();
        assert_eq!(
            option(&mysql, Flavor::MySql, &uuid).as_deref(),
            Some("--exclude-gtids=3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5")
        );
        assert_eq!(option(&mysql, Flavor::MariaDb, &maria).as_deref(), Some("--start-position=0-1-9"));
        assert_eq!(option(&mysql, Flavor::MySql, &segment("")), None);
        let inside = Segment { from: Place { offset: 120, ..from }, to, skip: None };
        assert_eq!(option(&mysql, Flavor::MySql, &inside).as_deref(), Some("--start-position=120"));
        let other = program("nothing of the kind");
        let error = start_option(&other, Flavor::MySql, &uuid).unwrap_err();
        assert!(matches!(error, RestoreError::NoExclude { .. }), "{error}");
    }
}
