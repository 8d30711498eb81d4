//! SQL through the stock `mariadb` client: one text and its rows, or a connection that stays.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// One row: its columns as text (NULL is `NULL`).
pub type Row = Vec<String>;

/// How a server is reached: root without a password, on its socket.
#[derive(Clone, Debug)]
pub struct Access {
    /// The server's Unix socket.
    pub socket: PathBuf,
}

impl Access {
    /// Of the server that listens at `socket`.
    pub fn at(socket: &Path) -> Access {
        Access { socket: socket.to_owned() }
    }

    /// The client's command with this connection; statements come from its standard input.
    pub fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "mariadb", "--no-defaults", "--user=root"])
            .arg(format!("--socket={}", self.socket.display()))
            .args(["--default-character-set=utf8mb4", "--max-allowed-packet=1G", "--local-infile=1"])
            .args(["--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect"]);
        command
    }

    /// Runs `text` (statements, `DELIMITER` too) and returns the rows of all its results; fails at the first error.
    pub fn sql(&self, text: &str) -> Result<Vec<Row>> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("mariadb does not start (packages mariadb-client, util-linux)")?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let output = std::thread::scope(|scope| {
            let feed = scope.spawn(move || stdin.write_all(text.as_bytes()));
            let output = child.wait_with_output();
            // The client ends at an error before it has read everything: its message says more than EPIPE.
            let _ = feed.join();
            output
        })?;
        if !output.status.success() {
            let short: String = text.chars().take(300).collect();
            bail!("{}\nin: {short}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(row).collect())
    }

    /// A connection that stays open.
    pub fn connect(&self) -> Result<Client> {
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("mariadb does not start (packages mariadb-client, util-linux)")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Client { child, stdin, stdout })
    }
}

/// A client process with a connection of its own (for open transactions, locks, temporary tables). It ends at the
/// first error.
pub struct Client {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    /// Runs `text` and waits until all of it has run; its rows.
    pub fn run(&mut self, text: &str) -> Result<Vec<Row>> {
        const END: &str = "--end-of-statements--";
        writeln!(self.stdin, "{text}\nSELECT '{END}';").context("the client has ended")?;
        self.stdin.flush().context("the client has ended")?;
        let mut rows = Vec::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                let short: String = text.chars().take(300).collect();
                bail!("the client ended: {:?}\nin: {short}", self.child.wait()?);
            }
            let line = line.trim_end_matches('\n');
            if line == END {
                return Ok(rows);
            }
            rows.push(row(line));
        }
    }

    /// The client's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Columns of a line of `--batch` output, its escapes undone.
fn row(line: &str) -> Row {
    line.split('\t')
        .map(|field| {
            let mut text = String::with_capacity(field.len());
            let mut chars = field.chars();
            while let Some(c) = chars.next() {
                match (c, c == '\\') {
                    (_, false) => text.push(c),
                    (_, true) => match chars.next() {
                        Some('n') => text.push('\n'),
                        Some('t') => text.push('\t'),
                        Some('0') => text.push('\0'),
                        Some(other) => text.push(other),
                        None => text.push('\\'),
                    },
                }
            }
            text
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn escapes_of_batch_output_are_undone() {
        assert_eq!(row("a\\tb\t\\\\\\n\t"), ["a\tb", "\\\n", ""]);
    }
}
