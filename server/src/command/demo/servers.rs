//! Both servers, as processes of this very program.
//!
//! They get an environment of their own, so that nothing a shell exports leads them to somebody's data. Each holds one
//! end of a pipe as its standard input and ends when the other end is gone; so they end with the demo, however it ends.
//! Those that are to be kept have no such leash.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Value, json};
use tempfile::TempDir;
use upbridge_service::config::{executable, inherited};

use super::film::TOOLS;
use super::peer::Peer;
use super::people::People;
use super::until;

/// Who administers the demo's hub.
pub const ADMIN_EMAIL: &str = "admin@demo.example";
/// Lines of a log that explain a failure.
const LINES: usize = 12;
/// What the hub is told.
const SECRETS: &[&str] = &["JWT_SECRET", "CREATORUP_API_KEY", "WEBHOOK_SECRET", "ADMIN_PASSWORD"];
/// What CreatorUp is told of it.
const SHARED: &[&str] = &["CREATORUP_API_KEY", "WEBHOOK_SECRET"];

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The hub.
    Hub,
    /// CreatorUp.
    CreatorUp,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Hub => "hub",
            Side::CreatorUp => "creatorup",
        }
    }
}

/// Both servers and their directory.
pub struct Servers {
    // Ended before the directory is removed, because fields are dropped in this order.
    hub: Option<Process>,
    creatorup: Option<Process>,
    directory: PathBuf,
    temporary: Option<TempDir>,
    ports: [u16; 2],
    secrets: Vec<(&'static str, String)>,
    leashed: bool,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Servers {
    /// A directory, two free ports and secrets; nothing runs yet.
    pub fn prepare(keep: bool) -> anyhow::Result<Servers> {
        let mut temporary = tempfile::Builder::new();
        // Databases and logs are for whoever runs the demo, and nobody else on the machine.
        #[cfg(unix)]
        temporary.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let temporary = temporary.prefix("upbridge-demo-").tempdir().context("no temporary directory")?;
        let secret = || rand::rng().sample_iter(&Alphanumeric).take(40).map(char::from).collect::<String>();
        Ok(Servers {
            hub: None,
            creatorup: None,
            directory: temporary.path().to_owned(),
            temporary: Some(temporary),
            ports: free_ports()?,
            secrets: SECRETS.iter().map(|name| (*name, secret())).collect(),
            leashed: !keep,
        })
    }

    /// Where everything is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where CreatorUp finds videos.
    pub fn media(&self) -> PathBuf {
        self.directory.join("media")
    }

    /// The log of one of them.
    pub fn log(&self, side: Side) -> PathBuf {
        self.directory.join(format!("{}.log", side.name()))
    }

    /// The address of one of them.
    pub fn url(&self, side: Side) -> String {
        let [hub, creatorup] = self.ports;
        format!("http://127.0.0.1:{}", if side == Side::Hub { hub } else { creatorup })
    }

    /// The administrator's password.
    pub fn password(&self) -> &str {
        self.secret("ADMIN_PASSWORD")
    }

    fn secret(&self, name: &str) -> &str {
        self.secrets.iter().find(|(known, _)| *known == name).map_or("", |(_, secret)| secret)
    }

    /// Starts one of them and waits until it serves; answers how long that took.
    pub async fn start(&mut self, side: Side) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let mut process =
            Process(self.command(side)?.spawn().with_context(|| format!("{} cannot start", side.name()))?);
        let peer = Peer::new(&self.url(side))?;
        let ready = until(format!("{} serves", side.name()), async || {
            if let Some(status) = process.0.try_wait()? {
                bail!("{} ended by itself: {status}", side.name());
            }
            Ok(peer.is_ready().await.then_some(()))
        });
        ready.await?;
        *self.slot(side) = Some(process);
        Ok(begun.elapsed())
    }

    /// Kills one of them, as a machine does that loses its power.
    pub fn kill(&mut self, side: Side) {
        *self.slot(side) = None;
    }

    fn slot(&mut self, side: Side) -> &mut Option<Process> {
        match side {
            Side::Hub => &mut self.hub,
            Side::CreatorUp => &mut self.creatorup,
        }
    }

    fn command(&self, side: Side) -> anyhow::Result<Command> {
        let mut command = Command::new(executable().context("this program cannot be found")?);
        let database = |name: &str| format!("sqlite://{}?mode=rwc", self.directory.join(name).display());
        command.env_clear().envs(inherited(&TOOLS)).current_dir(&self.directory);
        let own: &[&str] = match side {
            Side::Hub => SECRETS,
            Side::CreatorUp => SHARED,
        };
        command.envs(self.secrets.iter().filter(|(name, _)| own.contains(name)).map(|(name, secret)| (name, secret)));
        command.envs([("HOST", "127.0.0.1"), ("LOG_DIR", "off"), ("UPBRIDGE_ENV", "development")]);
        // What fails while the other side is away is tried again soon, because somebody is watching.
        command.envs([("QUEUE_BACKOFF_BASE", "100"), ("QUEUE_POLL_INTERVAL", "100"), ("MAX_SYNC_RETRIES", "20")]);
        if self.leashed {
            command.arg("--leashed");
        }
        match side {
            Side::Hub => {
                command.arg("serve").env("PORT", self.ports[0].to_string());
                command.env("DATABASE_URL", database("hub.db")).env("CREATORUP_API_URL", self.url(Side::CreatorUp));
                command.env("ADMIN_EMAIL", ADMIN_EMAIL).env("CLEANUP_INTERVAL", "off");
                command.env("HEALTH_CHECK_INTERVAL", "1000");
            }
            Side::CreatorUp => {
                command.args(["creatorup", "serve"]).env("PORT", self.ports[1].to_string());
                command.env("CREATORUP_DATABASE_URL", database("creatorup.db"));
                command.env("DIGIUP_API_URL", self.url(Side::Hub)).env("MEDIA_ROOT", self.media());
            }
        }
        let log = File::options().create(true).append(true).open(self.log(side))?;
        command.stdin(if self.leashed { Stdio::piped() } else { Stdio::null() });
        command.stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C on the terminal is for the demo; what becomes of the servers is its business.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }

    /// Shows the ends of the logs, after something went wrong.
    pub fn explain(&self) {
        for side in [Side::Hub, Side::CreatorUp] {
            let Ok(text) = std::fs::read_to_string(self.log(side)) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("the last lines of {}:", self.log(side).display());
            lines[lines.len().saturating_sub(LINES)..].iter().for_each(|line| eprintln!("  {line}"));
        }
    }

    /// Lets both go on, and says how to use and to end them.
    pub fn keep(&mut self, people: &People) -> anyhow::Result<Kept> {
        let pids = [&self.hub, &self.creatorup].map(|process| process.as_ref().map_or(0, |process| process.0.id()));
        let tokens = people.members.iter().map(|person| (person.name.to_owned(), person.token.clone()));
        let kept = Kept {
            directory: self.directory.display().to_string(),
            hub: self.url(Side::Hub),
            creatorup: self.url(Side::CreatorUp),
            pids,
            admin_password: self.password().to_owned(),
            api_key: self.secret("CREATORUP_API_KEY").to_owned(),
            tokens: tokens.chain([("admin".to_owned(), people.admin_token.clone())]).collect(),
        };
        // What is forgotten is not dropped, and so neither ended nor removed.
        [self.hub.take(), self.creatorup.take()].into_iter().for_each(std::mem::forget);
        if let Some(temporary) = self.temporary.take() {
            drop(temporary.keep());
        }
        Ok(kept)
    }
}

/// Ports that nobody listens on, below those that the kernel hands out by itself, so that none is lost to somebody's
/// connection before its server has it, or while its server is away.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let mut listeners = Vec::new();
    for _ in 0..1_000 {
        listeners.extend(TcpListener::bind(("127.0.0.1", rand::rng().random_range(20_000..30_000))).ok());
        if let [hub, creatorup] = listeners.as_slice() {
            return Ok([hub.local_addr()?.port(), creatorup.local_addr()?.port()]);
        }
    }
    bail!("no free port was found between 20000 and 30000")
}

