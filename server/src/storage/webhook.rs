//! Webhooks that come in: the ledger that tells a repeated one, and the log.
//!
//! A webhook's log, its sync event and its receipt have one id.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, EntityTrait, QueryResult, Value};
use uuid::Uuid;

use super::dialect::Dialect;
use super::entity::webhook_log::{Entity, Model};
use super::row::{column, word};
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::page::Page;
use crate::model::tally::Metric;
use crate::model::webhook::{
    Arrival, CREATORUP, DeliveryKey, Rejection, WebhookEvent, WebhookFilter, WebhookLog, WebhookStatus,
};
use crate::model::{Instant, Json, Result};

/// What the ledger knows under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The log of the first delivery.
    pub id: Uuid,
    /// The digest of its content.
    pub digest: String,
}

/// Enters keys into the ledger, and answers for each what was there before, or nothing when it is new. A key may be
/// given once.
pub async fn enter(tx: &mut WriteTx, keys: &[(Uuid, &DeliveryKey, Instant)]) -> Result<Vec<Option<Known>>> {
    const COLUMNS: &[&str] = &["source", "delivery_key", "body_digest", "log_id", "received_at"];
    const ENTER: &str = "INSERT INTO webhook_receipts (source, delivery_key, body_digest, log_id, received_at) \
                         SELECT source, delivery_key, body_digest, log_id, received_at FROM receipt WHERE true \
                         ON CONFLICT (delivery_key, source) DO NOTHING";
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    // In the order of the keys, so that two hubs never wait for each other.
    let mut sorted: Vec<&(Uuid, &DeliveryKey, Instant)> = keys.iter().collect();
    sorted.sort_unstable_by(|one, other| one.1.key.cmp(&other.1.key));
    let mut rows = Rows::new(COLUMNS, keys.len());
    for (id, key, at) in sorted {
        rows.text(CREATORUP).text(&key.key).text(&key.digest).uuid(*id).time(*at);
    }
    let dialect = tx.dialect();
    let entered = asked(rows.execute(tx.connection(), dialect, "receipt", ENTER)).await?;
    if entered == keys.len() as u64 {
        return Ok(vec![None; keys.len()]);
    }
    let found = find_receipts(tx, keys).await?;
    let known =
        |(id, key, _): &(Uuid, &DeliveryKey, Instant)| found.get(&key.key).filter(|known| known.id != *id).cloned();
    Ok(keys.iter().map(known).collect())
}

async fn find_receipts(tx: &WriteTx, keys: &[(Uuid, &DeliveryKey, Instant)]) -> Result<HashMap<String, Known>> {
    const FIND: &str = "SELECT receipts.delivery_key, receipts.log_id, receipts.body_digest FROM wanted \
                        JOIN webhook_receipts AS receipts ON receipts.delivery_key = wanted.delivery_key \
                        AND receipts.source = wanted.source";
    let mut rows = Rows::new(&["source", "delivery_key"], keys.len());
    for (_, key, _) in keys {
        rows.text(CREATORUP).text(&key.key);
    }
    let found = asked(rows.query(tx.reader(), tx.dialect(), "wanted", FIND)).await?;
    let known = |row: &QueryResult| {
        Ok((column(row, "delivery_key")?, Known { id: column(row, "log_id")?, digest: column(row, "body_digest")? }))
    };
    found.iter().map(known).collect()
}

/// Logs webhooks that are to be applied.
pub async fn insert(tx: &mut WriteTx, arrivals: &[(Uuid, &Arrival)]) -> Result<()> {
    const COLUMNS: &[&str] =
        &["id", "source", "event_type", "user_id", "payload", "signature", "status", "ip_address", "created_at"];
    let mut rows = Rows::new(COLUMNS, arrivals.len());
    for (id, arrival) in arrivals {
        rows.uuid(*id).text(CREATORUP).text(arrival.event.as_str()).uuid(arrival.user_id).json(arrival.payload.clone());
        rows.text_or_null(arrival.signature.clone()).text(WebhookStatus::Received.as_str()).text(&arrival.ip);
        rows.time(arrival.at);
    }
    let label = |event: &WebhookEvent| event.label(WebhookStatus::Received);
    tx.tally_each(Metric::Webhooks, arrivals.iter().map(|(_, arrival)| (arrival.event, arrival.at)), label);
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "webhook_logs", "")).await
}

/// Logs webhooks that were refused.
pub async fn insert_rejections(tx: &mut WriteTx, rejections: &[&Rejection]) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "source",
        "event_type",
        "user_id",
        "payload",
        "signature",
        "status",
        "error_message",
        "ip_address",
        "processed_at",
        "created_at",
    ];
    let mut rows = Rows::new(COLUMNS, rejections.len());
    for rejection in rejections {
        rows.uuid(Uuid::now_v7()).text(CREATORUP).text(rejection.event.as_str()).uuid_or_null(rejection.user_id);
        rows.json(rejection.payload.clone()).text_or_null(rejection.signature.clone());
        rows.text(WebhookStatus::Failed.as_str()).text(&rejection.error).text(&rejection.ip);
        rows.time(rejection.at).time(rejection.at);
        tx.tally(Metric::Webhooks, &rejection.event.label(WebhookStatus::Failed), rejection.at, 1, 0);
    }
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "webhook_logs", "")).await
}

