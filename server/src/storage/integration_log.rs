//! What happened to integrations, with the counts that statistics and health are answered from. An entry and its count
//! commit together; both are written as sets.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use uuid::Uuid;

use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::Result;
use crate::model::integration::{Action, LogStatus, NewLog};
use crate::model::tally::Span;

/// The buckets an entry is counted in.
pub const SPANS: &[Span] = &[Span::Minute, Span::Hour, Span::Day, Span::Total];

const COLUMNS: &[&str] = &[
    "id",
    "integration_id",
    "action",
    "status",
    "message",
    "request_data",
    "response_data",
    "error_details",
    "duration",
    "ip_address",
    "user_agent",
    "user_id",
    "delivery_id",
    "created_at",
    "updated_at",
];

const COUNT_COLUMNS: &[&str] =
    &["integration_id", "span", "starts_at", "action", "status", "error_class", "shard", "count", "timed", "millis"];

/// Writes entries down and counts them.
pub async fn record(tx: &mut WriteTx, logs: &[NewLog]) -> Result<()> {
    if logs.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, logs.len());
    for log in logs {
        rows.uuid(log.id).uuid(log.integration_id).text(log.action.as_str()).text(log.status.as_str());
        rows.text(&log.message).json(log.request.clone()).json(log.response.clone()).json(error_details(log));
        rows.int_or_null(log.duration).text_or_null(log.ip.clone()).text_or_null(log.user_agent.clone());
        rows.uuid_or_null(log.user_id).uuid_or_null(log.delivery_id).time(log.at).time(log.at);
    }
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "integration_logs", "")).await?;
    count(tx, logs).await
}

/// What went wrong, with its class.
fn error_details(log: &NewLog) -> Option<Value> {
    let class = log.class.map(|class| json!(class.as_str()));
    match (class, log.error.clone()) {
        (None, error) => error,
        (Some(class), Some(Value::Object(mut error))) => {
            error.insert("class".to_owned(), class);
            Some(Value::Object(error))
        }
        (Some(class), _) => Some(json!({ "class": class })),
    }
}

/// Adds entries to the counts. In the order of the keys, so that two transactions never wait for each other in a circle.
async fn count(tx: &mut WriteTx, logs: &[NewLog]) -> Result<()> {
    type Key = (Uuid, Span, i64, Action, LogStatus, &'static str);
    let mut counts: BTreeMap<Key, (i64, i64, i64)> = BTreeMap::new();
    for log in logs {
        let class = log.class.map_or("", |class| class.as_str());
        for span in SPANS {
            let key = (log.integration_id, *span, span.start(log.at), log.action, log.status, class);
            let sum = counts.entry(key).or_default();
            sum.0 += 1;
            sum.1 += i64::from(log.duration.is_some());
            sum.2 += i64::from(log.duration.unwrap_or(0));
        }
    }
    let shard = tx.shard();
    let mut rows = Rows::new(COUNT_COLUMNS, counts.len());
    for ((integration_id, span, starts_at, action, status, class), (count, timed, millis)) in counts {
        rows.uuid(integration_id).text(span.as_str()).bigint(starts_at).text(action.as_str()).text(status.as_str());
        rows.text(class).int(shard).bigint(count).bigint(timed).bigint(millis);
    }
    let add = "ON CONFLICT (integration_id, span, starts_at, action, status, error_class, shard) DO UPDATE SET \
               count = integration_counts.count + excluded.count, timed = integration_counts.timed + excluded.timed, \
               millis = integration_counts.millis + excluded.millis";
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "integration_counts", add)).await
}
