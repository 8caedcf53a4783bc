//! Webhooks that come in: what is taken, what is refused, and what becomes of it.

mod command;
mod day;
mod intake;
mod overtaken;
mod refusal;
mod restart;
mod subscription;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use upbridge_client::v1;
use upbridge_server::model::signature::Key;
use uuid::Uuid;

use crate::harness::{self, Member, TestDatabase, TestHub, WEBHOOK_SECRET, eventually};

const USAGE: &str = "/api/v1/creatorup/webhook/usage-update";
const SUBSCRIPTION: &str = "/api/v1/creatorup/webhook/subscription-update";

/// The sources' request, for a user.
fn usage_body(user_id: &str) -> String {
    format!(
        r#"{{
  "digiup_user_id": "{user_id}",
  "usage_data": {{
    "batch_name": "batch-001",
    "batch_type": "video",
    "usage_type": "local_rendering",
    "usage_amount": 1,
    "month_year": "2024-01",
    "completed_at": "2024-01-15T10:30:00.000Z",
    "metadata": {{}}
  }},
  "signature": "webhook-signature"
}}"#
    )
}

/// The sources' request, for a user.
fn subscription_body(user_id: &str) -> String {
    format!(
        r#"{{
  "digiup_user_id": "{user_id}",
  "subscription_data": {{
    "plan": "Pro",
    "status": "active",
    "end_date": "2024-02-15T00:00:00.000Z"
  }},
  "signature": "webhook-signature"
}}"#
    )
}

/// A report of a batch of one name.
fn batch(user_id: &str, name: &str) -> Value {
    json!({
        "digiup_user_id": user_id,
        "usage_data": {
            "batch_name": name, "batch_type": "video", "usage_type": "local_rendering",
            "completed_at": "2024-01-15T10:30:00.000Z",
        },
    })
}

fn key() -> Key {
    Key::parse(WEBHOOK_SECRET).unwrap()
}

/// The signature in a header.
fn signed(body: &[u8]) -> HeaderMap {
    headers(&[("x-webhook-signature", &key().sign(None, body))])
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

/// Sends a body as it is; the status of the answer, and the JSON.
async fn send(hub: &TestHub, path: &str, headers: HeaderMap, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let request = reqwest::Client::new().post(hub.url(path)).header("content-type", "application/json");
    harness::json(request.headers(headers).body(body.into())).await
}

/// Sends a webhook with a good signature; the receipt.
async fn deliver(hub: &TestHub, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let (code, answer) = send(hub, path, signed(body.as_bytes()), body.clone()).await;
    assert_eq!((code, &answer["success"], &answer["data"]["received"]), (200, &json!(true), &json!(true)), "{answer}");
    answer["data"].clone()
}

/// What became of a webhook, when it is over.
async fn fate(hub: &TestHub, receipt: &Value) -> v1::GetWebhookReceiptResponse {
    let service = hub.service().await;
    let request = v1::GetWebhookReceiptRequest { event_id: receipt["event_id"].as_str().unwrap().to_owned() };
    let mut last = None;
    eventually("the webhook is applied", async || {
        let found = service.webhooks().get_webhook_receipt(request.clone()).await.unwrap().into_inner();
        let is_over = found.status != i32::from(v1::WebhookStatus::Received);
        last = is_over.then_some(found);
        is_over
    })
    .await;
    last.unwrap()
}

/// What applying a webhook did.
async fn outcome(hub: &TestHub, receipt: &Value) -> Value {
    let fate = fate(hub, receipt).await;
    assert_eq!(fate.status, i32::from(v1::WebhookStatus::Processed), "{fate:?}");
    let response = fate.response.expect("a response");
    let text = |value: &prost_types::Value| match &value.kind {
        Some(prost_types::value::Kind::StringValue(text)) => json!(text),
        other => json!(format!("{other:?}")),
    };
    Value::Object(response.fields.iter().map(|(name, value)| (name.clone(), text(value))).collect())
}

/// Records of a user in the ledger.
async fn records(database: &TestDatabase, member: &Member) -> i64 {
    let id = Uuid::parse_str(&member.id).unwrap();
    let id = match database.is_postgres() {
        true => format!("'{id}'"),
        false => format!("x'{}'", id.simple()),
    };
    database.count(&format!("SELECT COUNT(*) FROM creatorup_usage WHERE user_id = {id}")).await
}

/// Logged webhooks with a status.
async fn logged(database: &TestDatabase, status: &str) -> i64 {
    database.count(&format!("SELECT COUNT(*) FROM webhook_logs WHERE status = '{status}'")).await
}

/// What the running counts say of an event and a status, of all days.
async fn counted(database: &TestDatabase, label: &str) -> i64 {
    let sum = "SELECT COALESCE(CAST(SUM(count) AS BIGINT), 0) FROM tallies WHERE metric = 'webhooks' AND span = 'day'";
    database.count(&format!("{sum} AND label = '{label}'")).await
}
