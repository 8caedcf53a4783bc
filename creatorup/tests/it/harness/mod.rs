//! A running `creatorup` with a database, a media root and a hub of its own.

mod api;
mod database;
mod hub;
mod media;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use upbridge_proto::creatorup::v1::{Batch, BatchStatus, GetBatchRequest};

pub use api::Api;
pub use database::TestDatabase;
pub use hub::{CREATE_BATCH, Hub, Member, WEBHOOK};
pub use media::{ffmpeg, long_video, video};

pub const SERVICE_KEY: &str = "test-service-key-0123456789abcdef0123456789";
pub const WEBHOOK_SECRET: &str = "whsec_dGVzdC13ZWJob29rLXNlY3JldC0wMTIzNDU2Nzg5";
/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a test starts CreatorUp with.
pub struct Setup {
    pub hub: Hub,
    pub database: TestDatabase,
    variables: Vec<(String, String)>,
}

impl Setup {
    pub async fn new() -> Setup {
        Setup { hub: Hub::start().await, database: TestDatabase::new().await, variables: Vec::new() }
    }

    /// Sets a variable, or with an empty text unsets it.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Setup {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The command with the variables of a test and no others.
    pub fn command(&self) -> Command {
        let directory = self.database.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_creatorup"));
        command.env_clear().current_dir(directory);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOST", "127.0.0.1").env("PORT", "0");
        command.env("CREATORUP_DATABASE_URL", &self.database.url).env("DIGIUP_API_URL", self.hub.url());
        command.env("CREATORUP_API_KEY", SERVICE_KEY).env("WEBHOOK_SECRET", WEBHOOK_SECRET);
        command.env("MEDIA_ROOT", directory.join("media")).env("LOG_DIR", directory.join("logs"));
        // A hub that is there is waited for, however busy the machine is; one that is not is noticed at once. A process
        // that was killed is found dead soon.
        command.env("QUEUE_BACKOFF_BASE", "50").env("SYNC_TIMEOUT", "20000").env("QUEUE_HEARTBEAT_INTERVAL", "2000");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub async fn start(self) -> TestCreatorUp {
        let process = Process::run(&mut self.command());
        TestCreatorUp { process, setup: self, http: reqwest::Client::new() }
    }
}

/// A running CreatorUp.
pub struct TestCreatorUp {
    pub process: Process,
    pub setup: Setup,
    http: reqwest::Client,
}

impl TestCreatorUp {
    pub async fn start() -> TestCreatorUp {
        Setup::new().await.start().await
    }

    pub fn hub(&self) -> &Hub {
        &self.setup.hub
    }

    pub fn database(&self) -> &TestDatabase {
        &self.setup.database
    }

    pub fn media(&self) -> PathBuf {
        self.setup.database.directory.path().join("media")
    }

    /// The typed client of a token's user.
    pub async fn api(&self, token: &str) -> Api {
        Api::connect(self.process.address, Some(("authorization", format!("Bearer {token}")))).await
    }

    /// The typed client of the hub.
    pub async fn service(&self) -> Api {
        Api::connect(self.process.address, Some(("x-api-key", SERVICE_KEY.to_owned()))).await
    }

    /// Kills the process, as a machine does that loses its power, and starts another on the same database.
    pub async fn kill_and_start(&mut self) {
        self.process.kill();
        self.process = Process::run(&mut self.setup.command());
    }

    /// Stops the process in order, and starts another on the same database.
    pub async fn stop_and_start(self) -> TestCreatorUp {
        assert_eq!(self.process.terminate(), Some(0));
        self.setup.start().await
    }

    /// A GET or, with a body, a POST; the status and the JSON of the answer.
    pub async fn http(&self, path: &str, credential: Option<(&str, &str)>, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.process.address);
        let request = match &body {
            Some(body) => self.http.post(url).json(body),
            None => self.http.get(url),
        };
        let request = match credential {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    /// The same with a token.
    pub async fn as_user(&self, token: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.http(path, Some(("authorization", &format!("Bearer {token}"))), body).await
    }

    /// A batch, once it is as asked for.
    pub async fn batch_once(&self, token: &str, id: &str, is_so: impl Fn(&Batch) -> bool) -> Batch {
        let api = self.api(token).await;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        let mut last = None;
        let waiting = async {
            loop {
                look.tick().await;
                let asked = GetBatchRequest { batch_id: id.to_owned() };
                let batch = api.batches().get_batch(asked).await.expect("a batch").into_inner().batch.expect("a batch");
                if is_so(&batch) {
                    return batch;
                }
                last = Some(batch);
            }
        };
        let found = tokio::time::timeout(PATIENCE, waiting).await;
        found.unwrap_or_else(|_| panic!("never: {last:?}\n{}", self.process.said()))
    }

    /// A batch, once it is over.
    pub async fn batch_over(&self, token: &str, id: &str) -> Batch {
        let over = [BatchStatus::Completed, BatchStatus::Failed, BatchStatus::Cancelled];
        self.batch_once(token, id, |batch| over.contains(&batch.status())).await
    }
}

/// A running `creatorup serve`.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl Process {
    /// Starts it and reads its address from the line that says it is serving.
    pub fn run(command: &mut Command) -> Process {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("creatorup starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("creatorup ended: {}", said.lock().expect("no panic")));
            let line = line.expect("text");
            *said.lock().expect("no panic") += &format!("{line}\n");
            if line.contains("creatorup is serving") {
                let address = line.split("address=").nth(1).expect("an address");
                let end = address.find(' ').unwrap_or(address.len());
                break address[..end].parse().expect("an address");
            }
        };
        // Somebody must go on reading, or it would block on a full pipe.
        let heard = said.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *heard.lock().expect("no panic") += &format!("{line}\n"));
        });
        Process { child, address, said }
    }

    /// What it has written to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("gone").code()
    }

    /// The programs it has started that still run.
    pub fn children(&self) -> Vec<String> {
        let parent = self.child.id().to_string();
        let entries = std::fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
        entries
            .filter_map(|entry| {
                let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
                // The name stands in parentheses and may hold anything.
                let (head, tail) = stat.rsplit_once(')')?;
                let mut fields = tail.split_whitespace();
                let is_alive = fields.next()? != "Z";
                (is_alive && fields.next()? == parent).then(|| head.to_owned())
            })
            .collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
