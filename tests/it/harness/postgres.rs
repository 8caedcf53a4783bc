//! A PostgreSQL server of a test's own, which it may restart.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::TestDatabase;

/// The server; it is stopped and removed when dropped.
pub struct PostgresServer {
    home: TempDir,
    programs: PathBuf,
    /// Who it runs as: it refuses to be root's.
    owner: Option<&'static str>,
    port: u16,
}

impl PostgresServer {
    /// Starts a server; `None`, and a word about it, where the suite runs without PostgreSQL.
    pub fn start() -> Option<PostgresServer> {
        if std::env::var_os("TEST_POSTGRES_URL").is_none() {
            eprintln!("not shown: the suite runs without PostgreSQL; set TEST_POSTGRES_URL");
            return None;
        }
        let Some(programs) = find_programs() else {
            eprintln!("not shown: PostgreSQL's initdb and pg_ctl are not on this machine");
            return None;
        };
        let is_root = output(Command::new("id").arg("-u")) == "0";
        let is_known = |name: &str| Command::new("id").arg(name).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let owner = is_root.then(|| match is_known("postgres").is_ok_and(|known| known.success()) {
            true => "postgres",
            false => "nobody",
        });
        let home = tempfile::tempdir().expect("a directory");
        if let Some(owner) = owner {
            output(Command::new("chown").arg(owner).arg(home.path()));
        }
        let mut server = PostgresServer { home, programs, owner, port: 0 };
        output(server.command("initdb").args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]));
        let settings = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=100";
        // Somebody may be faster at a port that was free a moment ago.
        for _ in 0..10 {
            server.port = a_port();
            if server.controlled(&["start", "-o", &format!("-p {} {settings}", server.port)]) {
                return Some(server);
            }
        }
        panic!("PostgreSQL starts on no port");
    }

    /// The database that is there from the start.
    pub fn database(&self) -> TestDatabase {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        TestDatabase { url, directory: tempfile::tempdir().expect("a directory") }
    }

    /// Restarts the server: `fast` undoes what is under way and closes every session; `immediate` is a crash, after
    /// which it recovers what was committed.
    pub fn restart(&self, mode: &str) {
        self.control(&["restart", "-m", mode]);
    }

    fn control(&self, arguments: &[&str]) {
        assert!(self.controlled(arguments), "pg_ctl {arguments:?}");
    }

    /// Whether `pg_ctl` has done it.
    fn controlled(&self, arguments: &[&str]) -> bool {
        let log = self.home.path().join("data").join("server.log");
        let mut command = self.command("pg_ctl");
        command.args(["-w", "-s", "-l"]).arg(log).args(arguments);
        // The server keeps what it inherits: a pipe would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs").success()
    }

    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = match self.owner {
            None => Command::new(program),
            Some(owner) => {
                let mut command = Command::new("runuser");
                command.args(["-u", owner, "--"]).arg(program);
                command
            }
        };
        // From a directory the owner may read.
        command.current_dir(self.home.path()).arg("-D").arg(self.home.path().join("data"));
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut stop = self.command("pg_ctl");
        drop(stop.args(["stop", "-m", "immediate", "-s"]).stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

/// A free port, and not one of those that the system gives to whoever asks for any: it would give it away while the
/// server restarts.
fn a_port() -> u16 {
    let any = std::iter::repeat_with(|| rand::random_range(20_000_u16..30_000));
    any.take(1_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port")
}

/// Where the server's programs are. Debian keeps them out of PATH.
fn find_programs() -> Option<PathBuf> {
    let of_debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = of_debian.map(|version| version.path().join("bin")).collect();
    places.sort();
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let has_all = |place: &Path| ["initdb", "pg_ctl"].iter().all(|program| place.join(program).is_file());
    places.into_iter().rev().find(|place| has_all(place))
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
