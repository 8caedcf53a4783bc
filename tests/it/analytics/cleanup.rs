//! Retention: what is removed, what is archived first, what is never touched, and who does it.

use std::io::Read;

use chrono::TimeDelta;
use serde_json::{Value, json};
use upbridge_client::v1;

use super::{lonely, post, settled, swept};
use crate::harness::{Setup, TestDatabase, TestHub, eventually, fault, record, usage};

/// A hub with events, webhooks, receipts, sessions and an alert, all of noon.
async fn busy(setup: Setup) -> TestHub {
    let hub = swept(setup).await;
    let member = hub.subscriber(3).await;
    member.client.usage().record_usage(record(usage("batch"))).await.unwrap();
    settled(&hub.database).await;
    // After days have passed a sweep would take up who failed, and make events of its own.
    hub.database.execute("INSERT INTO paused_kinds (kind, paused_at) VALUES ('user_sweep', CURRENT_TIMESTAMP)").await;
    let now = hub.database.texts("SELECT CAST(MAX(created_at) AS TEXT) FROM sync_events").await.remove(0);
    let id = |last: u8| match hub.database.is_postgres() {
        true => format!("'00000000-0000-7000-8000-0000000000{last:02x}'"),
        false => format!("x'000000000000700080000000000000{last:02x}'"),
    };
    for (last, status) in [(1, "processed"), (2, "failed"), (3, "received")] {
        hub.database
            .execute(&format!(
                "INSERT INTO webhook_logs (id, source, event_type, status, payload, created_at) \
                 VALUES ({}, 'creatorup', 'usage-update', '{status}', '{{\"n\": 5}}', '{now}')",
                id(last)
            ))
            .await;
        hub.database
            .execute(&format!(
                "INSERT INTO webhook_receipts (source, delivery_key, body_digest, log_id, received_at) \
                 VALUES ('creatorup', 'key-{last}', 'digest-{last}', {}, '{now}')",
                id(last)
            ))
            .await;
    }
    hub.database
        .execute(&format!(
            "INSERT INTO alerts (id, code, severity, message, opened_at, cleared_at, updated_at) \
             VALUES ({}, 'queue_backlog', 'warning', 'm', '{now}', '{now}', '{now}')",
            id(9)
        ))
        .await;
    hub
}

async fn rows(database: &TestDatabase, table: &str) -> i64 {
    database.count(&format!("SELECT COUNT(*) FROM {table}")).await
}

