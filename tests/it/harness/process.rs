//! The real executable, for tests of what a process does: starting, being killed, starting again.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use upbridge_client::{Client, Credentials};

use super::{SERVICE_KEY, TestDatabase, connect, variables};

/// A running `upbridge serve`.
pub struct HubProcess {
    child: Child,
    pub address: SocketAddr,
    said: Arc<Mutex<String>>,
}

impl HubProcess {
    /// The command with the variables of a test hub and no others.
    pub fn command(database: &TestDatabase) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
        command.env_clear().envs(variables(database)).current_dir(database.directory.path());
        command
    }

    /// Starts a hub on a free port and reads its address from the line that says it is serving.
    pub fn start(database: &TestDatabase) -> HubProcess {
        HubProcess::run(&mut HubProcess::command(database))
    }

    /// Starts a hub by a command made with [`HubProcess::command`].
    pub fn run(command: &mut Command) -> HubProcess {
        HubProcess::serving(command, "the hub is serving")
    }

    /// Starts any server of the house, which is ready when it says so in these words.
    pub fn serving(command: &mut Command, words: &str) -> HubProcess {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the hub starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the hub ended: {}", said.lock().expect("no panic")));
            let line = line.expect("text");
            *said.lock().expect("no panic") += &format!("{line}\n");
            if line.contains(words) {
                // As text `address=…`, as JSON `"address":"…"`.
                let address = line.split("address").nth(1).expect("an address").trim_start_matches(['=', '"', ':']);
                let end = address.find([' ', '"']).unwrap_or(address.len());
                break address[..end].parse().expect("an address");
            }
        };
        // Somebody must go on reading, or the hub would block on a full pipe.
        let heard = said.clone();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *heard.lock().expect("no panic") += &format!("{line}\n"));
        });
        HubProcess { child, address, said }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn client(&self) -> Client {
        connect(self.url("")).await
    }

    pub async fn service(&self) -> Client {
        self.client().await.with_credentials(Credentials::ApiKey(SERVICE_KEY.into()))
    }

    /// What the process has written to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_none()
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no handler runs, nothing is flushed.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// SIGTERM, and the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
        self.child.wait().expect("gone").code()
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
