//! Servers as child processes, and what the kernel knows about them.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// How long a server may take to start or to stop before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The kernel counts CPU time for processes in hundredths of a second, on every architecture Linux runs on.
const TICKS_PER_SECOND: u64 = 100;

/// A server started by this program; killed when dropped.
pub struct Server {
    child: Child,
    pid: u32,
    started: Instant,
    log: std::path::PathBuf,
}

impl Server {
    /// Starts `program` in `directory`, with nothing of this process's environment but `PATH`, so that no setting
    /// of the machine's owner changes the figures. What it prints goes to `log`.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        directory: &Path,
        environment: &[(&str, String)],
        log: &Path,
    ) -> Result<Server> {
        let output = File::options().create(true).append(true).open(log)?;
        let started = Instant::now();
        let child = Command::new(program)
            .args(arguments)
            .current_dir(directory)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = child.id().context("the server ended at once")?;
        Ok(Server { child, pid, started, log: log.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks until the server answers; how long that took since it was started.
    pub async fn answers<F: Future<Output = Result<()>>>(&mut self, mut ask: impl FnMut() -> F) -> Result<Duration> {
        loop {
            let failure = match ask().await {
                Ok(()) => return Ok(self.started.elapsed()),
                Err(failure) => failure,
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status}:\n{}", self.last_words());
            }
            if self.started.elapsed() > PATIENCE {
                bail!("the server did not answer in time: {failure:#}\n{}", self.last_words());
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Asks the server to stop, and waits until it has.
    pub async fn stop(mut self) -> Result<()> {
        // std knows only the signal that cannot be caught, and a hub that is killed is not one that stopped.
        Command::new("kill").arg("-TERM").arg(self.pid.to_string()).status().await?;
        match timeout(PATIENCE, self.child.wait()).await {
            Err(_) => bail!("the server did not stop in time:\n{}", self.last_words()),
            Ok(status) => match status? {
                status if status.success() => Ok(()),
                status => bail!("the server stopped with {status}:\n{}", self.last_words()),
            },
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// HTTP/2 connections to a server on this machine.
pub async fn connect(port: u16, count: usize) -> Result<Vec<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true);
    let mut channels = Vec::with_capacity(count);
    for _ in 0..count {
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}

/// CPU time that a process has used so far, in all of its threads.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    // The second field is the program's name in parentheses, which may hold anything; utime is the 14th.
    let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat has no name")?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Memory of a process in MiB: `VmRSS` for what is resident now, `VmHWM` for the most that ever was.
pub fn memory_mib(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("no such field in /proc/<pid>/status")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let pid = std::process::id();
        let (now, most) = (memory_mib(pid, "VmRSS").unwrap(), memory_mib(pid, "VmHWM").unwrap());
        assert!(now > 0.5 && most >= now, "{now} MiB now, {most} MiB at most");
        assert!(cpu_time(pid).unwrap() < Duration::from_secs(3600));
    }
}