/// What became of a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// Its log.
    pub id: Uuid,
    /// `Processed` or `Failed`.
    pub status: WebhookStatus,
    /// What applying it did.
    pub response: Option<Json>,
    /// Why it failed.
    pub error: Option<String>,
}

/// Writes what became of webhooks, as a set. One that is processed stays so; one that failed may be processed later.
pub async fn settle(tx: &mut WriteTx, fates: &[&Fate], now: Instant) -> Result<()> {
    let mut left: Vec<&Fate> = fates.to_vec();
    for from in [WebhookStatus::Received, WebhookStatus::Failed] {
        left.retain(|fate| fate.status != from);
        if left.is_empty() {
            return Ok(());
        }
        let moved = settle_from(tx, &left, from, now).await?;
        left.retain(|fate| !moved.contains(&fate.id));
    }
    Ok(())
}

async fn settle_from(tx: &mut WriteTx, fates: &[&Fate], from: WebhookStatus, now: Instant) -> Result<Vec<Uuid>> {
    let mut rows = Rows::new(&["id", "status", "response", "error_message", "processed_at"], fates.len());
    for fate in fates {
        rows.uuid(fate.id).text(fate.status.as_str()).json(fate.response.clone());
        rows.text_or_null(fate.error.clone()).time(now);
    }
    let dialect = tx.dialect();
    let changes = "status = fate.status, response = fate.response, error_message = fate.error_message, \
                   processed_at = fate.processed_at";
    let update = dialect.update_each("webhook_logs", changes, "fate", ("status", from.as_str()));
    let update = format!(
        "{update} RETURNING webhook_logs.id, webhook_logs.event_type, webhook_logs.status, webhook_logs.created_at"
    );
    let moved = asked(rows.query(tx.connection(), dialect, "fate", &update)).await?;
    let mut ids = Vec::with_capacity(moved.len());
    for row in &moved {
        let (event_type, status): (String, String) = (column(row, "event_type")?, column(row, "status")?);
        let created_at: DateTime<Utc> = column(row, "created_at")?;
        tx.tally(Metric::Webhooks, &format!("{event_type}.{}", from.as_str()), created_at, -1, 0);
        tx.tally(Metric::Webhooks, &format!("{event_type}.{status}"), created_at, 1, 0);
        ids.push(column(row, "id")?);
    }
    Ok(ids)
}

/// The log of that id.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<WebhookLog>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(WebhookLog::try_from).transpose()
}

/// A page of logs, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    filter: &WebhookFilter,
    page: &Page,
) -> Result<Vec<WebhookLog>> {
    let (mut tests, mut values) = (Vec::new(), vec![Value::from(i64::from(page.size) + 1)]);
    for (test, value) in [
        ("id <", page.after.as_ref().map(|after| Value::from(after.id))),
        ("event_type =", filter.event_type.clone().map(Value::from)),
        ("source =", filter.source.clone().map(Value::from)),
        ("user_id =", filter.user_id.map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            tests.push(format!("{test} ${}", values.len()));
        }
    }
    // Literals and not bound values: only so does a planner see that a partial index serves.
    let standing = match (filter.user_id, filter.status) {
        (Some(_), None) => vec![RECEIVED.to_owned(), SETTLED.to_owned()],
        (Some(_), Some(status)) if status != WebhookStatus::Received => {
            vec![format!("{SETTLED} AND status = '{}'", status.as_str())]
        }
        (_, Some(status)) => vec![format!("status = '{}'", status.as_str())],
        (None, None) => vec!["true".to_owned()],
    };
    let select = |standing: &String| {
        let tests: String = tests.iter().map(|test| format!(" AND {test}")).collect();
        format!("SELECT * FROM webhook_logs WHERE {standing}{tests}")
    };
    let selects = standing.iter().map(select).collect::<Vec<_>>().join(" UNION ALL ");
    let query = dialect.statement(format!("{selects} ORDER BY id DESC LIMIT $1"), values);
    asked(Entity::find().from_raw_sql(query).all(connection)).await?.into_iter().map(WebhookLog::try_from).collect()
}

/// What tells a webhook that waits to be applied from one that was applied, refused or given up.
const RECEIVED: &str = "status = 'received'";
const SETTLED: &str = "status <> 'received'";

/// A query of `columns` of the webhooks about a user, newest first: `$1` is the user, `$2` how many at most.
///
/// Those that are settled are in an index by user. Those that are not are few, or soon will be, and are found by a walk
/// through them.
pub(super) fn of_user(columns: &str) -> String {
    let select = |standing| format!("SELECT {columns} FROM webhook_logs WHERE user_id = $1 AND {standing}");
    format!("{} UNION ALL {} ORDER BY id DESC LIMIT $2", select(RECEIVED), select(SETTLED))
}

impl TryFrom<Model> for WebhookLog {
    type Error = crate::model::Error;

    fn try_from(row: Model) -> Result<WebhookLog> {
        Ok(WebhookLog {
            status: word("webhook_logs.status", &row.status, WebhookStatus::parse)?,
            id: row.id,
            source: row.source,
            event_type: row.event_type,
            user_id: row.user_id,
            payload: row.payload,
            signature: row.signature,
            response: row.response,
            error_message: row.error_message,
            ip_address: row.ip_address,
            processed_at: row.processed_at,
            created_at: row.created_at,
        })
    }
}
