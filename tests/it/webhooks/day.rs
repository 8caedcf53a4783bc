//! Bad days: the database is gone, its disk is full, the hub is killed.

use std::process::Command;

use serde_json::{Value, json};
use upbridge_client::Credentials;

use super::{USAGE, batch, key, logged, records, send, signed};
use crate::harness::{self, HubProcess, SERVICE_KEY, TestDatabase, TestHub, eventually, register, total};

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_stored_is_refused_and_counts_once_when_it_is_sent_again() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let body = batch(&member.id, "patient").to_string();
    let holder = hub.database.connect().await;
    use sea_orm::ConnectionTrait;
    let operator = match std::env::var("TEST_POSTGRES_URL") {
        Ok(server) => Some(sea_orm::Database::connect(&server).await.unwrap()),
        Err(_) => None,
    };
    let name = hub.database.url.rsplit('/').next().unwrap().to_owned();
    match &operator {
        // Nobody gets in, and whoever was in is out.
        Some(operator) => {
            operator.execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
            let out = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            operator.execute_unprepared(&out).await.unwrap();
        }
        None => {
            holder.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
        }
    }
    let (code, answer) = send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await;
    assert_eq!((code, &answer["error"]["reason"]), (503, &json!("STORE_UNAVAILABLE")), "{answer}");
    let (connection, undo) = match &operator {
        Some(operator) => (operator, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")),
        None => (&holder, "ROLLBACK".to_owned()),
    };
    connection.execute_unprepared(&undo).await.unwrap();
    let mut taken = Value::Null;
    eventually("it is taken", async || {
        let (code, answer) = send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await;
        taken = answer;
        code == 200
    })
    .await;
    assert_eq!(taken["data"]["duplicate"], false, "what was refused is not remembered");
    eventually("it is applied", async || total(&member.client, "2024-01").await == 1).await;
    assert_eq!(send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await.1["data"]["duplicate"], true);
    assert_eq!(records(&hub.database, &member).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_answered_before_it_was_killed_is_applied_once_after_it_starts_again() {
    let database = TestDatabase::new().await;
    let mut hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let calls = (0..40).map(|at| {
            let body = batch(&member.id, &format!("b{round}-{at}")).to_string();
            let request = reqwest::Client::new().post(hub.url(USAGE));
            harness::json(request.headers(signed(body.as_bytes())).body(body))
        });
        let answers = futures::future::join_all(calls).await;
        hub.kill();
        for (code, answer) in answers {
            assert_eq!(code, 200, "{answer}");
            acknowledged.push(answer["data"]["event_id"].as_str().unwrap().to_owned());
        }
        // Longer than a busy machine holds its breath: who is taken for dead too often takes its jobs along.
        hub = HubProcess::run(HubProcess::command(&database).env("QUEUE_HEARTBEAT_INTERVAL", "1000"));
    }
    let client = hub.client().await;
    let member_client = client.with_bearer(&member.token);
    eventually("all are applied", async || total(&member_client, "2024-01").await == 120).await;
    let done = "SELECT COUNT(*) FROM webhook_logs WHERE status = 'processed'";
    eventually("all are processed", async || database.count(done).await == 120).await;
    assert_eq!(records(&database, &member).await, 120);
    let service = client.with_credentials(Credentials::ApiKey(SERVICE_KEY.into()));
    for event_id in acknowledged {
        let request = upbridge_client::v1::GetWebhookReceiptRequest { event_id };
        let found = service.webhooks().get_webhook_receipt(request).await.unwrap().into_inner();
        assert_eq!(found.status, i32::from(upbridge_client::v1::WebhookStatus::Processed));
    }
    // A sender that never saw an answer sends again, and finds it known.
    let body = batch(&member.id, "b0-0").to_string();
    let stamp = chrono::Utc::now().timestamp();
    let request = reqwest::Client::new().post(hub.url(USAGE)).header("x-webhook-timestamp", stamp.to_string());
    let request = request.header("x-webhook-signature", key().sign(Some(stamp), body.as_bytes()));
    assert_eq!(harness::json(request.body(body)).await.1["data"]["duplicate"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_a_full_disk_met_on_their_way_are_applied_once_when_there_is_room() {
    let database = TestDatabase::new().await;
    if database.is_postgres() {
        eprintln!("not shown: the disk is the server's");
        return;
    }
    let plain = HubProcess::command(&database);
    let mut command = Command::new("/bin/sh");
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("LOG_DIR", "off");
    // No file may grow beyond 2 MiB, and a write that would is an error like that of a full disk.
    command.args(["-c", "ulimit -S -f 4096; exec \"$0\" serve"]).arg(plain.get_program());
    command.env("QUEUE_POLL_INTERVAL", "50").env("QUEUE_HEARTBEAT_INTERVAL", "1000");
    let mut hub = HubProcess::run(command.current_dir(database.directory.path()));
    let member = register(&hub.client().await, Some(2)).await;
    let body = |at: usize| {
        let mut body = batch(&member.id, &format!("b{at}"));
        body["usage_data"]["metadata"] = json!({ "text": "x".repeat(20_000) });
        body.to_string()
    };
    let send = async |at: usize| {
        let (url, body) = (hub.url(USAGE), body(at));
        let request = reqwest::Client::new().post(url).header("content-type", "application/json");
        harness::json(request.headers(signed(body.as_bytes())).body(body)).await
    };
    // Several at a time, so that some are answered and not yet applied when the disk is full.
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    for round in 0..100 {
        let places = round * 4..round * 4 + 4;
        let answers = futures::future::join_all(places.clone().map(&send)).await;
        for (at, (code, answer)) in places.zip(answers) {
            match code {
                200 => taken.push(at),
                503 => refused.push(at),
                _ => panic!("{code}: {answer}"),
            }
        }
        if !refused.is_empty() {
            break;
        }
    }
    assert!(!taken.is_empty() && !refused.is_empty(), "{} taken, {} refused", taken.len(), refused.len());
    eventually("the disk is in the way of a job too", async || hub.said().contains("could not be")).await;
    let room = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &hub.id().to_string()]).status().unwrap();
    assert!(room.success());
    let client = hub.client().await.with_bearer(&member.token);
    let count = taken.len() as i64;
    eventually("what was answered is applied", async || total(&client, "2024-01").await == count).await;
    for at in &refused {
        let (code, answer) = send(*at).await;
        assert_eq!((code, &answer["data"]["duplicate"]), (200, &json!(false)), "what was refused was not kept");
    }
    for at in &taken {
        assert_eq!(send(*at).await.1["data"]["duplicate"], true);
    }
    let all = (taken.len() + refused.len()) as i64;
    eventually("the rest is applied", async || total(&client, "2024-01").await == all).await;
    eventually("no job is left", async || database.count("SELECT COUNT(*) FROM jobs").await == 0).await;
    assert_eq!((records(&database, &member).await, logged(&database, "processed").await), (all, all));
    assert!(hub.is_running());
}
