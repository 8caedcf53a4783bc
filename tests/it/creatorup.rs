//! Both servers, each in a process of its own: the requests of the sources sent with curl, and a video whose usage
//! reaches the hub's analytics.

use std::process::Command;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD};
use crate::harness::{CreatorUpProcess, HubProcess, TestDatabase, ffmpeg, free_port};

/// The two, knowing each other.
struct Pair {
    hub: HubProcess,
    creatorup: CreatorUpProcess,
    _databases: [TestDatabase; 2],
}

impl Pair {
    async fn start() -> Pair {
        let databases = [TestDatabase::new().await, TestDatabase::new().await];
        let port = free_port();
        let address = format!("http://127.0.0.1:{port}");
        let hub = HubProcess::run(HubProcess::command(&databases[0]).env("CREATORUP_API_URL", address));
        let creatorup = CreatorUpProcess::start(&databases[1], &hub.url(""), port);
        Pair { hub, creatorup, _databases: databases }
    }

    /// A member of a plan, by their token.
    fn member(&self, plan: u32) -> String {
        let person = r#"{"email":"ana@digiup.example","name":"Ana","password":"member-password-1"}"#;
        let answer = curl(&["-d", person, &self.hub.url("/api/v1/client/auth/register")]);
        let token = answer["data"]["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let subscribed = self.d(&token, &["-X", "POST"], &format!("/api/v1/client/membership/subscribe/{plan}"));
        assert_eq!(subscribed["success"], json!(true), "{subscribed}");
        token
    }

    /// curl to DigiUp.
    fn d(&self, token: &str, options: &[&str], path: &str) -> Value {
        curl(&[options, &["-H", &format!("Authorization: Bearer {token}"), &self.hub.url(path)]].concat())
    }

    /// curl to CreatorUp.
    fn c(&self, token: &str, options: &[&str], path: &str) -> Value {
        curl(&[options, &["-H", &format!("Authorization: Bearer {token}"), &self.creatorup.url(path)]].concat())
    }
}

fn curl(arguments: &[&str]) -> Value {
    let said = Command::new("curl").args(["-s", "--max-time", "60"]).args(arguments).output().expect("curl runs");
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {said:?}"))
}

fn has_curl() -> bool {
    let there = Command::new("curl").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: curl is not on PATH");
    }
    there
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_requests_are_answered_by_both_servers() {
    if !has_curl() {
        return;
    }
    let pair = Pair::start().await;
    let token = pair.member(1);
    let ok = |answer: Value, what: &str| {
        assert_eq!(answer["success"], json!(true), "{what}: {answer}");
        answer["data"].clone()
    };
    // What is printed for DigiUp.
    for (options, path) in [
        (&["-X", "POST"][..], "/api/v1/client/creatorup/verify"),
        (&[], "/api/v1/client/creatorup/profile"),
        (&[], "/api/v1/client/creatorup/access"),
        (&[], "/api/v1/client/membership/plans"),
        (&[], "/api/v1/client/membership/feature/local_rendering/access"),
        (&[], "/api/v1/client/batch/usage/monthly"),
    ] {
        ok(pair.d(&token, options, path), path);
    }
    // And for CreatorUp.
    let verified = ok(pair.c(&token, &["-X", "POST"], "/api/v1/digiup/verify"), "verify");
    assert_eq!((&verified["valid"], &verified["access_granted"]), (&json!(true), &json!(true)));
    let synced = ok(pair.c(&token, &[], "/api/v1/digiup/user/sync"), "sync");
    assert_eq!(synced["user"]["email"], "ana@digiup.example");
    let member = ok(pair.c(&token, &[], "/api/v1/digiup/membership/check"), "check");
    assert_eq!((&member["has_access"], &member["limit"]), (&json!(true), &json!(100)));
    let made = ok(pair.c(&token, &["-d", r#"{"name":"wedding"}"#], "/api/v1/batch/create"), "create");
    assert_eq!(made["batch"]["usage_reported"], json!(true));
    let process = format!(r#"{{"batch_id":"{}"}}"#, made["batch"]["id"].as_str().unwrap());
    let refused = pair.c(&token, &["-d", &process], "/api/v1/video/process");
    assert_eq!(refused["error"]["code"], "FAILED_PRECONDITION", "there is nothing to process: {refused}");
    let usage = ok(pair.c(&token, &[], "/api/v1/usage/monthly"), "usage");
    let at_hub = ok(pair.d(&token, &[], "/api/v1/client/batch/usage/monthly"), "usage at the hub");
    assert_eq!((&usage["total"], &usage["is_reported"]), (&at_hub["total"], &json!(true)));
    assert_eq!((&usage["by_type"], &usage["batches"]), (&at_hub["by_type"], &json!(1)));
    // Somebody else is nobody on both sides.
    for answer in
        [pair.d("nonsense", &[], "/api/v1/creatorup/access"), pair.c("nonsense", &[], "/api/v1/usage/monthly")]
    {
        assert_eq!(answer["error"]["code"], "UNAUTHENTICATED", "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_usage_of_a_video_is_in_the_hubs_analytics_as_soon_as_it_is_completed() {
    if !has_curl() || !ffmpeg("a video's usage in the hub's analytics") {
        return;
    }
    let pair = Pair::start().await;
    let token = pair.member(1);
    for name in ["a.mp4", "b.mp4"] {
        let path = pair.creatorup.media.join(name);
        let options =
            ["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=duration=1:size=320x240:rate=15"];
        assert!(Command::new("ffmpeg").args(options).arg(path).status().expect("ffmpeg runs").success());
    }
    let asked = r#"{"name":"wedding","inputs":["a.mp4","b.mp4"]}"#;
    let made = pair.c(&token, &["-d", asked], "/api/v1/batch/create");
    let id = made["data"]["batch"]["id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    pair.c(&token, &["-d", &format!(r#"{{"batch_id":"{id}"}}"#)], "/api/v1/video/process");
    let admin = format!(r#"{{"email":"{ADMIN_EMAIL}","password":"{ADMIN_PASSWORD}"}}"#);
    let admin = curl(&["-d", &admin, &pair.hub.url("/api/v1/client/auth/login")])["data"]["token"].clone();
    let admin = admin.as_str().expect("an administrator");
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let completed = async {
        loop {
            look.tick().await;
            let batch = pair.c(&token, &[], &format!("/api/v1/batch/{id}"))["data"]["batch"].clone();
            if batch["status"] == "completed" && batch["usage_reported"] == json!(true) {
                return batch;
            }
        }
    };
    let batch = tokio::time::timeout(Duration::from_secs(120), completed).await;
    let batch = batch.unwrap_or_else(|_| panic!("it is not completed: {}", pair.creatorup.said()));
    let rendition = batch["metadata"]["videos"][0]["rendition"]["path"].as_str().expect("a rendition");
    let asked =
        ["-v", "error", "-select_streams", "v:0", "-show_entries", "stream=codec_name,height", "-of", "csv=p=0"];
    let probed =
        Command::new("ffprobe").args(asked).arg(pair.creatorup.media.join(rendition)).output().expect("ffprobe");
    assert_eq!(String::from_utf8_lossy(&probed.stdout).trim(), "h264,720");
    let recorded = async {
        loop {
            look.tick().await;
            let usage = pair.d(&token, &[], "/api/v1/client/batch/usage")["data"]["usage"][0].clone();
            if usage["completion_reported"] == json!(true) {
                return usage;
            }
        }
    };
    let usage = tokio::time::timeout(Duration::from_secs(60), recorded).await.expect("the hub applies it");
    let at = |value: &Value| value.as_str().and_then(|at| at.parse::<DateTime<Utc>>().ok()).expect("a time");
    let took = at(&usage["synced_at"]) - at(&batch["finished_at"]);
    // A second on an idle machine; this one may be building something.
    assert!(took.num_seconds() < 5, "the hub heard of it after {took}");
    assert_eq!((&usage["usage_amount"], &usage["metadata"]["video_count"]), (&json!(2), &json!(2)));
    let numbers = pair.d(admin, &[], "/api/v1/admin/analytics/sync?period=1d")["data"]["usage"].clone();
    assert_eq!((&numbers["total_records"], &numbers["total_amount"]), (&json!(1), &json!(2)), "{numbers}");
}
