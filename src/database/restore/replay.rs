//! Parts of the archive into a server: the vendor's own binary log program, its output to the client program. The program
//! reads the last file from us, so that it never sees more than it should, however fast the archive grows.

use super::error::RestoreError;
use super::plan::Segment;
use crate::database::archive::Archive;
use crate::database::server::{Client, Program, ServerError, last_words};
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
            Err(ServerError::Stopped) => Err(RestoreError::Stopped),
            Err(error) => Err(error.into()),
        }
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
        command.arg("--no-defaults");
        match &segment.skip {
            Some(gtid) if !gtid.is_empty() => {
                command.arg(format!("--start-position={gtid}"));
            }
            _ if segment.from.offset > FIRST => {
                command.arg(format!("--start-position={}", segment.from.offset));
            }
            _ => {}
        }
        let Some((last, earlier)) = files.split_last() else {
            let source = io::Error::new(io::ErrorKind::NotFound, "the archive has no such files");
            return Err(RestoreError::File { what: format!("{:?}", segment.from), source });
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
            return Err(ServerError::Failed { program, status: status.to_string(), said }.into());
        }
        match fed {
            Some(Ok(Err(source))) => {
                Err(RestoreError::File { what: "reading the archive".to_owned(), source })
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
