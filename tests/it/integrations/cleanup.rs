//! What is kept of integrations' history, and for how long.

use std::io::Read;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Client, v1};
use uuid::Uuid;

use super::{add, new, partner};
use crate::harness::{Setup, TestHub, noon};

const DAY: i64 = 86_400;

/// A hub whose clock stands at noon, with two integrations.
async fn with_two(setup: Setup) -> (TestHub, Client, [String; 2]) {
    let hub = setup.start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Ana").await;
    let token = json!({ "token": "fonntetoken12345" });
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let request = v1::CreateIntegrationRequest { name: name.into(), ..new(&partner_id, Provider::Fonnte, &token) };
        ids.push(add(&admin, request).await.id);
    }
    (hub, admin, ids.try_into().unwrap())
}

fn literal(hub: &TestHub, id: &str) -> String {
    let id: Uuid = id.parse().unwrap();
    if hub.database.is_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
}

fn ago(days: i64) -> DateTime<Utc> {
    noon() - TimeDelta::days(days)
}

/// A time as the database keeps it.
fn kept(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// Adds history of so many days ago: an entry, a receipt, a delivery of each state, and a count of each span.
async fn history(hub: &TestHub, integration_id: &str, days: i64) {
    let (of, at) = (literal(hub, integration_id), kept(ago(days)));
    let fresh = || literal(hub, &Uuid::now_v7().to_string());
    let webhook = fresh();
    let mut statements = vec![
        format!(
            "INSERT INTO integration_logs (id, integration_id, action, status, message, request_data, created_at) \
             VALUES ({}, {of}, 'test', 'success', 'of {days} days ago', '{{\"n\": {days}}}', '{at}')",
            fresh()
        ),
        format!(
            "INSERT INTO integration_receipts (integration_id, callback_key, log_id, received_at) \
             VALUES ({of}, 'key-{days}', {}, '{at}')",
            fresh()
        ),
        format!(
            "INSERT INTO integration_webhooks (id, integration_id, webhook_url, webhook_secret, secret_key_id, \
             secret_masked, events) VALUES ({webhook}, {of}, 'https://hooks.example.com', '', '', '', '[]')"
        ),
    ];
    for (status, finished) in [("success", true), ("failed", true), ("pending", false), ("held", false)] {
        let finished = if finished { format!("'{at}'") } else { "NULL".to_owned() };
        statements.push(format!(
            "INSERT INTO webhook_deliveries (id, webhook_id, integration_id, event, payload, status, created_at, \
             finished_at) VALUES ({}, {webhook}, {of}, 'message.sent', '{{}}', '{status}', '{at}', {finished})",
            fresh()
        ));
    }
    for span in ["minute", "hour", "day"] {
        statements.push(format!(
            "INSERT INTO integration_counts (integration_id, span, starts_at, action, status, error_class, shard, \
             count, timed, millis) VALUES ({of}, '{span}', {}, 'test', 'success', '', 0, 1, 0, 0)",
            ago(days).timestamp()
        ));
    }
    for statement in statements {
        hub.database.execute(&statement).await;
    }
}

async fn clean(admin: &Client, dry_run: bool) -> v1::CleanupOldDataResponse {
    let request = v1::CleanupOldDataRequest { days: None, dry_run };
    admin.analytics().cleanup_old_data(request).await.expect("cleaned").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_of_the_history_goes_by_its_own_age_and_what_is_unfinished_stays() {
    let (hub, admin, ids) = with_two(Setup::default()).await;
    for id in &ids {
        for days in [1, 31, 33, 89, 91, 399, 401] {
            history(&hub, id, days).await;
        }
    }
    let dry = clean(&admin, true).await;
    let wet = clean(&admin, false).await;
    for (table, rows, days) in [
        ("integration_logs", 6, 90),
        ("integration_receipts", 6, 90),
        // Two of each age are over, on two integrations.
        ("webhook_deliveries", 24, 30),
    ] {
        assert_eq!((dry.deleted[table], wet.deleted[table], wet.retention_days[table]), (rows, rows, days), "{table}");
    }
    // Minutes of 33 days and more, hours of 401 days.
    assert_eq!(wet.deleted["integration_counts"], 2 * (5 + 1));
    let counted = async |span: &str, days: i64| {
        let sql = format!(
            "SELECT COUNT(*) FROM integration_counts WHERE span = '{span}' AND starts_at <= {}",
            noon().timestamp() - days * DAY
        );
        hub.database.count(&sql).await
    };
    assert_eq!((counted("minute", 32).await, counted("minute", 31).await), (0, 2));
    assert_eq!((counted("hour", 400).await, counted("hour", 399).await, counted("day", 401).await), (0, 2, 2));
    let texts = async |sql: &str| hub.database.texts(sql).await;
    let left = texts("SELECT DISTINCT message FROM integration_logs WHERE action = 'test' ORDER BY message").await;
    assert_eq!(left, ["of 1 days ago", "of 31 days ago", "of 33 days ago", "of 89 days ago"]);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM webhook_deliveries WHERE status = 'held'").await, 14);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM webhook_deliveries WHERE status = 'pending'").await, 14);
    let again = clean(&admin, false).await;
    assert!(
        ["integration_logs", "webhook_deliveries", "integration_counts"].iter().all(|table| again.deleted[*table] == 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_in_the_archive_before_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let setup = Setup::default()
        .set("CLEANUP_ARCHIVE_DIR", directory.path().display().to_string())
        .set("RETENTION_INTEGRATION_LOGS_DAYS", "10")
        .set("RETENTION_WEBHOOK_DELIVERIES_DAYS", "10");
    let (hub, admin, [one, two]) = with_two(setup).await;
    history(&hub, &one, 11).await;
    history(&hub, &two, 12).await;
    history(&hub, &two, 9).await;
    let cleaned = clean(&admin, false).await;
    assert_eq!(
        (cleaned.deleted["integration_logs"], cleaned.deleted["webhook_deliveries"], cleaned.archived),
        (2, 4, 6)
    );
    let read = |table: &str| -> Vec<Value> {
        let file = std::fs::File::open(directory.path().join(format!("{table}-2026-03-15.jsonl.gz"))).unwrap();
        let mut text = String::new();
        flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut logs = read("integration_logs");
    logs.sort_by_key(|log| log["message"].to_string());
    assert_eq!((&logs[0]["integration_id"], &logs[0]["request_data"]), (&json!(one), &json!({ "n": 11 })));
    assert_eq!((&logs[1]["integration_id"], &logs[1]["action"]), (&json!(two), &json!("test")));
    assert!(read("webhook_deliveries").iter().all(|delivery| delivery["event"] == "message.sent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_history_goes_in_batches_and_an_integration_with_all_of_its_own() {
    let (hub, admin, [one, two]) = with_two(Setup::default()).await;
    let at = kept(ago(100));
    for id in [&one, &two] {
        let of = literal(&hub, id);
        for _ in 0..3 {
            let rows: Vec<_> = (0..900)
                .map(|_| {
                    let id = literal(&hub, &Uuid::now_v7().to_string());
                    format!("({id}, {of}, 'webhook', 'success', 'm', '{at}')")
                })
                .collect();
            let columns = "id, integration_id, action, status, message, created_at";
            hub.database.execute(&format!("INSERT INTO integration_logs ({columns}) VALUES {}", rows.join(", "))).await;
        }
    }
    history(&hub, &one, 1).await;
    history(&hub, &two, 1).await;
    let delete = v1::DeleteIntegrationRequest { integration_id: one };
    admin.integrations().delete_integration(delete).await.unwrap();
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM integration_logs").await, 2_702);
    for (table, rows) in [("integration_receipts", 1), ("integration_webhooks", 1), ("webhook_deliveries", 4)] {
        assert_eq!(hub.database.count(&format!("SELECT COUNT(*) FROM {table}")).await, rows, "{table}");
    }
    let cleaned = clean(&admin, false).await;
    assert_eq!((cleaned.deleted["integration_logs"], cleaned.more), (2_700, false));
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM integration_logs").await, 2);
}
