//! Removal of what is past its retention, a bounded number of rows at a time.
//!
//! Only tables that are listed here are ever touched: logs, events, deliveries and sessions that are over, alerts that
//! are cleared, and counts of short spans. The ledger, its revisions and sums, payments and the audit log are not.

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use super::dialect::{Column, Dialect};
use super::rows::Rows;
use super::{WriteTx, asked, fault, integration_log};
use crate::model::retention::Table;
use crate::model::tally::Span;
use crate::model::{Instant, Json, Result};

/// Rows that are counted at most when nobody wants them removed.
const COUNTED: i64 = 1_000_000;

/// What tells the rows of a table that are past their retention; `$1` is the instant it reaches back to.
struct Scope {
    table: &'static str,
    /// The row's name, when an archive can tell it by one.
    id: Option<&'static str>,
    old: &'static str,
    order: &'static str,
    /// Whether rows are found integration by integration, each a range of an index; a table that grows with every call
    /// has no index by age alone.
    by_integration: bool,
}

impl Scope {
    /// A query of `what` of the rows that are past their retention, oldest first, `$2` of them at most; where rows are
    /// found by integration, the oldest of each.
    fn past(&self, dialect: Dialect, what: &str, hold: &str) -> String {
        let Scope { table, old, order, .. } = self;
        if !self.by_integration {
            return format!("SELECT {what} FROM {table} WHERE {old} ORDER BY {order} LIMIT $2 {hold}");
        }
        let sqlite = format!(
            "SELECT {what} FROM (SELECT id AS owner FROM partner_integrations) AS owners CROSS JOIN {table} \
             ON {table}.integration_id = owner AND {old} LIMIT $2"
        );
        let postgres = format!(
            "SELECT past.* FROM partner_integrations AS owners, LATERAL (SELECT {what} FROM {table} \
             WHERE {table}.integration_id = owners.id AND {old} ORDER BY {order} LIMIT $2 {hold}) AS past LIMIT $2"
        );
        dialect.pick(&[sqlite, postgres]).clone()
    }
}

fn scope(table: Table) -> Scope {
    match table {
        Table::SyncEvents => Scope {
            table: "sync_events",
            id: Some("id"),
            old: "updated_at < $1 AND status <> 'pending'",
            order: "updated_at, id",
            by_integration: false,
        },
        Table::WebhookLogs => Scope {
            table: "webhook_logs",
            id: Some("id"),
            // What was accepted and is not applied yet is still somebody's work.
            old: "created_at < $1 AND status <> 'received'",
            order: "created_at",
            by_integration: false,
        },
        Table::IntegrationLogs => Scope {
            table: "integration_logs",
            id: Some("id"),
            old: "created_at < $1",
            order: "created_at",
            by_integration: true,
        },
        Table::WebhookDeliveries => Scope {
            table: "webhook_deliveries",
            id: Some("id"),
            // What is held waits for its webhook to be enabled again.
            old: "finished_at < $1 AND status IN ('success', 'failed')",
            order: "finished_at",
            by_integration: false,
        },
        Table::WebhookReceipts => unnamed("webhook_receipts", "received_at < $1", "received_at"),
        Table::IntegrationReceipts => unnamed("integration_receipts", "received_at < $1", "received_at"),
        Table::Sessions => unnamed("sessions", "expires_at < $1", "expires_at"),
        Table::Alerts => Scope {
            table: "alerts",
            id: Some("id"),
            old: "cleared_at IS NOT NULL AND updated_at < $1",
            order: "updated_at, id",
            by_integration: false,
        },
    }
}

fn unnamed(table: &'static str, old: &'static str, order: &'static str) -> Scope {
    Scope { table, id: None, old, order, by_integration: false }
}

/// How many rows of a table are past their retention, counted up to a million.
pub async fn count<C: ConnectionTrait>(connection: &C, dialect: Dialect, table: Table, before: Instant) -> Result<i64> {
    let scope = scope(table);
    // Counting needs no order.
    let past = Scope { order: "1", ..scope }.past(dialect, "1 AS one", "");
    let sql = format!("SELECT COUNT(*) AS count FROM ({past}) AS counted");
    let row = asked(connection.query_one_raw(dialect.statement(sql, [before.into(), COUNTED.into()]))).await?;
    row.map_or(Ok(0), |row| row.try_get("", "count").map_err(fault))
}

/// Removes rows of a table that are past their retention, oldest first; says how many.
pub async fn remove(tx: &mut WriteTx, table: Table, before: Instant, most: u64) -> Result<u64> {
    let dialect = tx.dialect();
    let scope = scope(table);
    let (table, row) = (scope.table, dialect.row_name());
    let past = scope.past(dialect, &format!("{table}.{row} AS place"), dialect.skip_locked());
    let sql = format!("DELETE FROM {table} WHERE {row} IN ({past})");
    let values: [Value; 2] = [before.into(), (most as i64).into()];
    if table == Table::IntegrationLogs.as_str() {
        let sql = format!("{sql} RETURNING {}", integration_log::REMOVED);
        let gone = asked(tx.connection().query_all_raw(dialect.statement(sql, values))).await?;
        integration_log::uncount(tx, &gone).await?;
        return Ok(gone.len() as u64);
    }
    Ok(asked(tx.connection().execute_raw(dialect.statement(sql, values))).await?.rows_affected())
}