/// What nobody may ever clean up.
async fn untouchable(database: &TestDatabase) -> Vec<i64> {
    let mut counts = Vec::new();
    for table in ["creatorup_usage", "usage_monthly", "usage_revisions", "user_subscriptions", "users", "audit_log"] {
        counts.push(rows(database, table).await);
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_what_a_cleanup_then_removes_and_nothing_else_is_touched() {
    let hub = busy(lonely()).await;
    let kept = untouchable(&hub.database).await;
    let events = rows(&hub.database, "sync_events").await;
    hub.clock.advance(TimeDelta::days(40));
    // Not yet: everything is younger than its retention, but for the sessions.
    let young = post(&hub, "cleanup-old-data", json!({ "dry_run": true })).await;
    assert_eq!((&young["deleted"]["sync_events"], &young["deleted"]["webhook_logs"]), (&json!(0), &json!(0)));
    assert_eq!(young["retention_days"]["sync_events"], json!(90));
    hub.database.execute("UPDATE sync_events SET status = 'pending' WHERE event_type = 'usage_sync'").await;
    let before = rows(&hub.database, "sessions").await;
    let dry = post(&hub, "cleanup-old-data", json!({ "days": 20, "dry_run": true })).await;
    assert_eq!((&dry["dry_run"], rows(&hub.database, "sync_events").await), (&json!(true), events));
    assert!(rows(&hub.database, "sessions").await > before, "signing in is all that happened");
    let wet = post(&hub, "cleanup-old-data", json!({ "days": 20 })).await;
    let deleted = &wet["deleted"];
    for table in ["sync_events", "webhook_logs", "webhook_receipts", "sessions", "alerts"] {
        assert_eq!(deleted[table], dry["deleted"][table], "{table}");
    }
    // What is still somebody's work stays, however old; what tells a repeated webhook is older than 30 days.
    assert_eq!(deleted["sync_events"], json!(events - 1));
    assert_eq!(
        (&deleted["webhook_logs"], &deleted["webhook_receipts"], &deleted["alerts"]),
        (&json!(2), &json!(3), &json!(1))
    );
    assert!(deleted["sessions"].as_i64().unwrap() >= 1 && deleted["tallies"].as_i64().unwrap() >= 1, "{deleted}");
    assert_eq!((&wet["more"], &wet["archived"]), (&json!(false), &json!(0)));
    assert_eq!(hub.database.texts("SELECT event_type FROM sync_events").await, ["usage_sync"]);
    assert_eq!(hub.database.texts("SELECT status FROM webhook_logs").await, ["received"]);
    assert_eq!(untouchable(&hub.database).await, kept);
    // The numbers of the time stay, without the rows.
    let numbers = super::get(&hub, "sync?period=90d").await;
    assert_eq!(numbers["events"]["total"], json!(events));
    let again = post(&hub, "cleanup-old-data", json!({ "days": 20 })).await;
    assert_eq!(again["deleted"]["sync_events"], json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tells_a_repeated_webhook_stays_thirty_days_whatever_is_asked() {
    let hub = busy(lonely()).await;
    hub.clock.advance(TimeDelta::days(29));
    let cleaned = post(&hub, "cleanup-old-data", json!({ "days": 1 })).await;
    assert_eq!((&cleaned["deleted"]["webhook_logs"], &cleaned["deleted"]["webhook_receipts"]), (&json!(2), &json!(0)));
    assert_eq!(cleaned["retention_days"]["webhook_receipts"], json!(30));
    let client = hub.admin().await;
    for days in [0, -1, 3_651] {
        let request = v1::CleanupOldDataRequest { days: Some(days), dry_run: true };
        assert_eq!(fault(client.analytics().cleanup_old_data(request).await), "days");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_in_the_archive_before_they_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("archive");
    let hub = busy(lonely().set("CLEANUP_ARCHIVE_DIR", archive.display().to_string())).await;
    let ids = "SELECT CAST(id AS TEXT) FROM sync_events";
    let events = rows(&hub.database, "sync_events").await;
    hub.clock.advance(TimeDelta::days(100));
    let cleaned = post(&hub, "cleanup-old-data", json!({})).await;
    assert_eq!((&cleaned["deleted"]["sync_events"], &cleaned["archived"]), (&json!(events), &json!(events + 2)));
    let read = |table: &str| -> Vec<Value> {
        let file = std::fs::File::open(archive.join(format!("{table}-2026-06-23.jsonl.gz"))).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let archived = read("sync_events");
    assert_eq!(archived.len() as i64, events);
    let usage = archived.iter().find(|event| event["event_type"] == "usage_sync").unwrap();
    assert_eq!((&usage["status"], &usage["payload"]["usage_amount"]), (&json!("completed"), &json!(1)));
    for name in ["id", "user_id"] {
        let id = usage[name].as_str().unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok() && id.contains('-'), "{id}");
    }
    assert!(archived.iter().any(|event| event["status"] == "failed" && event["error_message"].is_string()));
    assert_eq!(read("webhook_logs")[0]["payload"], json!({ "n": 5 }));
    assert!(hub.database.texts(ids).await.is_empty());

    // Where nothing can be written, nothing is removed.
    let hub = busy(lonely().set("CLEANUP_ARCHIVE_DIR", "/proc/nowhere")).await;
    let events = rows(&hub.database, "sync_events").await;
    hub.clock.advance(TimeDelta::days(100));
    let request = v1::CleanupOldDataRequest::default();
    let refused = hub.admin().await.analytics().cleanup_old_data(request).await.unwrap_err();
    assert_eq!(refused.code(), upbridge_client::Code::Unavailable);
    assert_eq!(rows(&hub.database, "sync_events").await, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_interval_is_cleaned_up_once_by_one_hub_of_all() {
    let hub = busy(lonely().set("CLEANUP_INTERVAL", "100")).await;
    let done = async || {
        let tallied = "SELECT CAST(COALESCE(SUM(count), 0) AS BIGINT) FROM tallies WHERE label = 'cleanup.done'";
        hub.database.count(tallied).await
    };
    let begun = "SELECT COUNT(*) FROM schedules WHERE name = 'cleanup'";
    eventually("the first interval", async || hub.database.count(begun).await == 1).await;
    // The clock stands, so the interval goes on, however often it is looked at.
    let other = match hub.database.is_postgres() {
        true => Some(
            Setup::default()
                .set("CLEANUP_INTERVAL", "100")
                .start_on(TestDatabase { url: hub.database.url.clone(), directory: tempfile::tempdir().unwrap() })
                .await,
        ),
        false => None,
    };
    // Both clocks before its job is done: that may be by either hub, and removes what is old by that hub's clock.
    hub.database.execute("INSERT INTO paused_kinds (kind, paused_at) VALUES ('cleanup', CURRENT_TIMESTAMP)").await;
    for clock in [Some(&hub.clock), other.as_ref().map(|other| &other.clock)].into_iter().flatten() {
        clock.advance(TimeDelta::days(100));
    }
    hub.database.execute("DELETE FROM paused_kinds WHERE kind = 'cleanup'").await;
    eventually("the next interval", async || rows(&hub.database, "sync_events").await == 0).await;
    eventually("its job is over", async || done().await == 1).await;
    // Whichever hub was second found the interval taken.
    assert_eq!(rows(&hub.database, "jobs WHERE kind = 'cleanup'").await, 0);
    assert_eq!(done().await, 1);
}
