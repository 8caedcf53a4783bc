//! The three flows of the products' documents, each step asserted in its order.
//!
//! A held wire stops a flow in its middle, so that what has happened by then, and what has not, can be looked at.

use serde_json::json;
use upbridge_client::v1;

use super::pair::{Pair, Setup};
use super::relay::Answers;
use super::{eventually, film};
use crate::harness::have;

/// Rows of a table that are so.
async fn rows(database: &crate::harness::TestDatabase, table_where: &str) -> i64 {
    database.count(&format!("SELECT COUNT(*) FROM {table_where}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn registration_and_first_sync() {
    let mut pair = Setup::default().both("SYNC_TIMEOUT", "20000").prepare().await;
    pair.start_hub();

    // The user registers at DigiUp, which stores them and puts an event in its queue. CreatorUp is not there yet.
    let member = pair.member(None).await;
    let client = pair.as_member(&member).await;
    let status = async || {
        let asked = client.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await;
        asked.expect("a status").into_inner()
    };
    let before = status().await;
    assert_eq!((before.sync_status(), before.creatorup_user_id), (v1::SyncStatus::Pending, None));
    assert_eq!(rows(&pair.hub_database, &format!("users WHERE email = '{}'", member.email)).await, 1);
    let waiting = format!("jobs WHERE kind = 'user_sync' AND queue_key = '{}'", member.id);
    assert_eq!(rows(&pair.hub_database, &waiting).await, 1, "the event is in the queue");
    assert_eq!(before.recent_events.len(), 1);
    assert_eq!((&*before.recent_events[0].event_type, &*before.recent_events[0].status), ("user_sync", "pending"));

    // The queue sends the user to CreatorUp, which stores them; its confirmation is on the way.
    pair.to_creatorup.answers(Answers::Hold);
    pair.start_creatorup();
    let stored = format!("digiup_users WHERE email = '{}'", member.email);
    eventually("CreatorUp has stored the user", async || rows(&pair.creatorup_database, &stored).await == 1).await;
    eventually("the confirmation is held", async || pair.to_creatorup.troubled() > 0).await;
    let between = status().await;
    assert_eq!((between.sync_status(), between.creatorup_user_id), (v1::SyncStatus::Pending, None));

    // CreatorUp confirms, and DigiUp notes it.
    pair.to_creatorup.answers(Answers::Pass);
    let after = pair.synced(&member).await;
    let theirs = pair.data(&member.token, "/api/v1/digiup/user/sync", None).await;
    assert_eq!(after.creatorup_user_id.as_deref(), theirs["user"]["id"].as_str());
    assert!(after.creatorup_synced_at.is_some());
    let settled = async || rows(&pair.hub_database, &waiting).await == 0;
    eventually("the queue is done with it", settled).await;
    assert!(status().await.recent_events.iter().all(|event| event.status == "completed"));
    assert_eq!(rows(&pair.creatorup_database, &stored).await, 1, "and there is one copy");

    // Signed in at DigiUp, the user enters CreatorUp with the same token; without a plan there is nothing to do there.
    let token = pair.sign_in(&member).await;
    let entered = pair.data(&token, "/api/v1/digiup/verify", Some(&json!({ "token": token }))).await;
    assert_eq!((&entered["valid"], &entered["access_granted"]), (&json!(true), &json!(false)), "{entered}");
    assert_eq!((&entered["reason"], &entered["user"]["id"]), (&json!("no_subscription"), &theirs["user"]["id"]));
    client.membership().subscribe(v1::SubscribeRequest { plan_id: Some(2), plan: None }).await.expect("subscribed");
    let entered = pair.data(&token, "/api/v1/digiup/verify", Some(&json!({}))).await;
    assert_eq!((&entered["access_granted"], &entered["reason"]), (&json!(true), &json!("granted")), "at once");
    eventually("the plan is known there", async || {
        let plan = "digiup_users WHERE plan = 'Pro' AND subscription_status = 'active'";
        rows(&pair.creatorup_database, plan).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_tracking() {
    if !have("ffmpeg") {
        return;
    }
    let pair = Setup::default().both("SYNC_TIMEOUT", "20000").start().await;
    let member = pair.member(Some(2)).await;
    pair.synced(&member).await;
    film(&pair.media().join("one.mp4"));

    // The user creates a batch at CreatorUp, which has the hub count it before it answers.
    let created = pair.create(&member, "holiday", &["one.mp4", "one.mp4"]).await;
    let batch = &created["batch"];
    assert_eq!((&batch["status"], &batch["usage_reported"]), (&json!("pending"), &json!(true)), "{created}");
    let client = pair.as_member(&member).await;
    let ledger = async || {
        let listed = client.usage().list_usage(v1::ListUsageRequest::default()).await.expect("a list");
        listed.into_inner().usage
    };
    let counted = ledger().await.remove(0);
    assert_eq!((counted.usage_amount, counted.completion_reported, counted.revision), (2, false, 0));
    assert_eq!(counted.idempotency_key.as_deref(), batch["id"].as_str(), "both know it by one id");

    // It is processed, and CreatorUp records what it really was. The webhook is on its way; its receipt is held.
    pair.to_hub.answers(Answers::Hold);
    let id = batch["id"].as_str().unwrap();
    let (status, answer) = pair.ask(&member.token, "/api/v1/video/process", Some(&json!({ "batch_id": id }))).await;
    assert_eq!((status, &answer["data"]["batch"]["status"]), (202, &json!("processing")), "{answer}");
    let done = pair.over(&member, id).await;
    assert_eq!(
        (&done["status"], &done["usage_amount"], &done["progress"]),
        (&json!("completed"), &json!(2), &json!(100))
    );
    assert_eq!(rows(&pair.creatorup_database, "usage_records WHERE usage_amount = 2").await, 1);
    assert_eq!(rows(&pair.creatorup_database, "outbox WHERE event = 'usage-update'").await, 1);

    // DigiUp takes the webhook, puts an event in its queue, and stores the usage.
    eventually("the webhook is applied", async || ledger().await[0].completion_reported).await;
    eventually("the receipt is held", async || pair.to_hub.troubled() > 0).await;
    let log = "webhook_logs WHERE status = 'processed'";
    eventually("its log says so", async || rows(&pair.hub_database, log).await == 1).await;
    let events = "sync_events WHERE event_type = 'usage_sync' AND status = 'completed'";
    eventually("its event is over", async || rows(&pair.hub_database, events).await == 2).await;
    assert_eq!(rows(&pair.creatorup_database, "outbox WHERE state = 'pending'").await, 1, "nobody has heard of it");
    let done = pair.data(&member.token, &format!("/api/v1/batch/{id}"), None).await;
    assert_eq!(done["batch"]["usage_reported"], false);

    // The receipt arrives.
    pair.to_hub.answers(Answers::Pass);
    eventually("CreatorUp has the receipt", async || {
        rows(&pair.creatorup_database, "outbox WHERE state = 'sent' AND receipt IS NOT NULL").await == 1
    })
    .await;
    let record = ledger().await.remove(0);
    assert_eq!((record.id, record.usage_amount, record.revision), (counted.id, 2, 1), "the same record, amended");
    let metadata = record.metadata.expect("figures of the work").fields;
    assert!(metadata.contains_key("videos") && metadata.contains_key("processing_time"), "{metadata:?}");
    let count = metadata["video_count"].kind.as_ref();
    assert_eq!(count, Some(&prost_types::value::Kind::NumberValue(2.0)), "{metadata:?}");
    assert_eq!(pair.agree(&member).await, (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn monitoring() {
    let mut pair = Pair::start().await;
    let member = pair.member(Some(3)).await;
    pair.synced(&member).await;
    pair.create(&member, "counted", &[]).await;
    let called_off = pair.create(&member, "called-off", &[]).await["batch"]["id"].as_str().unwrap().to_owned();
    pair.data(&member.token, &format!("/api/v1/batch/{called_off}/cancel"), Some(&json!({}))).await;
    pair.agree(&member).await;

    // The administrator asks; the statistics come from the database and the queue.
    let admin = pair.admin().await;
    let mut seen = v1::GetSyncAnalyticsResponse::default();
    eventually("everything is over", async || {
        let asked = admin.analytics().get_sync_analytics(v1::GetSyncAnalyticsRequest::default()).await;
        seen = asked.expect("analytics").into_inner();
        let queue = seen.queue.unwrap_or_default();
        queue.waiting + queue.active == 0 && seen.events.as_ref().is_some_and(|events| events.pending == 0)
    })
    .await;
    let users = seen.users.unwrap();
    assert_eq!(
        (users.total, users.synced, users.pending, users.error),
        (2, 2, 0, 0),
        "the administrator is one of them"
    );
    let events = seen.events.unwrap();
    assert_eq!((events.failed, events.success_rate), (0, Some(1.0)), "{events:?}");
    assert!(events.by_type["user_sync"].completed >= 2 && events.by_type["usage_sync"].completed >= 2, "{events:?}");
    let usage = seen.usage.unwrap();
    assert_eq!((usage.total_records, usage.total_amount), (2, 2));
    let queue = seen.queue.unwrap();
    assert!(queue.available && queue.completed >= 3 && (queue.failed, queue.dead) == (0, 0), "{queue:?}");
    let stats = admin.queue().get_queue_stats(v1::GetQueueStatsRequest::default()).await.unwrap().into_inner();
    assert_eq!(stats.total.unwrap().completed, queue.completed, "both sources say the same");

    // Whether CreatorUp is there is seen, and seen again when it is gone.
    let creatorup = async || {
        let health = admin.analytics().get_system_health(v1::GetSystemHealthRequest {}).await.expect("health");
        health.into_inner().creatorup_api.expect("a part")
    };
    eventually("CreatorUp is seen", async || creatorup().await.reachable == Some(true)).await;
    assert!(creatorup().await.response_time_ms.is_some_and(|time| time > 0.0));
    let theirs = pair.data(&member.token, "/api/v1/health", None).await;
    assert_eq!((&theirs["hub"]["works"], &theirs["database"]["works"]), (&json!(true), &json!(true)), "{theirs}");
    pair.kill_creatorup();
    eventually("CreatorUp is missed", async || creatorup().await.reachable == Some(false)).await;
    pair.start_creatorup();
    eventually("CreatorUp is seen again", async || creatorup().await.reachable == Some(true)).await;
}