/// Rows of a table that are past their retention, oldest first, as JSON with their ids; nothing for a table whose rows
/// are not archived.
pub async fn read<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    table: Table,
    before: Instant,
    most: u64,
) -> Result<Vec<(Uuid, Json)>> {
    let scope = scope(table);
    let Some(id) = scope.id else { return Ok(Vec::new()) };
    let json = dialect.row_json(columns(scope.table));
    let sql = scope.past(dialect, &format!("{id} AS id, {json} AS json"), "");
    let values: [Value; 2] = [before.into(), (most as i64).into()];
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    rows.iter()
        .map(|row| {
            let id: Uuid = row.try_get("", "id").map_err(fault)?;
            let text: String = row.try_get("", "json").map_err(fault)?;
            let mut json: Json = serde_json::from_str(&text).map_err(crate::model::Error::internal)?;
            // SQLite keeps a UUID as bytes, which JSON has no form for.
            json["id"] = Json::String(id.to_string());
            Ok((id, json))
        })
        .collect()
}

/// The columns an archive has.
fn columns(table: &str) -> &'static [(&'static str, Column)] {
    use Column::{Json, Plain, Uuid};
    match table {
        "sync_events" => &[
            ("event_type", Plain),
            ("user_id", Uuid),
            ("status", Plain),
            ("payload", Json),
            ("response", Json),
            ("error_message", Plain),
            ("retry_count", Plain),
            ("max_retries", Plain),
            ("processed_at", Plain),
            ("created_at", Plain),
            ("updated_at", Plain),
        ],
        "webhook_logs" => &[
            ("source", Plain),
            ("event_type", Plain),
            ("user_id", Uuid),
            ("payload", Json),
            ("status", Plain),
            ("response", Json),
            ("error_message", Plain),
            ("ip_address", Plain),
            ("processed_at", Plain),
            ("created_at", Plain),
        ],
        "integration_logs" => &[
            ("integration_id", Uuid),
            ("action", Plain),
            ("status", Plain),
            ("message", Plain),
            ("request_data", Json),
            ("response_data", Json),
            ("error_details", Json),
            ("duration", Plain),
            ("ip_address", Plain),
            ("user_agent", Plain),
            ("user_id", Uuid),
            ("delivery_id", Uuid),
            ("created_at", Plain),
        ],
        "webhook_deliveries" => &[
            ("webhook_id", Uuid),
            ("integration_id", Uuid),
            ("event", Plain),
            ("payload", Plain),
            ("status", Plain),
            ("attempts", Plain),
            ("response_status", Plain),
            ("error_class", Plain),
            ("created_at", Plain),
            ("finished_at", Plain),
        ],
        _ => &[
            ("code", Plain),
            ("severity", Plain),
            ("source", Plain),
            ("message", Plain),
            ("details", Json),
            ("opened_at", Plain),
            ("cleared_at", Plain),
        ],
    }
}

/// Removes the named rows, those of them that are still past their retention; says how many.
pub async fn remove_named(tx: &mut WriteTx, table: Table, ids: &[Uuid], before: Instant) -> Result<u64> {
    let Scope { table, id: Some(id), old, .. } = scope(table) else { return Ok(0) };
    let mut rows = Rows::new(&["id", "before"], ids.len());
    for id in ids {
        rows.uuid(*id).time(before);
    }
    let old = old.replace("$1", "(SELECT before FROM named LIMIT 1)");
    let is_counted = table == Table::IntegrationLogs.as_str();
    let returned = if is_counted { integration_log::REMOVED } else { id };
    let remove = format!("DELETE FROM {table} WHERE {id} IN (SELECT id FROM named) AND {old} RETURNING {returned}");
    let dialect = tx.dialect();
    let gone = asked(rows.query(tx.connection(), dialect, "named", &remove)).await?;
    if is_counted {
        integration_log::uncount(tx, &gone).await?;
    }
    Ok(gone.len() as u64)
}

/// Removes counts of what happened to integrations in spans that start before `before`, integration by integration; says
/// how many.
pub async fn prune_integration_counts(tx: &mut WriteTx, span: Span, before: i64, most: u64) -> Result<u64> {
    let old = match span {
        Span::Minute => "span = 'minute' AND starts_at < $1",
        Span::Hour => "span = 'hour' AND starts_at < $1",
        // Longer ones are kept for ever.
        Span::Day | Span::Month | Span::Total => return Ok(0),
    };
    let (table, order) = ("integration_counts", "starts_at");
    let scope = Scope { table, id: None, old, order, by_integration: true };
    let dialect = tx.dialect();
    let row = dialect.row_name();
    let past = scope.past(dialect, &format!("{table}.{row} AS place"), dialect.skip_locked());
    let sql = format!("DELETE FROM {table} WHERE {row} IN ({past})");
    let remove = dialect.statement(sql, [before.into(), (most as i64).into()]);
    Ok(asked(tx.connection().execute_raw(remove)).await?.rows_affected())
}