/// What is left running.
pub struct Kept {
    directory: String,
    hub: String,
    creatorup: String,
    pids: [u32; 2],
    admin_password: String,
    api_key: String,
    tokens: Vec<(String, String)>,
}

impl Kept {
    /// For people, to copy from.
    pub fn text(&self) -> String {
        let [hub, creatorup] = [&self.hub, &self.creatorup];
        let address = hub.trim_start_matches("http://");
        let other = creatorup.trim_start_matches("http://");
        let tokens = self.tokens.iter().map(|(name, token)| format!("{}='{token}'", name.to_uppercase()));
        let tokens = tokens.collect::<Vec<_>>().join("\n");
        format!(
            "\nBoth go on running, in {directory}:\n\n\
             hub        {hub}  try it at {hub}/api/docs\n\
             creatorup  {creatorup}  try it at {creatorup}/api/docs\n\
             sign in    {ADMIN_EMAIL} with the password {password}\n\n\
             {tokens}\nAPI_KEY='{key}'\n\n\
             grpcurl -plaintext {address} list\n\
             grpcurl -plaintext -H \"authorization: Bearer $ANA\" {address} upbridge.v1.UserSyncService/VerifyToken\n\
             grpcurl -plaintext -H \"authorization: Bearer $ADMIN\" {address} upbridge.v1.AnalyticsService/GetSyncAnalytics\n\
             grpcurl -plaintext -H \"authorization: Bearer $ANA\" {other} creatorup.v1.BatchService/ListBatches\n\
             grpcurl -plaintext -H \"authorization: Bearer $ANA\" {other} creatorup.v1.UsageService/GetMonthlyUsage\n\
             curl -s -H \"Authorization: Bearer $ANA\" {creatorup}/api/v1/usage/monthly\n\n\
             Their end: kill {first} {second} && rm -rf {directory}",
            directory = self.directory,
            password = self.admin_password,
            key = self.api_key,
            first = self.pids[0],
            second = self.pids[1],
        )
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let tokens: serde_json::Map<String, Value> =
            self.tokens.iter().map(|(name, token)| (name.to_lowercase(), json!(token))).collect();
        json!({
            "directory": self.directory, "hub_url": self.hub, "creatorup_url": self.creatorup,
            "hub_pid": self.pids[0], "creatorup_pid": self.pids[1], "admin_email": ADMIN_EMAIL,
            "admin_password": self.admin_password, "creatorup_api_key": self.api_key, "tokens": tokens,
        })
    }
}
