//! What happened to integrations, with the counts that statistics and health are answered from. An entry and its count
//! commit together; both are written as sets.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryResult};
use serde_json::{Value, json};
use uuid::Uuid;

use super::dialect::Dialect;
use super::entity::integration_log::{Column, Entity, Model};
use super::row::{column, word};
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::integration::{Action, LogStatus, NewLog};
use crate::model::integration_log::{LogEntry, LogFilter};
use crate::model::tally::Span;
use crate::model::{Error, Instant, Result};

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
    "counted_as",
    "created_at",
    "updated_at",
];

const COUNT_COLUMNS: &[&str] = &[
    "integration_id",
    "span",
    "starts_at",
    "action",
    "status",
    "error_class",
    "shard",
    "count",
    "timed",
    "millis",
    "minutes",
];

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
        rows.uuid_or_null(log.user_id).uuid_or_null(log.delivery_id);
        rows.text_or_null(log.counts.aside().map(str::to_owned)).time(log.at).time(log.at);
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
    let mut counts: BTreeMap<Key, (i64, i64, i64, i64)> = BTreeMap::new();
    for log in logs {
        let class = log.counts.aside().or(log.class.map(|class| class.as_str())).unwrap_or_default();
        for span in SPANS {
            let key = (log.integration_id, *span, span.start(log.at), log.action, log.status, class);
            let sum = counts.entry(key).or_default();
            sum.0 += 1;
            sum.1 += i64::from(log.duration.is_some());
            sum.2 += i64::from(log.duration.unwrap_or(0));
            if *span == Span::Hour {
                sum.3 |= minute_bit(log.at);
            }
        }
    }
    let shard = tx.shard();
    let mut rows = Rows::new(COUNT_COLUMNS, counts.len());
    for ((integration_id, span, starts_at, action, status, class), (count, timed, millis, minutes)) in counts {
        rows.uuid(integration_id).text(span.as_str()).bigint(starts_at).text(action.as_str()).text(status.as_str());
        rows.text(class).int(shard).bigint(count).bigint(timed).bigint(millis).bigint(minutes);
    }
    let add = "ON CONFLICT (integration_id, span, starts_at, action, status, error_class, shard) DO UPDATE SET \
               count = integration_counts.count + excluded.count, timed = integration_counts.timed + excluded.timed, \
               millis = integration_counts.millis + excluded.millis, \
               minutes = integration_counts.minutes | excluded.minutes";
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "integration_counts", add)).await
}

/// Takes entries that were removed out of the counts again, so that what is counted can be listed. `gone` are rows of
/// [`REMOVED`]. Counts of minutes are gone when entries are removed after their time, and are there when somebody wants
/// less to be kept.
pub async fn uncount(tx: &mut WriteTx, gone: &[QueryResult]) -> Result<()> {
    const COLUMNS: &[&str] =
        &["integration_id", "span", "starts_at", "action", "status", "error_class", "count", "timed", "millis"];
    // Whichever hub counted them: the sum over its shards is what is read.
    const TAKE: &str = "UPDATE integration_counts SET count = integration_counts.count - gone.count, \
                        timed = integration_counts.timed - gone.timed, \
                        millis = integration_counts.millis - gone.millis FROM gone \
                        WHERE integration_counts.integration_id = gone.integration_id \
                        AND integration_counts.span = gone.span AND integration_counts.starts_at = gone.starts_at \
                        AND integration_counts.action = gone.action AND integration_counts.status = gone.status \
                        AND integration_counts.error_class = gone.error_class \
                        AND integration_counts.shard = (SELECT MIN(one.shard) FROM integration_counts AS one \
                        WHERE one.integration_id = gone.integration_id AND one.span = gone.span \
                        AND one.starts_at = gone.starts_at AND one.action = gone.action AND one.status = gone.status \
                        AND one.error_class = gone.error_class) RETURNING integration_counts.shard";
    type Key = (Uuid, Span, i64, String, String, String);
    let mut counts: BTreeMap<Key, (i64, i64, i64)> = BTreeMap::new();
    for row in gone {
        let at: Instant = column(row, "created_at")?;
        let duration: Option<i32> = column(row, "duration")?;
        let kind: (String, String, String) =
            (column(row, "action")?, column(row, "status")?, column(row, "error_class")?);
        for span in SPANS {
            let (action, status, class) = kind.clone();
            let key = (column(row, "integration_id")?, *span, span.start(at), action, status, class);
            let sum = counts.entry(key).or_default();
            sum.0 += 1;
            sum.1 += i64::from(duration.is_some());
            sum.2 += i64::from(duration.unwrap_or(0));
        }
    }
    let mut rows = Rows::new(COLUMNS, counts.len());
    for ((integration_id, span, starts_at, action, status, class), (count, timed, millis)) in counts {
        rows.uuid(integration_id).text(span.as_str()).bigint(starts_at).text(action).text(status).text(class);
        rows.bigint(count).bigint(timed).bigint(millis);
    }
    let dialect = tx.dialect();
    asked(rows.query(tx.connection(), dialect, "gone", TAKE)).await.map(drop)
}

