//! Failed sync events are tried again.

use serde_json::json;
use upbridge_client::v1;

use super::{get, lonely, post, settled, swept};
use crate::harness::{SERVICE_KEY, TestHub, eventually, fault};

/// A hub with failed events of two users, whose pushes are paused from here on.
async fn failed() -> (TestHub, i64, crate::harness::Member) {
    let hub = swept(lonely()).await;
    let member = hub.subscriber(3).await;
    hub.subscriber(3).await;
    settled(&hub.database).await;
    hub.database.execute("INSERT INTO paused_kinds (kind, paused_at) VALUES ('user_sync', CURRENT_TIMESTAMP)").await;
    let failed = hub.database.count("SELECT COUNT(*) FROM sync_events WHERE status = 'failed'").await;
    assert!(failed >= 5, "{failed}");
    (hub, failed, member)
}

async fn with_status(hub: &TestHub, status: &str) -> i64 {
    hub.database.count(&format!("SELECT COUNT(*) FROM sync_events WHERE status = '{status}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_events_become_pending_with_a_job_and_a_second_call_finds_none() {
    let (hub, failed, _) = failed().await;
    // The sweep that a hub begins with may have driven the administrator's event once more: two letters of one event.
    let letters = hub.database.count("SELECT COUNT(DISTINCT event_id) FROM finished_jobs WHERE state = 'dead'").await;
    let retried = post(&hub, "retry-failed-sync", json!({})).await;
    assert_eq!((&retried["retried_count"], &retried["skipped_count"]), (&json!(failed), &json!(0)));
    assert_eq!((&retried["from_dead_letters"], &retried["more"]), (&json!(letters), &json!(false)));
    assert_eq!((with_status(&hub, "pending").await, with_status(&hub, "failed").await), (failed, 0));
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM finished_jobs WHERE state = 'dead'").await, 0);
    // One job per user pushes everything that waits; so is the administrator, who is a user too.
    assert_eq!(
        hub.database.count("SELECT COUNT(*) FROM jobs").await,
        hub.database.count("SELECT COUNT(*) FROM users").await
    );
    let numbers = get(&hub, "sync").await;
    assert_eq!((&numbers["events"]["pending"], &numbers["events"]["failed"]), (&json!(failed), &json!(0)));
    let users = hub.database.count("SELECT COUNT(*) FROM users").await;
    assert_eq!((&numbers["users"]["pending"], &numbers["users"]["error"]), (&json!(users), &json!(0)));
    assert_eq!(post(&hub, "retry-failed-sync", json!({})).await["retried_count"], json!(0));
    // And they are tried: against an address where nobody listens, so they fail once more.
    hub.database.execute("DELETE FROM paused_kinds").await;
    eventually("they are tried", async || with_status(&hub, "failed").await == failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_its_dead_letter_gets_a_job_of_its_own() {
    let (hub, failed, _) = failed().await;
    hub.database.execute("DELETE FROM finished_jobs").await;
    let retried = post(&hub, "retry-failed-sync", json!({})).await;
    assert_eq!((&retried["retried_count"], &retried["from_dead_letters"]), (&json!(failed), &json!(0)));
    assert_eq!(
        hub.database.count("SELECT COUNT(*) FROM jobs").await,
        hub.database.count("SELECT COUNT(*) FROM users").await
    );
    hub.database.execute("DELETE FROM paused_kinds").await;
    eventually("they are tried", async || with_status(&hub, "failed").await == failed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_of_one_type_of_one_user_and_of_so_many() {
    let (hub, failed, member) = failed().await;
    let client = hub.admin().await;
    let retry = async |request: v1::RetryFailedSyncRequest| {
        client.analytics().retry_failed_sync(request).await.map(|retried| retried.into_inner())
    };
    let of = |event_type: Option<&str>, user_id: Option<&str>, max: Option<i32>| v1::RetryFailedSyncRequest {
        event_type: event_type.map(str::to_owned),
        user_id: user_id.map(str::to_owned),
        max,
    };
    let one = retry(of(Some("subscription_sync"), Some(&member.id), None)).await.unwrap();
    assert_eq!((one.retried_count, one.more), (1, false));
    let still = hub
        .database
        .count("SELECT COUNT(*) FROM sync_events WHERE status = 'failed' AND event_type = 'subscription_sync'")
        .await;
    assert_eq!(still, 1, "the other user's stays");
    let some = retry(of(None, None, Some(2))).await.unwrap();
    assert_eq!((some.retried_count, some.more), (2, true));
    let rest = retry(of(None, None, Some(10_000))).await.unwrap();
    assert_eq!((rest.retried_count, rest.more), (failed - 3, false));
    assert_eq!(fault(retry(of(Some("nonsense"), None, None)).await), "event_type");
    assert_eq!(fault(retry(of(None, Some("nobody"), None)).await), "user_id");
    assert_eq!(fault(retry(of(None, None, Some(0))).await), "max");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_says_nothing_of_what_was_to_be_done_stays_failed() {
    let hub = swept(lonely()).await;
    let member = hub.member().await;
    settled(&hub.database).await;
    hub.database.execute("DELETE FROM finished_jobs").await;
    hub.database
        .execute(&format!(
            "UPDATE sync_events SET event_type = 'usage_sync' WHERE user_id = {}",
            literal(&hub, &member.id)
        ))
        .await;
    hub.database.execute("INSERT INTO paused_kinds (kind, paused_at) VALUES ('user_sync', CURRENT_TIMESTAMP)").await;
    let retried = post(&hub, "retry-failed-sync", json!({ "user_id": member.id })).await;
    assert_eq!((&retried["retried_count"], &retried["skipped_count"]), (&json!(0), &json!(1)));
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM jobs").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_was_given_up_is_applied_from_its_event() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(3).await;
    let paused = "INSERT INTO paused_kinds (kind, paused_at) VALUES ('usage_sync', CURRENT_TIMESTAMP)";
    hub.database.execute(paused).await;
    let body = json!({ "digiup_user_id": member.id, "usage_data": {
        "batch_name": "b", "batch_type": "video", "usage_type": "local_rendering", "usage_amount": 3 } });
    let request = reqwest::Client::new().post(hub.url("/api/v1/creatorup/webhook/usage-update"));
    let (code, answer) = crate::harness::json(request.header("x-api-key", SERVICE_KEY).json(&body)).await;
    assert_eq!(code, 200, "{answer}");
    // As if its tries had been used up long ago, and its dead letter trimmed.
    hub.database.execute("DELETE FROM jobs").await;
    hub.database.execute("UPDATE sync_events SET status = 'failed' WHERE event_type = 'usage_sync'").await;
    hub.database.execute("UPDATE webhook_logs SET status = 'failed'").await;
    let retried = post(&hub, "retry-failed-sync", json!({ "event_type": "usage_sync" })).await;
    assert_eq!((&retried["retried_count"], &retried["from_dead_letters"]), (&json!(1), &json!(0)));
    hub.database.execute("DELETE FROM paused_kinds").await;
    eventually("it is in the ledger", async || crate::harness::total(&member.client, "2026-03").await == 3).await;
    let processed = "SELECT COUNT(*) FROM webhook_logs WHERE status = 'processed'";
    eventually("its log says so", async || hub.database.count(processed).await == 1).await;
}

/// A UUID as the database writes it.
fn literal(hub: &TestHub, id: &str) -> String {
    match hub.database.is_postgres() {
        true => format!("'{id}'"),
        false => format!("x'{}'", id.replace('-', "")),
    }
}
