//! Callbacks of providers: the ledger that tells a repeated one, and their entries in the log of webhooks.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::partner_integration::{Column, Entity};
use super::partner;
use super::row::column;
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::integration::{Integration, Provider};
use crate::model::tally::Metric;
use crate::model::webhook::{PROVIDER_CALLBACK, WebhookStatus};
use crate::model::{Instant, Json, Result};

/// A callback to be entered: what tells it from others, and the log entry it would have.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The integration.
    pub integration_id: Uuid,
    /// What tells it from every other of the integration.
    pub key: &'a str,
    /// Its log entry.
    pub log_id: Uuid,
    /// When it came.
    pub at: Instant,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is new.
    New,
    /// It was there, with this log entry.
    Known(Uuid),
    /// The integration is gone.
    Nowhere,
}

/// Enters callbacks into the ledger. A key of an integration may be given once.
pub async fn enter(tx: &mut WriteTx, entries: &[Entry<'_>]) -> Result<Vec<Entered>> {
    const COLUMNS: &[&str] = &["integration_id", "callback_key", "log_id", "received_at"];
    // A subquery, and no join, keeps the order of the rows and looks each integration up.
    const ENTER: &str = "INSERT INTO integration_receipts (integration_id, callback_key, log_id, received_at) \
                         SELECT integration_id, callback_key, log_id, received_at FROM receipt \
                         WHERE (SELECT id FROM partner_integrations WHERE id = receipt.integration_id) IS NOT NULL \
                         ON CONFLICT (callback_key, integration_id) DO NOTHING RETURNING log_id";
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    // In the order of the keys, so that two hubs never wait for each other.
    let mut sorted: Vec<&Entry<'_>> = entries.iter().collect();
    sorted.sort_unstable_by_key(|entry| (entry.key, entry.integration_id));
    let mut rows = Rows::new(COLUMNS, entries.len());
    for entry in sorted {
        rows.uuid(entry.integration_id).text(entry.key).uuid(entry.log_id).time(entry.at);
    }
    let dialect = tx.dialect();
    let entered = asked(rows.query(tx.connection(), dialect, "receipt", ENTER)).await?;
    let new: std::collections::HashSet<Uuid> =
        entered.iter().map(|row| column(row, "log_id")).collect::<Result<_>>()?;
    let old: Vec<(Uuid, &str)> = entries
        .iter()
        .filter(|entry| !new.contains(&entry.log_id))
        .map(|entry| (entry.integration_id, entry.key))
        .collect();
    let known = known(tx, &old).await?;
    let standing = |entry: &Entry<'_>| {
        if new.contains(&entry.log_id) {
            return Entered::New;
        }
        let known = known.get(&(entry.integration_id, entry.key.to_owned()));
        known.map_or(Entered::Nowhere, |log_id| Entered::Known(*log_id))
    };
    Ok(entries.iter().map(standing).collect())
}

/// The log entries of those of these keys of integrations that were entered.
pub async fn known(tx: &WriteTx, places: &[(Uuid, &str)]) -> Result<HashMap<(Uuid, String), Uuid>> {
    // Each is looked up by its key, however few there were when the plan was made.
    const FIND: &str = "SELECT integration_id, callback_key, (SELECT receipts.log_id FROM integration_receipts AS receipts \
                        WHERE receipts.callback_key = wanted.callback_key \
                        AND receipts.integration_id = wanted.integration_id) AS log_id FROM wanted";
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let mut rows = Rows::new(&["integration_id", "callback_key"], places.len());
    for (integration_id, key) in places {
        rows.uuid(*integration_id).text(*key);
    }
    let found = asked(rows.query(tx.reader(), tx.dialect(), "wanted", FIND)).await?;
    let mut known = HashMap::with_capacity(found.len());
    for row in &found {
        if let Some(log_id) = column(row, "log_id")? {
            known.insert((column(row, "integration_id")?, column(row, "callback_key")?), log_id);
        }
    }
    Ok(known)
}

/// A callback in the log of webhooks.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookEntry {
    /// That of its entry in the integration's log, when it has one.
    pub id: Uuid,
    /// Whose it is; none when it named no integration there is.
    pub provider: Option<Provider>,
    /// What was kept of it.
    pub payload: Option<Json>,
    /// What it became.
    pub response: Option<Json>,
    /// Why it was refused; nothing when it was taken.
    pub error: Option<String>,
    /// Whether it was its provider's. Only then is a refusal counted: how much comes from anybody says nothing of how the
    /// hub is.
    pub is_proved: bool,
    /// Where it came from; may be empty.
    pub ip: String,
    /// When it came.
    pub at: Instant,
}

/// Writes callbacks into the log of webhooks, which has whatever came in from anybody.
pub async fn log(tx: &mut WriteTx, entries: &[&WebhookEntry]) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "source",
        "event_type",
        "payload",
        "status",
        "response",
        "error_message",
        "ip_address",
        "processed_at",
        "created_at",
    ];
    if entries.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, entries.len());
    for entry in entries {
        let status = if entry.error.is_none() { WebhookStatus::Processed } else { WebhookStatus::Failed };
        let source = entry.provider.map_or("provider", Provider::as_str);
        rows.uuid(entry.id).text(source).text(PROVIDER_CALLBACK).json(entry.payload.clone()).text(status.as_str());
        rows.json(entry.response.clone())
            .text_or_null(entry.error.clone())
            .text(&entry.ip)
            .time(entry.at)
            .time(entry.at);
        if entry.is_proved {
            tx.tally(Metric::Webhooks, &format!("{PROVIDER_CALLBACK}.{}", status.as_str()), entry.at, 1, 0);
        }
    }
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "webhook_logs", "")).await
}

/// Integrations at a provider that are at work, whose partners are, with their sealed credentials: the newest, those
/// before one, and at most so many.
pub async fn list_active<C: ConnectionTrait>(
    connection: &C,
    provider: Provider,
    before: Option<Uuid>,
    most: usize,
) -> Result<Vec<(Integration, String)>> {
    let query = Entity::find()
        .filter(Column::Provider.eq(provider.as_str()))
        .filter(Column::IsActive.eq(true))
        .filter(Column::PartnerId.in_subquery(partner::at_work()))
        .order_by_desc(Column::Id)
        .limit(most as u64);
    let query = before.map_or(query.clone(), |before| query.filter(Column::Id.lt(before)));
    let opened = |mut row: super::entity::partner_integration::Model| {
        let sealed = std::mem::take(&mut row.credentials);
        Ok((Integration::try_from(row)?, sealed))
    };
    asked(query.all(connection)).await?.into_iter().map(opened).collect()
}