/// What [`uncount`] wants to know of entries that are removed.
pub const REMOVED: &str = "integration_id, action, status, \
                           COALESCE(counted_as, error_details->>'class', '') AS error_class, duration, created_at";

/// The bit of a minute within its hour.
fn minute_bit(at: Instant) -> i64 {
    1 << (at.timestamp().rem_euclid(3_600) / 60)
}

/// Entries the filter lets through, newest first, after so many of them: their ids by an index, then the rows.
pub async fn page<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    integration_id: Uuid,
    filter: &LogFilter,
    (offset, size): (i64, u32),
) -> Result<Vec<LogEntry>> {
    let mut values = vec![integration_id.into()];
    let mut sql = "SELECT id FROM integration_logs WHERE integration_id = $1".to_owned();
    // Literals and not bound values: only so does a planner see that a partial index serves; and SQLite sees it only
    // when the index's own words are there.
    if let Some(action) = filter.action {
        sql += &format!(" AND action = '{}'", action.as_str());
        sql += if action == Action::Webhook { "" } else { " AND action <> 'webhook'" };
    }
    if let Some(status) = filter.status {
        sql += &format!(" AND status = '{}'", status.as_str());
        sql += if status == LogStatus::Success { "" } else { " AND status <> 'success'" };
    }
    for (at, comparison) in [(filter.dates.from, ">="), (filter.dates.to, "<")] {
        if let Some(at) = at {
            values.push(at.into());
            sql += &format!(" AND created_at {comparison} ${}", values.len());
        }
    }
    values.extend([i64::from(size).into(), offset.into()]);
    sql += &format!(" ORDER BY created_at DESC, id DESC LIMIT ${} OFFSET ${}", values.len() - 1, values.len());
    let found = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    let ids: Vec<Uuid> = found.iter().map(|row| column(row, "id")).collect::<Result<_>>()?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = asked(Entity::find().filter(Column::Id.is_in(ids.iter().copied())).all(connection)).await?;
    let mut entries = HashMap::with_capacity(rows.len());
    for row in rows {
        entries.insert(row.id, LogEntry::try_from(row)?);
    }
    // One that was removed in between is missing, and nothing else.
    Ok(ids.iter().filter_map(|id| entries.remove(id)).collect())
}

impl TryFrom<Model> for LogEntry {
    type Error = Error;

    fn try_from(row: Model) -> Result<LogEntry> {
        Ok(LogEntry {
            action: word("integration_logs.action", &row.action, Action::parse)?,
            status: word("integration_logs.status", &row.status, LogStatus::parse)?,
            id: row.id,
            integration_id: row.integration_id,
            message: row.message,
            request: row.request_data,
            response: row.response_data,
            error: row.error_details,
            duration: row.duration,
            ip: row.ip_address,
            user_agent: row.user_agent,
            user_id: row.user_id,
            at: row.created_at,
        })
    }
}
