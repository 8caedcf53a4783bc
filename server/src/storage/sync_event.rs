//! The record of what has to reach the other side.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, Value,
};
use uuid::Uuid;

use super::analytics::{EVENT, read_event};
use super::dialect::Dialect;
use super::entity::sync_event::{Column, Entity};
use super::rows::Rows;
use super::{WriteTx, asked, service};
use crate::model::analytics::{EventRecord, RetryFilter};
use crate::model::event::{Event, EventStatus, NewEvent};
pub use crate::model::job::Fate;
use crate::model::tally::Metric;
use crate::model::{Error, Instant, Result};

/// Recording what happened, in the transaction of the write that causes it: there is no other way to, so a write and its
/// event commit together or not at all.
pub trait Emit {
    /// Records it; answers with the event's id.
    fn emit(&mut self, event: NewEvent) -> Uuid;

    /// Records it under an id that something else in this transaction has too.
    fn emit_as(&mut self, id: Uuid, event: NewEvent);
}

type Emitted = Vec<(Uuid, NewEvent)>;

impl Emit for WriteTx {
    fn emit(&mut self, event: NewEvent) -> Uuid {
        let id = Uuid::now_v7();
        self.emit_as(id, event);
        id
    }

    fn emit_as(&mut self, id: Uuid, event: NewEvent) {
        self.extra::<Emitted>().push((id, event));
        self.changed();
    }
}

/// What the hub's jobs stand and fall with: events.
pub(super) struct Companion;

impl service::Companion for Companion {
    fn write<'a>(&'a self, tx: &'a mut WriteTx) -> BoxFuture<'a, Result<(), DbErr>> {
        Box::pin(async move {
            let emitted = tx.take_extra::<Emitted>();
            insert(tx, emitted).await
        })
    }

    fn settle<'a>(&'a self, tx: &'a mut WriteTx, fates: &'a [Fate], now: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(settle(tx, fates, now))
    }

    fn reopen<'a>(&'a self, tx: &'a mut WriteTx, ids: &'a [Uuid], now: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(reopen(tx, ids, now))
    }
}

/// Adds events; only the store's commit comes here, so an event never stands without its write.
async fn insert(tx: &mut WriteTx, events: Vec<(Uuid, NewEvent)>) -> Result<(), DbErr> {
    const COLUMNS: &[&str] = &[
        "id",
        "event_type",
        "user_id",
        "status",
        "payload",
        "max_retries",
        "processed_at",
        "created_at",
        "updated_at",
    ];
    let name = |(_, event): &(Uuid, NewEvent)| ((event.kind, event.status), event.at);
    tx.tally_each(Metric::Events, events.iter().map(name), |(kind, status)| kind.label(*status));
    let mut rows = Rows::new(COLUMNS, events.len());
    let max_retries = tx.max_retries();
    for (id, event) in events {
        let processed_at = (event.status != EventStatus::Pending).then_some(event.at);
        rows.uuid(id).text(event.kind.as_str()).uuid(event.user_id).text(event.status.as_str());
        rows.json(Some(event.payload)).int(max_retries).time(processed_at).time(event.at).time(event.at);
    }
    let dialect = tx.dialect();
    rows.insert(tx.connection(), dialect, "sync_events", "").await
}

/// What is counted of an event that moved.
const MOVED: &str = "sync_events.event_type, sync_events.status, sync_events.created_at";

/// Moves pending events on, as a set; those that are not pending stay as they are.
pub async fn settle(tx: &mut WriteTx, fates: &[Fate], now: Instant) -> Result<()> {
    const COLUMNS: &[&str] =
        &["id", "status", "retry_count", "response", "error_message", "processed_at", "updated_at"];
    if fates.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, fates.len());
    for fate in fates {
        let processed_at = (fate.status != EventStatus::Pending).then_some(now);
        rows.uuid(fate.id).text(fate.status.as_str()).int(fate.retries).json(fate.response.clone());
        rows.text_or_null(fate.error.clone()).time(processed_at).time(now);
    }
    let dialect = tx.dialect();
    let changes = "status = fate.status, retry_count = fate.retry_count, \
                   response = COALESCE(fate.response, sync_events.response), \
                   error_message = COALESCE(fate.error_message, sync_events.error_message), \
                   processed_at = fate.processed_at, updated_at = fate.updated_at";
    let update = dialect.update_each("sync_events", changes, "fate", ("status", EventStatus::Pending.as_str()));
    let update = format!("{update} RETURNING {MOVED}");
    let moved = asked(rows.query(tx.connection(), dialect, "fate", &update)).await?;
    count_moves(tx, &moved, EventStatus::Pending)
}

/// Makes failed events pending again, with all their tries.
pub async fn reopen(tx: &mut WriteTx, ids: &[Uuid], now: Instant) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(&["id", "updated_at"], ids.len());
    for id in ids {
        rows.uuid(*id).time(now);
    }
    let dialect = tx.dialect();
    let changes = "status = 'pending', retry_count = 0, processed_at = NULL, updated_at = again.updated_at";
    let update = dialect.update_each("sync_events", changes, "again", ("status", EventStatus::Failed.as_str()));
    let update = format!("{update} RETURNING {MOVED}");
    let moved = asked(rows.query(tx.connection(), dialect, "again", &update)).await?;
    count_moves(tx, &moved, EventStatus::Failed)
}

