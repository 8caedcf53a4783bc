//! The example's folder, ready to run, and what runs in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;

use crate::harness::{SERVICE_KEY, skipped};

/// What npm says when the lock file and package.json disagree, or a package is not what was locked: faults of ours.
const FAULTS: [&str; 2] = ["EUSAGE", "EINTEGRITY"];

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A copy of the example with its packages.
#[derive(Clone)]
pub struct Example {
    directory: PathBuf,
}

impl Example {
    /// The copy, made once; nothing, with a printed reason, where it cannot be made.
    pub async fn prepared() -> Option<Example> {
        static PREPARED: OnceCell<Result<Example, (&str, String)>> = OnceCell::const_new();
        let prepare = async || tokio::task::spawn_blocking(prepare).await.expect("the example can be copied");
        match PREPARED.get_or_init(prepare).await {
            Ok(example) => Some(example.clone()),
            Err((program, reason)) => {
                skipped(program, reason);
                None
            }
        }
    }

    /// A program in the example's folder, with nothing of this process's environment that it might read.
    fn program(&self, name: &str) -> std::process::Command {
        let mut command = std::process::Command::new(name);
        let environment = std::env::vars().filter(|(name, _)| name == "PATH" || name == "HOME");
        command.env_clear().envs(environment).current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    /// Node with the example's command.
    fn command(&self) -> std::process::Command {
        let mut command = self.program("node");
        command.arg("main.mjs");
        command
    }

    /// Runs a text by a program that reads it from standard input; what it prints, or nothing without the program.
    pub async fn script(
        &self,
        program: &str,
        arguments: &[&str],
        text: &str,
        environment: &[(&str, String)],
    ) -> Option<String> {
        let mut command = tokio::process::Command::from(self.program(program));
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        child.stdin.take().expect("piped").write_all(text.as_bytes()).await.expect("read");
        let ends = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output());
        let output = ends.await.expect("it ends").expect("its output");
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8(output.stdout).expect("text"))
    }

    /// Asks the hub, and waits for the end.
    pub async fn run(&self, hub: &str, token: &str, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::from(self.command());
        command.args(["--proto".as_ref(), repository().join("proto").as_os_str()]).args(arguments);
        command.env("UPBRIDGE_URL", hub).env("UPBRIDGE_TOKEN", token).kill_on_drop(true);
        tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("it ends").expect("node runs")
    }

    /// Asks the hub; how it ended, and what it tells programs.
    pub async fn report(&self, hub: &str, token: &str, arguments: &[&str]) -> (i32, Value) {
        let output = self.run(hub, token, &[&["--json"], arguments].concat()).await;
        let told = serde_json::from_slice(&output.stdout);
        (output.status.code().expect("it ended by itself"), told.unwrap_or_else(|_| panic!("no JSON: {output:?}")))
    }
}

/// Copies the example below `target/` and fetches its packages, unless they are there from an earlier run.
fn prepare() -> Result<Example, (&'static str, String)> {
    for program in ["node", "npm"] {
        let version = std::process::Command::new(program).arg("--version").stdout(Stdio::null()).status();
        version.map_err(|_| (program, format!("{program} is not on PATH")))?;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("creatorup-node");
    fs::create_dir_all(&directory).expect("a directory");
    // Another run of the suite may be at it too.
    let lock = fs::File::create(directory.join(".being-prepared")).expect("a file");
    lock.lock().expect("a turn");
    for entry in fs::read_dir(repository().join("examples/creatorup-node")).expect("the example") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        if path.is_file() {
            let (text, copy) = (fs::read(&path).expect("text"), directory.join(name));
            if fs::read(&copy).ok().as_ref() != Some(&text) {
                fs::write(copy, text).expect("written");
            }
        }
    }
    let (wanted, installed) = (directory.join("package-lock.json"), directory.join(".installed"));
    if fs::read(&wanted).expect("a lock file") != fs::read(&installed).unwrap_or_default() {
        let fetch = ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--fetch-timeout=30000", "--fetch-retries=1"];
        let output = std::process::Command::new("npm").args(fetch).current_dir(&directory).output().expect("npm runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!FAULTS.iter().any(|fault| said.contains(fault)), "{said}");
        if !output.status.success() {
            return Err(("npm", format!("the example's packages cannot be fetched: {said}")));
        }
        fs::copy(&wanted, &installed).expect("noted");
    }
    Ok(Example { directory })
}

/// A running `receive`.
pub struct Receiver {
    child: Child,
    pub url: String,
    store: PathBuf,
}

impl Receiver {
    /// Starts one that keeps its users in `directory`; port 0 takes a free one.
    pub fn start(example: &Example, directory: &Path, port: u16) -> Receiver {
        let store = directory.join("users.json");
        let mut command = example.command();
        command.args(["receive", "--json", "--port", &port.to_string(), "--store"]).arg(&store);
        let mut child =
            command.env("CREATORUP_API_KEY", SERVICE_KEY).stdout(Stdio::piped()).spawn().expect("node starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.next().expect("it says where it listens").expect("text");
        let said: Value = serde_json::from_str(&line).expect("JSON");
        let url = said["listening"].as_str().expect("an address").to_owned();
        // Somebody must go on reading, or it would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Receiver { child, url, store }
    }

    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// The copy of a user as it is on disk; null when there is none.
    pub fn copy_of(&self, id: &str) -> Value {
        let text = fs::read(&self.store).unwrap_or_else(|_| b"{}".to_vec());
        serde_json::from_slice::<Value>(&text).expect("a file is whole at every moment")[id].take()
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let asked = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(asked.expect("kill runs").success());
        self.child.wait().expect("gone").code()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
