//! Whether the integration is well: numbers, health, alerts, the live view, and what administrators do about it.

mod cleanup;
mod health;
mod live;
mod numbers;
mod retry;

use reqwest::Client as Http;
use serde_json::Value;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestDatabase, TestHub, eventually, json};

/// A hub whose CreatorUp is an address where nobody listens: every push fails at once and for good.
fn lonely() -> Setup {
    Setup::default().set("CREATORUP_API_URL", "http://127.0.0.1:9").set("MAX_SYNC_RETRIES", "0")
}

/// Starts a hub and waits for the sweep that every hub with a CreatorUp begins with: a late one would push anew what has
/// failed by then.
async fn swept(setup: Setup) -> TestHub {
    let hub = setup.start().await;
    let begun = "SELECT COUNT(*) FROM schedules WHERE name = 'user_sweep'";
    eventually("the first sweep has begun", async || hub.database.count(begun).await == 1).await;
    settled(&hub.database).await;
    hub
}

/// A new token of the first administrator: the test's clock may have outlived the last one.
async fn token(hub: &TestHub) -> String {
    let login = serde_json::json!({ "email": ADMIN_EMAIL, "password": ADMIN_PASSWORD });
    let (code, answer) = json(Http::new().post(hub.url("/api/v1/client/auth/login")).json(&login)).await;
    assert_eq!(code, 200, "{answer}");
    answer["data"]["token"].as_str().expect("a token").to_owned()
}

/// What an administrator is answered.
async fn get(hub: &TestHub, path: &str) -> Value {
    let path = format!("/api/v1/admin/analytics/{path}");
    let (code, mut answer) = json(Http::new().get(hub.url(&path)).bearer_auth(token(hub).await)).await;
    assert_eq!(code, 200, "{path}: {answer}");
    answer["data"].take()
}

async fn post(hub: &TestHub, path: &str, body: Value) -> Value {
    let path = format!("/api/v1/admin/analytics/{path}");
    let request = Http::new().post(hub.url(&path)).bearer_auth(token(hub).await).json(&body);
    let (code, mut answer) = json(request).await;
    assert_eq!(code, 200, "{path}: {answer}");
    answer["data"].take()
}

/// Waits until nothing is left for the queue to do.
async fn settled(database: &TestDatabase) {
    eventually("the queue has done everything", async || {
        database.count("SELECT COUNT(*) FROM jobs").await == 0
            && database.count("SELECT COUNT(*) FROM sync_events WHERE status = 'pending'").await == 0
    })
    .await;
}

/// Adds to the running counts what the test wants to have happened; the shard is one that no hub has.
async fn tally(database: &TestDatabase, metric: &str, span: &str, starts_at: i64, label: &str, count: i64) {
    database
        .execute(&format!(
            "INSERT INTO tallies (metric, span, starts_at, label, shard, count, amount) \
             VALUES ('{metric}', '{span}', {starts_at}, '{label}', 99, {count}, 0) \
             ON CONFLICT (metric, span, starts_at, label, shard) DO UPDATE SET count = excluded.count"
        ))
        .await;
}
