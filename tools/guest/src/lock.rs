//! A lock owner that does what it is told, a line at a time, on standard input:
//!
//! `TOKEN open FILE`, `TOKEN fcntl read|write|unlock START LENGTH` (at once or refused), `TOKEN fcntl-wait ...` (waits
//! for it), `TOKEN flock exclusive|shared|unlock`, `TOKEN flock-wait ...`, `TOKEN test START LENGTH` (who would
//! exclude a write lock), `TOKEN quit`. Each is answered by `TOKEN granted`, `TOKEN refused`, or what went wrong.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::BufRead;

/// Reads and obeys until `quit` or the end of its input.
pub(crate) fn run() -> Result<(), String> {
    let mut file = None;
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((token, rest)) = words.split_first() else { continue };
        if *rest == ["quit"] {
            println!("{token} granted");
            break;
        }
        let answer = obey(&mut file, rest).unwrap_or_else(|error| format!("ERROR {error}"));
        println!("{token} {answer}");
    }
    Ok(())
}

fn obey(file: &mut Option<File>, words: &[&str]) -> Result<String, String> {
    if let ["open", path] = words {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        *file = Some(opened.map_err(|error| format!("open {path}: {error}"))?);
        return Ok("granted".to_owned());
    }
    let file = file.as_ref().ok_or("open a file first")?;
    match words {
        ["fcntl", kind, start, length] => byte_range(file, kind, start, length, false),
        ["fcntl-wait", kind, start, length] => byte_range(file, kind, start, length, true),
        ["test", start, length] => {
            let mut lock = range("write", start, length)?;
            fcntl(file, FcntlArg::F_GETLK(&mut lock)).map_err(|error| error.to_string())?;
            Ok(if i32::from(lock.l_type) == libc::F_UNLCK { "free" } else { "held" }.to_owned())
        }
        ["flock", kind] => whole_file(file, kind, false),
        ["flock-wait", kind] => whole_file(file, kind, true),
        _ => Err(format!("unknown command {words:?}")),
    }
}

fn range(kind: &str, start: &str, length: &str) -> Result<libc::flock, String> {
    let number = |text: &str| text.parse::<i64>().map_err(|error| format!("{text}: {error}"));
    let kind = match kind {
        "read" => libc::F_RDLCK,
        "write" => libc::F_WRLCK,
        "unlock" => libc::F_UNLCK,
        _ => return Err(format!("unknown kind {kind}")),
    };
    Ok(libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: number(start)?,
        l_len: number(length)?,
        l_pid: 0,
    })
}

fn byte_range(file: &File, kind: &str, start: &str, length: &str, wait: bool) -> Result<String, String> {
    let lock = range(kind, start, length)?;
    let argument = if wait { FcntlArg::F_SETLKW(&lock) } else { FcntlArg::F_SETLK(&lock) };
    match fcntl(file, argument) {
        Ok(_) => Ok("granted".to_owned()),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok("refused".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// flock(2), which the Linux client turns into a byte-range lock of the whole file.
fn whole_file(file: &File, kind: &str, wait: bool) -> Result<String, String> {
    if wait {
        let result = match kind {
            "exclusive" => file.lock(),
            "shared" => file.lock_shared(),
            _ => file.unlock(),
        };
        return result.map(|()| "granted".to_owned()).map_err(|error| error.to_string());
    }
    let result = match kind {
        "exclusive" => file.try_lock(),
        "shared" => file.try_lock_shared(),
        _ => file.unlock().map_err(TryLockError::Error),
    };
    match result {
        Ok(()) => Ok("granted".to_owned()),
        Err(TryLockError::WouldBlock) => Ok("refused".to_owned()),
        Err(TryLockError::Error(error)) => Err(error.to_string()),
    }
}
