//! What analytics reads beside the running counts: lists, and the little that is counted when it is asked for. Every
//! query walks an index and stops at a bound.

use std::collections::BTreeMap;

use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, Value,
};
use uuid::Uuid;

use super::dialect::Dialect;
use super::entity::usage_monthly;
use super::{Store, asked, fault, webhook};
use crate::model::analytics::{EventFilter, EventRecord, Sizes, TypedCounts, UsageSum, WebhookRecord};
use crate::model::event::{EventKind, EventStatus};
use crate::model::page::Page;
use crate::model::tally::Sum;
use crate::model::{Instant, Result};

/// Rows of one user that are counted, newest first.
const COUNTED: i64 = 10_000;
/// Rows of monthly sums of one user that are read, newest month first.
const SUMS_READ: u64 = 5_000;

pub(super) const EVENT: &str = "id, event_type, status, user_id, payload, response, retry_count, max_retries, error_message, \
                     created_at, processed_at, updated_at";

/// A page of events, newest first, with one more than asked for when there are more.
pub async fn events<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    filter: &EventFilter,
    page: &Page,
) -> Result<Vec<EventRecord>> {
    let mut values: Vec<Value> = vec![(i64::from(page.size) + 1).into()];
    let mut filters = Vec::new();
    // Words of our own, and not bound values: only so does a planner see which partial index holds all it needs.
    if let Some(kind) = filter.kind {
        filters.push(format!("event_type = '{}'", kind.as_str()));
        if kind != EventKind::UsageSync {
            filters.push("event_type <> 'usage_sync'".to_owned());
        }
    }
    if let Some(status) = filter.status {
        filters.push(format!("status = '{}'", status.as_str()));
        if status != EventStatus::Completed {
            filters.push("status <> 'completed'".to_owned());
        }
    }
    if let Some(user_id) = filter.user_id {
        values.push(user_id.into());
        filters.push(format!("user_id = ${}", values.len()));
        if filter.status.is_none_or(|status| status == EventStatus::Completed) {
            filters.push("event_type <> 'usage_sync'".to_owned());
        }
    }
    if let Some(after) = &page.after {
        values.push(after.id.into());
        filters.push(format!("id < ${}", values.len()));
    }
    let filters = if filters.is_empty() { "1 = 1".to_owned() } else { filters.join(" AND ") };
    let sql = format!("SELECT {EVENT} FROM sync_events WHERE {filters} ORDER BY id DESC LIMIT $1");
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    rows.iter().map(|row| read_event(row).map_err(fault)).collect()
}

/// Events that changed at `since` or later: the newest of them, no more than `most`, oldest first.
pub async fn changed_events<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    since: Instant,
    most: u64,
) -> Result<Vec<EventRecord>> {
    let sql =
        format!("SELECT {EVENT} FROM sync_events WHERE updated_at >= $1 ORDER BY updated_at DESC, id DESC LIMIT $2");
    let query = dialect.statement(sql, [since.into(), (most as i64).into()]);
    let rows = asked(connection.query_all_raw(query)).await?;
    rows.iter().rev().map(|row| read_event(row).map_err(fault)).collect()
}

/// A user's events that are not about usage, by type and status.
pub async fn count_events<C: ConnectionTrait>(connection: &C, dialect: Dialect, user_id: Uuid) -> Result<TypedCounts> {
    let newest = "SELECT event_type, status FROM sync_events WHERE user_id = $1 AND event_type <> 'usage_sync' \
                  ORDER BY id DESC LIMIT $2";
    counts(connection, dialect, newest, user_id).await
}

/// Webhooks about a user, by type and status.
pub async fn count_webhooks<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    user_id: Uuid,
) -> Result<TypedCounts> {
    counts(connection, dialect, &webhook::of_user("id, event_type, status"), user_id).await
}

async fn counts<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    newest: &str,
    user_id: Uuid,
) -> Result<TypedCounts> {
    let sql =
        format!("SELECT event_type || '.' || status AS label, COUNT(*) AS count FROM ({newest}) AS newest GROUP BY 1");
    let rows = asked(connection.query_all_raw(dialect.statement(sql, [user_id.into(), COUNTED.into()]))).await?;
    let sum = |row: &QueryResult| -> Result<Sum, DbErr> {
        Ok(Sum { label: row.try_get("", "label")?, starts_at: 0, count: row.try_get("", "count")?, amount: 0 })
    };
    let sums = rows.iter().map(|row| sum(row).map_err(fault)).collect::<Result<Vec<Sum>>>()?;
    Ok(TypedCounts::of(&sums))
}

/// The newest webhooks about a user, newest first.
pub async fn recent_webhooks<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    user_id: Uuid,
    most: u64,
) -> Result<Vec<WebhookRecord>> {
    let query = dialect.statement(
        webhook::of_user("id, source, event_type, status, error_message, created_at, processed_at"),
        [user_id.into(), (most as i64).into()],
    );
    let read = |row: &QueryResult| -> Result<WebhookRecord, DbErr> {
        Ok(WebhookRecord {
            id: row.try_get("", "id")?,
            source: row.try_get("", "source")?,
            event_type: row.try_get("", "event_type")?,
            status: row.try_get("", "status")?,
            error_message: row.try_get("", "error_message")?,
            created_at: row.try_get("", "created_at")?,
            processed_at: row.try_get("", "processed_at")?,
        })
    };
    asked(connection.query_all_raw(query)).await?.iter().map(|row| read(row).map_err(fault)).collect()
}

/// A user's usage by month, and by usage type.
pub async fn usage_of<C: ConnectionTrait>(
    connection: &C,
    user_id: Uuid,
    months: usize,
) -> Result<(BTreeMap<String, UsageSum>, BTreeMap<String, UsageSum>)> {
    use usage_monthly::Column;
    let query = usage_monthly::Entity::find()
        .filter(Column::UserId.eq(user_id))
        .filter(Column::Batches.gt(0))
        .order_by_desc(Column::MonthYear)
        .limit(SUMS_READ);
    let (mut by_month, mut by_type) = (BTreeMap::<String, UsageSum>::new(), BTreeMap::<String, UsageSum>::new());
    for row in asked(query.all(connection)).await? {
        if by_month.len() == months && !by_month.contains_key(&row.month_year) {
            break;
        }
        by_month.entry(row.month_year).or_default().add(row.batches, row.amount);
        by_type.entry(row.usage_type).or_default().add(row.batches, row.amount);
    }
    Ok((by_month, by_type))
}

/// Bytes the database takes. The queue's share is told where the database keeps books on its tables.
pub async fn sizes(store: &Store) -> Result<Sizes> {
    let query = store.dialect().statement(store.dialect().sizes(), []);
    let Some(row) = asked(store.read().query_one_raw(query)).await? else { return Ok(Sizes::default()) };
    let read = || -> Result<Sizes, DbErr> {
        Ok(Sizes { database: row.try_get("", "database")?, queue: row.try_get("", "queue")? })
    };
    read().map_err(fault)
}

pub(super) fn read_event(row: &QueryResult) -> Result<EventRecord, DbErr> {
    Ok(EventRecord {
        id: row.try_get("", "id")?,
        kind: row.try_get("", "event_type")?,
        status: row.try_get("", "status")?,
        user_id: row.try_get("", "user_id")?,
        payload: row.try_get("", "payload")?,
        response: row.try_get("", "response")?,
        retry_count: row.try_get("", "retry_count")?,
        max_retries: row.try_get("", "max_retries")?,
        error_message: row.try_get("", "error_message")?,
        created_at: row.try_get("", "created_at")?,
        processed_at: row.try_get("", "processed_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}
