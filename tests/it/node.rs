//! `examples/creatorup-node` beside a real hub: a CreatorUp that shares no code with ours, over real sockets.
//!
//! Where Node is not installed, or its packages cannot be fetched, these tests say so and end.

mod example;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client as Http;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use upbridge_client::{Client, v1};

use crate::harness::{self, HubProcess, Member, SERVICE_KEY, TestDatabase, eventually, register};
use example::{Example, Receiver};

/// The current month's total, by the hub's own clock.
async fn total(client: &Client) -> i64 {
    client.usage().get_monthly_usage(v1::GetMonthlyUsageRequest::default()).await.unwrap().into_inner().total
}

/// A hub that pushes to this address, and looks for what it has to push often.
fn hub_of(database: &TestDatabase, creatorup: &str) -> HubProcess {
    let mut command = HubProcess::command(database);
    HubProcess::run(command.envs([
        ("CREATORUP_API_URL", creatorup),
        ("QUEUE_BACKOFF_BASE", "1"),
        ("SYNC_INTERVAL", "200"),
    ]))
}

async fn administrator(hub: &HubProcess) -> Client {
    let client = hub.client().await;
    let login = v1::LoginRequest { email: harness::ADMIN_EMAIL.into(), password: harness::ADMIN_PASSWORD.into() };
    let token = client.auth().login(login).await.unwrap().into_inner().token;
    client.with_bearer(token)
}

async fn status_of(member: &Member) -> v1::GetSyncStatusResponse {
    member.client.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await.unwrap().into_inner()
}

async fn becomes_synced(member: &Member) -> v1::GetSyncStatusResponse {
    let synced = i32::from(v1::SyncStatus::Synced);
    eventually("the hub marks the user synced", async || status_of(member).await.sync_status == synced).await;
    status_of(member).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_node_reports_twice_is_recorded_once() {
    let Some(example) = Example::prepared().await else { return };
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(1)).await;
    let report = ["--batch", "from node", "--key", "node-1", "--amount", "7"];
    let (code, told) = example.report(&hub.url(""), &member.token, &report).await;
    assert_eq!(code, 0, "{told}");
    let verified = &told["verified"];
    assert_eq!(
        (&verified["valid"], &verified["user_id"], &verified["plan"], &verified["reason"]),
        (&json!(true), &json!(member.id), &json!("Starter"), &json!("granted"))
    );
    let access = json!({
        "feature": "local_rendering", "has_access": true, "reason": "granted", "used": 0, "remaining": 100,
    });
    assert_eq!(told["access"], access);
    let [first, again] = told["recorded"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&first["outcome"], &first["duplicate"]), (&json!("created"), &json!(false)));
    assert_eq!((&again["outcome"], &again["duplicate"]), (&json!("duplicate"), &json!(true)));
    assert_eq!(first["usage_id"], again["usage_id"]);
    assert_eq!(
        (&told["monthly"]["total"], &told["monthly"]["batches"], &told["monthly"]["by_type"]),
        (&json!(7), &json!(1), &json!({ "local_rendering": 7 }))
    );

    // What the hub has is what Node said.
    let usage = member.client.usage().list_usage(v1::ListUsageRequest::default()).await.unwrap().into_inner().usage;
    let [record] = usage.as_slice() else { panic!("{usage:?}") };
    assert_eq!(
        (&*record.batch_name, record.usage_amount, record.idempotency_key.as_deref(), &json!(record.id)),
        ("from node", 7, Some("node-1"), &first["usage_id"])
    );
    let metadata = record.metadata.as_ref().unwrap();
    assert_eq!(
        metadata.fields["reported_by"].kind,
        Some(prost_types::value::Kind::StringValue("creatorup-node".into()))
    );

    // A denial is an answer: it is told, and nothing is recorded.
    let (code, told) = example.report(&hub.url(""), &member.token, &["--amount", "94"]).await;
    assert_eq!((code, &told["access"]["reason"], &told["recorded"]), (1, &json!("limit_reached"), &json!([])));
    assert_eq!(total(&member.client).await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_whose_answer_is_lost_is_sent_again_by_node_and_counts_once() {
    let Some(example) = Example::prepared().await else { return };
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let cut = cut_after("batch-with-a-lost-answer", &hub, &member).await;
    let report = ["--batch", "batch-with-a-lost-answer"];
    let (code, told) = example.report(&cut, &member.token, &report).await;
    assert_eq!(code, 0, "{told}");
    let [first, again] = told["recorded"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&first["attempts"], &first["outcome"]), (&json!(2), &json!("duplicate")), "{told}");
    assert_eq!((&again["attempts"], &again["outcome"]), (&json!(1), &json!("duplicate")), "{told}");
    assert_eq!((&told["monthly"]["total"], total(&member.client).await), (&json!(1), 1));
}

