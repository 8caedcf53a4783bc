//! `upbridge queue` and `upbridge db-status`: real processes, a real hub.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use upbridge_client::v1;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, TestDatabase, TestHub, eventually};

/// A hub and what it takes to call it from the command line.
struct Shell {
    hub: TestHub,
    token: String,
}

impl Shell {
    async fn open() -> Shell {
        let hub = TestHub::start().await;
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
        Shell { hub, token }
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
        command.env_clear().current_dir(self.hub.database.directory.path()).stdin(Stdio::null());
        command.env("UPBRIDGE_URL", self.hub.url("")).args(arguments.split_whitespace());
        command
    }

    /// Runs a command as the administrator.
    async fn run(&self, arguments: &str) -> Output {
        finished(self.command(arguments).env("UPBRIDGE_TOKEN", &self.token)).await
    }

    /// What a command that succeeds prints.
    async fn says(&self, arguments: &str) -> String {
        said(arguments, &self.run(arguments).await)
    }

    /// The JSON a command prints, line by line.
    async fn json(&self, arguments: &str) -> Vec<Value> {
        let text = self.says(&format!("{arguments} --json")).await;
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// Runs a command to its end, on a thread that may wait.
async fn finished(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    tokio::task::spawn_blocking(move || child.wait_with_output().expect("it ends")).await.expect("no panic")
}

fn said(what: &str, output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {errors}");
    String::from_utf8(output.stdout.clone()).expect("text").trim_end().to_owned()
}

/// The complaint of a command that fails, which prints nothing else.
fn complaint(output: &Output) -> String {
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_looked_at_and_mended_from_the_command_line() {
    let shell = Shell::open().await;
    let backend = if shell.hub.database.is_postgres() { "postgres" } else { "sqlite" };
    assert!(shell.says("queue ping").await.starts_with(&format!("PONG {backend} ")));
    assert_eq!(shell.json("queue ping").await[0]["answer"], "PONG");
    assert_eq!(shell.says("queue pause probe").await, "probe is paused");
    assert_eq!(shell.says("queue pause probe").await, "probe was paused");
    let ids = shell.says("queue probe --count 3 --key drill").await;
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 3);
    let listed = shell.json("queue list --state ready --key drill --limit 2").await;
    assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["kind"]), (2, &Value::from(ids[2]), &Value::from("probe")));
    let table = shell.says("queue list --kind probe").await;
    assert!(table.starts_with("ID") && table.lines().count() == 4 && table.contains("drill"), "{table}");
    let shown = shell.says(&format!("queue show {}", ids[0])).await;
    assert!(shown.contains("state         ready") && shown.contains("\"fails\":0"), "{shown}");
    assert_eq!(shell.json(&format!("queue show {}", ids[0])).await[0]["payload"]["millis"], 0);
    assert_eq!(shell.says(&format!("queue cancel {} --yes", ids[0])).await, format!("{} is cancelled", ids[0]));
    let stats = shell.json("queue stats").await.remove(0);
    let counts = &stats["kinds"][5]["counts"];
    assert_eq!(
        (&counts["waiting"], &counts["cancelled"], &stats["paused_kinds"][0]),
        (&2.into(), &1.into(), &"probe".into())
    );
    let table = shell.says("queue stats").await;
    assert!(table.contains("probe (paused)") && table.contains(&format!("backend {backend}")), "{table}");
    assert_eq!(shell.says("queue resume probe").await, "probe goes on");
    eventually("the others are done", async || {
        shell.json("queue stats").await[0]["kinds"][5]["counts"]["completed"] == 2
    })
    .await;
    let dead = shell.says("queue probe --failures 1 --max-retries 0").await;
    eventually("a dead letter", async || !shell.json("queue list --state dead").await.is_empty()).await;
    let shown = shell.says(&format!("queue show {dead}")).await;
    assert!(shown.contains("state         dead") && shown.contains("try 1: "), "{shown}");
    shell.says("queue pause probe").await;
    let again = shell.says(&format!("queue retry {dead}")).await;
    assert!(again.ends_with(" is ready") && !again.contains(&dead), "{again}");
    assert_eq!(shell.says("queue redrive --yes").await, "dead letters that are tried again: 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_says_why_on_standard_error_and_ends_with_one() {
    let shell = Shell::open().await;
    let nobody = "019c0000-0000-7000-8000-000000000000";
    for (arguments, why) in [
        (format!("queue show {nobody}"), "NOT_FOUND"),
        ("queue show nonsense".into(), "job_id"),
        (format!("queue cancel {nobody} --yes"), "NOT_FOUND"),
        (format!("queue cancel {nobody}"), "--yes"),
        ("queue redrive".into(), "--yes"),
        ("queue probe --count 0".into(), "count"),
    ] {
        let complaint = complaint(&shell.run(&arguments).await);
        assert!(complaint.contains(why), "{arguments}: {complaint}");
    }
    let nobody = finished(&mut shell.command("queue ping")).await;
    assert!(complaint(&nobody).contains("UPBRIDGE_TOKEN"));
    let member = shell.hub.member().await;
    let member = finished(shell.command("queue ping").env("UPBRIDGE_TOKEN", member.token)).await;
    assert!(complaint(&member).contains("PRINCIPAL_NOT_ALLOWED"));
    let nowhere = finished(shell.command("queue ping --url http://127.0.0.1:1").env("UPBRIDGE_TOKEN", "t")).await;
    assert!(complaint(&nowhere).contains("cannot be reached"));
    let misspelt = shell.run("queue pause nothing").await;
    assert_eq!(misspelt.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&misspelt.stderr).contains("user_sync"), "it says what there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_signs_in_and_out_by_itself() {
    let shell = Shell::open().await;
    let signed_in = async |password: &str| {
        let mut command = shell.command(&format!("queue ping --email {ADMIN_EMAIL}"));
        finished(command.env("UPBRIDGE_PASSWORD", password)).await
    };
    let live = "SELECT COUNT(*) FROM sessions WHERE revoked_at IS NULL";
    let before = shell.hub.database.count(live).await;
    assert!(said("ping", &signed_in(ADMIN_PASSWORD).await).starts_with("PONG"));
    assert_eq!(shell.hub.database.count(live).await, before, "the session is over");
    assert!(complaint(&signed_in("wrong-password").await).contains("INVALID_CREDENTIALS"));
    let asked = finished(&mut shell.command(&format!("queue ping --email {ADMIN_EMAIL}"))).await;
    assert!(complaint(&asked).contains("UPBRIDGE_PASSWORD"), "there is no terminal to ask on");
}

/// A process that goes on, and the lines it prints.
fn lines(child: &mut Child) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_prints_each_transition_until_it_is_interrupted() {
    let shell = Shell::open().await;
    let begin = |json: &str| {
        let mut command = shell.command(&format!("queue monitor --kind probe {json}"));
        command.env("UPBRIDGE_TOKEN", &shell.token).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    };
    let (mut plain, mut json) = (begin(""), begin("--json"));
    let (mut plain_lines, mut json_lines) = (lines(&mut plain), lines(&mut json));
    let next = async |lines: &mut tokio::sync::mpsc::UnboundedReceiver<String>| {
        tokio::time::timeout(Duration::from_millis(200), lines.recv()).await.ok().flatten()
    };
    let watching = async || {
        shell.says("queue probe --key watched").await;
        next(&mut plain_lines).await.is_some_and(|line| line.contains("key=watched"))
    };
    eventually("the monitor prints a transition", watching).await;
    let mut steps = std::collections::BTreeSet::new();
    let told = async || {
        shell.says("queue probe --key watched").await;
        while let Some(line) = next(&mut json_lines).await {
            let seen: Value = serde_json::from_str(&line).expect("JSON");
            steps.insert(seen["transition"]["step"].as_str().expect("a step").to_owned());
        }
        ["enqueued", "running", "done"].iter().all(|step| steps.contains(*step))
    };
    eventually("each step is told as JSON", told).await;
    for mut child in [plain, json] {
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
        assert!(interrupted.success());
        let code = tokio::task::spawn_blocking(move || child.wait().expect("it ends").code()).await.expect("no panic");
        assert_eq!(code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_the_database_is_shown_beside_a_running_hub_and_without_one() {
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let beside = finished(HubProcess::command(&database).args(["db-status", "--json"])).await;
    let status: Value = serde_json::from_str(&said("db-status", &beside)).expect("JSON");
    let rows = |name: &str| {
        let tables = status["tables"].as_array().expect("tables");
        tables.iter().find(|table| table["name"] == name).map(|table| table["rows"].clone())
    };
    assert_eq!(
        (rows("users"), rows("membership_plans"), rows("nothing")),
        (Some(1.into()), Some(3.into()), None),
        "{status}"
    );
    assert_eq!(status["pending_migrations"].as_array().expect("a list").len(), 0);
    assert!(status["migration"].as_str().is_some_and(|name| name.starts_with('m')), "{status}");
    assert!(status["bytes"].as_i64() > Some(0) && status["queue_bytes"].as_i64() > Some(0), "{status}");
    hub.terminate();
    let alone = finished(HubProcess::command(&database).arg("db-status")).await;
    let text = said("db-status", &alone);
    assert!(text.contains("0 pending") && text.contains("users"), "{text}");
}
