//! The other side for real: `upbridge creatorup`, which is the `creatorup` program under another name.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{SERVICE_KEY, TestDatabase, WEBHOOK_SECRET};

/// A port nobody listens on now: the two servers have to know each other's before they start.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// Whether ffmpeg is there; when it is not, says which test does not run and why.
pub fn ffmpeg(test: &str) -> bool {
    let there = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let there = there.is_ok_and(|status| status.success());
    if !there {
        eprintln!("skipped: {test}: ffmpeg is not installed (Debian package `ffmpeg`)");
    }
    there
}

/// A running CreatorUp.
pub struct CreatorUpProcess {
    child: Child,
    pub address: SocketAddr,
    pub media: PathBuf,
    said: Arc<Mutex<String>>,
}

impl CreatorUpProcess {
    /// The command with the variables of a test and no others, beside the hub at `hub_url`.
    pub fn command(database: &TestDatabase, hub_url: &str, port: u16) -> Command {
        let directory = database.directory.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
        command.arg("creatorup").env_clear().current_dir(directory);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOST", "127.0.0.1").env("PORT", port.to_string()).env("DIGIUP_API_URL", hub_url);
        command.env("CREATORUP_DATABASE_URL", &database.url).env("MEDIA_ROOT", directory.join("media"));
        command.env("CREATORUP_API_KEY", SERVICE_KEY).env("WEBHOOK_SECRET", WEBHOOK_SECRET);
        command.env("LOG_DIR", directory.join("logs")).env("QUEUE_BACKOFF_BASE", "50");
        command
    }

    /// Starts it and reads its address from the line that says it is serving.
    pub fn start(database: &TestDatabase, hub_url: &str, port: u16) -> CreatorUpProcess {
        CreatorUpProcess::run(&mut CreatorUpProcess::command(database, hub_url, port), database)
    }

    /// Starts it by a command made with [`CreatorUpProcess::command`].
    pub fn run(command: &mut Command, database: &TestDatabase) -> CreatorUpProcess {
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
        CreatorUpProcess { child, address, media: database.directory.path().join("media"), said }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What the process has written to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }
}

impl Drop for CreatorUpProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