/// The address of a way to the hub that breaks once: when `marker` has gone by and the hub has counted it, and before
/// its answer comes back.
async fn cut_after(marker: &'static str, hub: &HubProcess, member: &Member) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (hub, client) = (hub.address, member.client.clone());
    let is_cut = Arc::new(AtomicBool::new(false));
    tokio::spawn(async move {
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(hub).await.unwrap();
            tokio::spawn(carry(near, far, marker, client.clone(), is_cut.clone()));
        }
    });
    url
}

async fn carry(mut near: TcpStream, mut far: TcpStream, marker: &str, client: Client, is_cut: Arc<AtomicBool>) {
    let (mut there, mut back) = ([0; 16384], [0; 16384]);
    loop {
        tokio::select! {
            read = near.read(&mut there) => {
                let Ok(length @ 1..) = read else { return };
                far.write_all(&there[..length]).await.unwrap();
                let is_marked = there[..length].windows(marker.len()).any(|bytes| bytes == marker.as_bytes());
                if is_marked && !is_cut.swap(true, Ordering::SeqCst) {
                    // The client gives the try up after ten seconds, should the hub never count it.
                    let mut tick = tokio::time::interval(Duration::from_millis(10));
                    while total(&client).await != 1 {
                        tick.tick().await;
                    }
                    return;
                }
            }
            read = far.read(&mut back) => {
                let Ok(length @ 1..) = read else { return };
                if near.write_all(&back[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_reads_the_reason_the_fields_and_the_request_id_of_a_refusal() {
    let Some(example) = Example::prepared().await else { return };
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let (code, told) = example.report(&hub.url(""), "a.b.c", &[]).await;
    let error = &told["error"];
    assert_eq!(
        (code, &error["call"], &error["code"], &error["reason"], &error["attempts"]),
        (1, &json!("VerifyToken"), &json!("UNAUTHENTICATED"), &json!("INVALID_CREDENTIALS"), &json!(1))
    );

    let (code, told) = example.report(&hub.url(""), &member.token, &["--batch", ""]).await;
    let error = &told["error"];
    assert_eq!((code, &error["code"], &error["reason"]), (1, &json!("INVALID_ARGUMENT"), &json!("INVALID_FIELD")));
    let field = json!([{ "field": "usage_data.batch_name", "description": "is required" }]);
    assert_eq!(error["field_violations"], field);
    let id = error["request_id"].as_str().unwrap();
    let log = database.directory.path().join("logs/access.log");
    eventually("the access log has the call under the id that Node printed", async || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line.contains(id)))
    })
    .await;

    // The same for people, on standard error.
    let output = example.run(&hub.url(""), &member.token, &["--amount=-1"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("CheckFeatureAccess failed: INVALID_ARGUMENT (INVALID_FIELD)"), "{said}");
    assert!(said.contains("  amount: must be at least 1"), "{said}");
    let misuse = example.run("nonsense", &member.token, &[]).await;
    assert_eq!(misuse.status.code(), Some(2), "{misuse:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_in_the_integration_guide_works_as_it_is_printed() {
    let Some(example) = Example::prepared().await else { return };
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let batch = "01935a2e-7f1b-7c44-9c0e-5d1f6f0a9b11";
    // The guide has the hub count the batch when it is created, and its webhook says later what it really was.
    let created = harness::keyed(batch, v1::UsageData { usage_amount: Some(5), ..harness::usage("wedding") });
    member.client.usage().record_usage(created).await.unwrap();
    let environment = [
        ("HUB", hub.url("")),
        ("UPBRIDGE_URL", hub.url("")),
        ("UPBRIDGE_TOKEN", member.token.clone()),
        ("PROTO", example::repository().join("proto").display().to_string()),
        ("DIGIUP_USER_ID", member.id.clone()),
        ("BATCH_ID", batch.to_owned()),
        ("WEBHOOK_SECRET", harness::WEBHOOK_SECRET.to_owned()),
    ];
    let guide = std::fs::read_to_string(example::repository().join("docs/CREATORUP_INTEGRATION_API.md")).unwrap();
    let printed = |language: &str| {
        let fence = format!("\n```{language}\n");
        let blocks = guide.split(&fence).skip(1);
        blocks.map(|block| block.split("\n```\n").next().unwrap().to_owned()).collect::<Vec<_>>()
    };

    let [over_grpc, webhook] = &*printed("js") else { panic!("two pieces of JavaScript") };
    let said = example.script("node", &["--input-type=module", "-"], over_grpc, &environment).await.unwrap();
    assert_eq!(said.trim(), "USAGE_OUTCOME_CREATED 2");
    let said = example.script("node", &["--input-type=module", "-"], webhook, &environment).await.unwrap();
    let receipts: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&receipts[0]["data"]["duplicate"], &receipts[1]["data"]["duplicate"]),
        (&json!(false), &json!(true)),
        "{receipts}"
    );
    assert_eq!(receipts[0]["data"]["event_id"], receipts[1]["data"]["event_id"]);
    eventually("the batch counts for what it was", async || total(&member.client).await == 2 + 3).await;

    let [subscription] = &*printed("python") else { panic!("one piece of Python") };
    let Some(said) = example.script("python3", &["-"], subscription, &environment).await else {
        return harness::skipped("python3", "python3 is not on PATH");
    };
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["data"]["received"], true, "{said}");
    let held = async || {
        let asked = v1::GetSubscriptionRequest::default();
        member.client.membership().get_subscription(asked).await.unwrap().into_inner().subscription.unwrap()
    };
    eventually("the hub has the subscription", async || held().await.plan == "Business").await;
    assert_eq!(held().await.source, "creatorup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_reaches_a_creatorup_in_node_and_the_hub_marks_them_synced() {
    let Some(example) = Example::prepared().await else { return };
    let database = TestDatabase::new().await;
    let node = Receiver::start(&example, database.directory.path(), 0);
    let hub = hub_of(&database, &node.url);
    let member = register(&hub.client().await, Some(2)).await;
    let synced = becomes_synced(&member).await;
    let copy = node.copy_of(&member.id);
    assert_eq!(synced.creatorup_user_id.as_deref(), copy["creatorup_user_id"].as_str());
    assert_eq!(
        (&copy["user"]["email"], &copy["plan"]["name"], &copy["subscription"]["status"], &copy["deleted"]),
        (&json!(member.email), &json!("Pro"), &json!("active"), &json!(false))
    );

    // Node is away while the user changes; when it is back it is told, and knows them by the id it had given.
    let port = node.port();
    assert_eq!(node.terminate(), Some(0), "an orderly end");
    let administrator = administrator(&hub).await;
    let renamed =
        v1::UpdateUserRequest { user_id: member.id.clone(), name: Some("Renamed".into()), ..Default::default() };
    administrator.users().update_user(renamed).await.unwrap();
    let synced_now = status_of(&member).await.sync_status == i32::from(v1::SyncStatus::Synced);
    assert!(!synced_now, "nobody is there to confirm");
    let node = Receiver::start(&example, database.directory.path(), port);
    let again = becomes_synced(&member).await;
    assert_eq!(again.creatorup_user_id, synced.creatorup_user_id);
    assert_eq!(node.copy_of(&member.id)["user"]["name"], "Renamed");

    let deletion = v1::DeleteUserRequest { user_id: member.id.clone() };
    administrator.users().delete_user(deletion).await.unwrap();
    eventually("the deletion arrives", async || node.copy_of(&member.id)["deleted"] == true).await;
    assert_eq!(node.copy_of(&member.id)["user"], Value::Null, "nothing of the person is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_node_is_pushed_twice_late_or_by_a_stranger_changes_nothing() {
    let Some(example) = Example::prepared().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let node = Receiver::start(&example, directory.path(), 0);
    let url = format!("{}/api/v1/digiup/user/sync", node.url);
    let send = async |api_key: &str, key: &str, body: &Value| {
        let request = Http::new().post(&url).header("x-api-key", api_key).header("idempotency-key", key);
        harness::json(request.json(body)).await
    };
    let id = "01935a2e-7f1b-7c44-9c0e-5d1f6f0a9b11";
    let user = |name: &str, as_of: &str| json!({ "digiup_user_id": id, "deleted": false, "user": { "id": id, "name": name }, "as_of": as_of });
    let (early, late) = ("2026-03-15T12:00:00.000001Z", "2026-03-15T12:00:00.000002Z");

    for stranger in ["", "wrong", &SERVICE_KEY[1..], &format!("{SERVICE_KEY}x")] {
        let (code, answer) = send(stranger, "k", &user("stranger", late)).await;
        assert_eq!((code, &answer["error"]["reason"]), (401, &json!("INVALID_CREDENTIALS")), "{stranger}");
    }
    assert_eq!(node.copy_of(id), Value::Null);

    let (code, first) = send(SERVICE_KEY, "k-2", &user("newest", late)).await;
    assert_eq!((code, &first["data"]["changed"]), (200, &json!(true)));
    for (key, body, what) in [
        ("k-2", user("newest", late), "the same again"),
        ("k-1", user("older", early), "an older one, by a microsecond"),
        ("k-2", user("newest", "2026-03-15T12:00:01Z"), "the same, read later"),
    ] {
        let (code, answer) = send(SERVICE_KEY, key, &body).await;
        assert_eq!((code, &answer["data"]["changed"]), (200, &json!(false)), "{what}");
        assert_eq!(answer["data"]["creatorup_user_id"], first["data"]["creatorup_user_id"], "{what}");
        assert_eq!(node.copy_of(id)["user"]["name"], "newest", "{what}");
    }

    let gone = json!({ "digiup_user_id": id, "deleted": true, "as_of": "2026-03-15T12:00:02Z" });
    let (code, answer) = send(SERVICE_KEY, "k-3", &gone).await;
    assert_eq!((code, &answer["data"]["changed"]), (200, &json!(true)));
    send(SERVICE_KEY, "k-2", &user("newest", late)).await;
    assert_eq!((&node.copy_of(id)["deleted"], &node.copy_of(id)["user"]), (&json!(true), &Value::Null));

    let (code, answer) = send(SERVICE_KEY, "k-4", &json!({ "digiup_user_id": "x", "deleted": false })).await;
    let fields = answer["error"]["details"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap());
    assert_eq!((code, fields.collect::<Vec<_>>()), (400, vec!["digiup_user_id", "as_of", "user"]));
    let (code, _) = harness::json(Http::new().get(&url)).await;
    assert_eq!(code, 405);
    let flood = Http::new().post(&url).header("x-api-key", SERVICE_KEY).body(vec![b' '; (1 << 20) + 1]);
    assert_eq!(harness::json(flood).await.0, 413);
}
