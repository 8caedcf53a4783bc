//! `upbridge demo`, as a newcomer runs it, and as an impatient one ends it.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::eventually;
use crate::harness::have;

/// The demo with nothing of this process's environment but where programs are, in an empty directory.
fn demo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_upbridge"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TMPDIR", directory);
    // What a shell may well export must not lead the demo to anybody's data.
    command.env("DATABASE_URL", "sqlite:///nowhere/of/anybody.db").env("PORT", "1");
    command.current_dir(directory).arg("demo").args(arguments);
    command
}

/// What the demo left below its temporary directory.
fn left(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    entries.map(|name| name.into_string().unwrap()).collect()
}

async fn answers(url: &str) -> bool {
    reqwest::get(format!("{url}/healthz")).await.is_ok_and(|answer| answer.status().is_success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_its_story_and_both_sides_agree() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let run = tokio::task::spawn_blocking(move || demo(&path, &["--json"]).output().unwrap());
    let output = run.await.unwrap();
    let story = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{story}");
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&figures["agree"], &figures["users"]),
        (&json!(true), &json!({ "total": 5, "synced": 5 })),
        "{figures}"
    );
    let usage = figures["usage"].as_array().unwrap();
    assert_eq!(usage.len(), 4);
    assert!(usage.iter().all(|user| user["hub"] == user["creatorup"]), "{figures}");
    let units: i64 = usage.iter().map(|user| user["hub"]["units"].as_i64().unwrap()).sum();
    let queue = &figures["queue"];
    assert_eq!((&queue["waiting"], &queue["active"], &queue["dead"]), (&json!(0), &json!(0), &json!(0)), "{figures}");
    assert_eq!((&figures["success_rate"], &figures["batches"]["total"]), (&json!(1.0), &json!(4)));
    for step in ["start", "register", "sync", "access", "film", "batch", "compare", "retry", "outage", "recovery"] {
        assert!(story.lines().any(|line| line.contains(&format!("s  {step} "))), "{step} is missing:\n{story}");
    }
    assert!(!story.contains('\x1b'), "no colours for a file");
    if have("ffmpeg") {
        assert_eq!((units, &figures["webhooks"]["processed"]), (7, &json!(4)), "{figures}");
        assert_eq!((&figures["batches"]["completed"], &figures["skipped"]), (&json!(4), &json!([])));
    }
    // Less than a minute where nothing else is going on, which nobody knows of this machine.
    assert!(figures["took_ms"].as_u64().unwrap() < 180_000, "{figures}");
    assert_eq!(left(directory.path()), [""; 0], "nothing remains");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ffmpeg_the_demo_says_what_is_left_out_and_what_to_install() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let run =
        tokio::task::spawn_blocking(move || demo(&path, &[]).env("FFMPEG_PATH", "/nonexistent").output().unwrap());
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let story = String::from_utf8(output.stdout).unwrap();
    assert!(story.contains("left out: no video is made") && story.contains("install the Debian package `ffmpeg`"));
    assert!(story.contains("4, 0 rendered, 0 videos") && story.contains("Both sides agree."), "{story}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn servers_end_with_the_demo_however_it_ends_and_stay_when_they_are_to_be_kept() {
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = demo(directory.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(running.stdout.take().unwrap()));
        let mut urls = Vec::new();
        while urls.len() < 2 {
            let line = lines.next().expect("the demo goes on").unwrap();
            let url = line.split(" at ").nth(1).and_then(|rest| rest.split(',').next());
            urls.extend(url.map(str::to_owned));
        }
        assert!(answers(&urls[0]).await && answers(&urls[1]).await);
        assert!(Command::new("kill").args([signal, &running.id().to_string()]).status().unwrap().success());
        let status = running.wait().unwrap();
        assert!(!status.success());
        eventually("both are gone", async || !answers(&urls[0]).await && !answers(&urls[1]).await).await;
        if signal != "-KILL" {
            assert_eq!(left(directory.path()), [""; 0], "{signal}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let run = tokio::task::spawn_blocking(move || {
        demo(&path, &["--keep", "--json"]).env("FFMPEG_PATH", "/nonexistent").output().unwrap()
    });
    let output = run.await.unwrap();
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept = &figures["kept"];
    let said = |name: &str| kept[name].as_str().unwrap_or_else(|| panic!("{kept}")).to_owned();
    let alive = answers(&said("hub_url")).await && answers(&said("creatorup_url")).await;
    let month = reqwest::Client::new().get(format!("{}/api/v1/usage/monthly", said("creatorup_url")));
    let month = month.bearer_auth(kept["tokens"]["budi"].as_str().unwrap()).send().await;
    for name in ["hub_pid", "creatorup_pid"] {
        let killed = Command::new("kill").args(["-KILL", &kept[name].to_string()]).status().unwrap();
        assert!(killed.success());
    }
    assert!(alive, "{kept}");
    assert_eq!(month.unwrap().json::<Value>().await.unwrap()["data"]["batches"], 2);
    assert!(Path::new(&said("directory")).join("hub.log").is_file());
}
