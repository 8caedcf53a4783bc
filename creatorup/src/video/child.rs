//! A child process with a bound on everything: its time, what it may say, and how long it outlives its caller.
//!
//! There is no shell: a program is started with a list of arguments. It sees none of this process's environment, which
//! holds secrets, and no standard input. When the future that waits for it is dropped, it is killed. Not guaranteed: that
//! it ends when this process is killed itself; it may go on until it is done or at the limit it was told.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::Command;

/// The last bytes of standard error that are kept.
const KEPT_ERROR: usize = 4 << 10;
/// The longest standard output that is kept.
const LONGEST_OUTPUT: u64 = 4 << 20;
/// SIGPIPE, which ends whoever writes to a pipe that nobody reads.
const BROKEN_PIPE: i32 = 13;
/// The longest line of progress.
const LONGEST_LINE: u64 = 4 << 10;

/// Why a child did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started, or its pipes broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It took too long and was killed.
    #[error("not done within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Somebody killed it, as the system does when memory is short.
    #[error("ended with {0}")]
    Killed(std::process::ExitStatus),
    /// It ended with an error; what it said last.
    #[error("{0}")]
    Refused(String),
}

/// A program and its arguments.
pub struct Child<'a> {
    /// The executable, by its absolute path.
    pub program: &'a Path,
    /// Its arguments, each by itself.
    pub arguments: Vec<OsString>,
    /// Where the libraries it needs are, when that is not where they always are.
    pub library_path: Option<&'a OsString>,
    /// It is killed after so long.
    pub limit: Duration,
}

impl Child<'_> {
    /// Runs it and answers with its standard output.
    pub async fn output(&self) -> Result<Vec<u8>, Failure> {
        let mut output = Vec::new();
        self.run(async |stdout| {
            stdout.take(LONGEST_OUTPUT).read_to_end(&mut output).await?;
            Ok(())
        })
        .await?;
        Ok(output)
    }

    /// Runs it and hands each line of its standard output to `line`.
    pub async fn lines(&self, mut line: impl FnMut(&str) + Send) -> Result<(), Failure> {
        self.run(async |stdout| {
            let mut stdout = BufReader::new(stdout);
            let mut bytes = Vec::new();
            loop {
                bytes.clear();
                if (&mut stdout).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await? == 0 {
                    return Ok(());
                }
                line(String::from_utf8_lossy(&bytes).trim());
            }
        })
        .await
    }

    async fn run(
        &self,
        read: impl AsyncFnOnce(tokio::process::ChildStdout) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).env_clear().kill_on_drop(true);
        // A Ctrl-C on the terminal is for this process, which hands back what it cannot finish.
        #[cfg(unix)]
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(path) = self.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        let mut child = command.spawn()?;
        let broken = || std::io::Error::other("a pipe of the child is missing");
        let (stdout, stderr) = (child.stdout.take().ok_or_else(broken)?, child.stderr.take().ok_or_else(broken)?);
        let work = async {
            let (read, said, status) = tokio::join!(read(stdout), tail(stderr), child.wait());
            let (status, said) = (status?, said?);
            match status.success() {
                true => Ok(read?),
                // That nobody listened to it any more is its own doing: it said too much.
                false if status.signal().is_some_and(|signal| signal != BROKEN_PIPE) => Err(Failure::Killed(status)),
                false if said.is_empty() => Err(Failure::Refused(format!("ended with {status}"))),
                false => Err(Failure::Refused(said)),
            }
        };
        match tokio::time::timeout(self.limit, work).await {
            Ok(done) => done,
            Err(_late) => {
                child.kill().await?;
                Err(Failure::TimedOut(self.limit))
            }
        }
    }
}

/// Reads everything and keeps the end of it.
async fn tail(mut pipe: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let (mut kept, mut piece) = (Vec::new(), [0; 1_024]);
    loop {
        let count = pipe.read(&mut piece).await?;
        if count == 0 {
            return Ok(String::from_utf8_lossy(&kept).trim().to_owned());
        }
        kept.extend_from_slice(&piece[..count]);
        let beyond = kept.len().saturating_sub(KEPT_ERROR);
        kept.drain(..beyond);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(program: &str, arguments: &[&str], limit: Duration) -> Result<Vec<u8>, Failure> {
        let child = Child {
            program: Path::new(program),
            arguments: arguments.iter().map(OsString::from).collect(),
            library_path: None,
            limit,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(child.output())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn arguments_reach_no_shell_and_the_environment_reaches_no_child() {
        let said = child("/bin/echo", &["$HOME;", "`id`"], LONG).unwrap();
        assert_eq!(String::from_utf8(said).unwrap(), "$HOME; `id`\n");
        assert_eq!(child("/usr/bin/env", &[], LONG).unwrap(), b"");
    }

    #[test]
    fn a_failure_says_the_last_the_child_said() {
        let failed = child("/bin/ls", &["/no/such/file"], LONG).unwrap_err();
        assert!(matches!(&failed, Failure::Refused(said) if said.contains("/no/such/file")), "{failed}");
        let missing = child("/no/such/program", &[], LONG).unwrap_err();
        assert!(matches!(missing, Failure::Io(_)), "{missing}");
    }

    #[test]
    fn a_child_that_was_killed_is_told_from_one_that_failed_or_said_too_much() {
        let killed = child("/bin/sh", &["-c", "echo why >&2; kill -KILL $$"], LONG).unwrap_err();
        assert!(matches!(&killed, Failure::Killed(_)) && killed.to_string().contains("signal: 9"), "{killed}");
        let loud = child("/bin/cat", &["/dev/zero"], LONG).unwrap_err();
        assert!(matches!(loud, Failure::Refused(_)), "{loud}");
    }

    #[test]
    fn a_child_that_takes_too_long_is_killed() {
        let begun = std::time::Instant::now();
        let late = child("/bin/cat", &["/dev/zero"], Duration::from_millis(50));
        // Its output is bounded, so that it is the reader who leaves: a broken pipe or the limit ends it.
        assert!(late.is_err(), "it never ends by itself");
        assert!(begun.elapsed() < LONG);
        let late = child("/usr/bin/tail", &["-f", "/dev/null"], Duration::from_millis(50)).unwrap_err();
        assert!(matches!(late, Failure::TimedOut(_)), "{late}");
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_complaint_is_kept() {
        let text = "x".repeat(10_000) + "end";
        let kept = tail(text.as_bytes()).await.unwrap();
        assert!(kept.len() == KEPT_ERROR && kept.ends_with("end"));
    }
}