/// Counts events that left a status for the one they have now.
fn count_moves(tx: &mut WriteTx, moved: &[QueryResult], from: EventStatus) -> Result<()> {
    if !moved.is_empty() {
        tx.changed();
    }
    for row in moved {
        let read = || -> Result<(String, String, DateTime<Utc>), DbErr> {
            Ok((row.try_get("", "event_type")?, row.try_get("", "status")?, row.try_get("", "created_at")?))
        };
        let (kind, status, created_at) = read().map_err(super::fault)?;
        if status != from.as_str() {
            tx.tally(Metric::Events, &format!("{kind}.{}", from.as_str()), created_at, -1, 0);
            tx.tally(Metric::Events, &format!("{kind}.{status}"), created_at, 1, 0);
        }
    }
    Ok(())
}

/// What came by webhook is not to be told to CreatorUp: its own job settles it.
const IS_OURS: &str = "NOT EXISTS (SELECT 1 FROM webhook_logs WHERE webhook_logs.id = sync_events.id)";

/// The pending events of a user that a push of the user settles, oldest first.
pub async fn pending<C: ConnectionTrait>(connection: &C, user_id: Uuid, most: u64) -> Result<Vec<Uuid>> {
    // A literal and not a bound value: only so does a planner see that the partial index holds all it needs.
    let query = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::UserId.eq(user_id))
        .filter(Expr::cust("event_type <> 'usage_sync'"))
        .filter(Column::Status.eq(EventStatus::Pending.as_str()))
        .filter(Expr::cust(IS_OURS))
        .order_by_asc(Column::Id)
        .limit(most);
    asked(query.into_tuple().all(connection)).await
}

/// The newest event of each user that a push of the user would settle, or has failed to.
pub async fn unsettled(tx: &WriteTx, users: &[Uuid]) -> Result<HashMap<Uuid, (Uuid, EventStatus)>> {
    let mut asked_for = Rows::new(&["user_id"], users.len());
    for id in users {
        asked_for.uuid(*id);
    }
    let query = format!(
        "SELECT user_id, id, status FROM (SELECT sync_events.user_id, sync_events.id, sync_events.status, \
                 ROW_NUMBER() OVER (PARTITION BY sync_events.user_id ORDER BY sync_events.id DESC) AS place \
                 FROM asked_for JOIN sync_events ON sync_events.user_id = asked_for.user_id \
                 WHERE sync_events.event_type <> 'usage_sync' AND sync_events.status <> 'completed' AND {IS_OURS}) \
         AS unsettled WHERE place = 1"
    );
    let rows = asked(asked_for.query(tx.reader(), tx.dialect(), "asked_for", &query)).await?;
    let read = |row: &QueryResult| -> Result<(Uuid, Uuid, String), DbErr> {
        Ok((row.try_get("", "user_id")?, row.try_get("", "id")?, row.try_get("", "status")?))
    };
    rows.iter()
        .map(|row| {
            let (user_id, id, status) = read(row).map_err(super::fault)?;
            let status = EventStatus::parse(&status).ok_or_else(|| Error::internal("an unknown event status"))?;
            Ok((user_id, (id, status)))
        })
        .collect()
}

/// Where an event stands.
pub async fn status<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<EventStatus>> {
    let row = asked(Entity::find_by_id(id).one(connection)).await?;
    Ok(row.and_then(|row| EventStatus::parse(&row.status)))
}

/// The newest events of a user that are not about usage, newest first.
pub async fn recent<C: ConnectionTrait>(connection: &C, user_id: Uuid, most: u64) -> Result<Vec<Event>> {
    let query = Entity::find()
        .filter(Column::UserId.eq(user_id))
        .filter(Expr::cust("event_type <> 'usage_sync'"))
        .order_by_desc(Column::Id)
        .limit(most);
    Ok(asked(query.all(connection)).await?.into_iter().map(Event::from).collect())
}

/// Failed events, oldest first, after one.
pub async fn failed<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    filter: &RetryFilter,
    after: Option<Uuid>,
    most: u64,
) -> Result<Vec<EventRecord>> {
    read_failed(connection, dialect, filter, after, most, "").await
}

/// Failed events, oldest first, after one, which nobody else tries again until the transaction ends.
pub async fn hold_failed(
    tx: &mut WriteTx,
    filter: &RetryFilter,
    after: Option<Uuid>,
    most: u64,
) -> Result<Vec<EventRecord>> {
    let dialect = tx.dialect();
    read_failed(tx.connection(), dialect, filter, after, most, dialect.skip_locked()).await
}

async fn read_failed<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    filter: &RetryFilter,
    after: Option<Uuid>,
    most: u64,
    hold: &str,
) -> Result<Vec<EventRecord>> {
    let mut filters = vec!["status = 'failed'".to_owned()];
    let mut values: Vec<Value> = vec![(most as i64).into()];
    for (test, value) in [
        ("event_type =", filter.kind.map(|kind| Value::from(kind.as_str()))),
        ("user_id =", filter.user_id.map(Value::from)),
        ("id >", after.map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            filters.push(format!("{test} ${}", values.len()));
        }
    }
    let sql = format!("SELECT {EVENT} FROM sync_events WHERE {} ORDER BY id LIMIT $1 {hold}", filters.join(" AND "));
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    rows.iter().map(|row| read_event(row).map_err(super::fault)).collect()
}
