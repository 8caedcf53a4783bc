//! Events on their way to webhooks. Each transition is a set in a caller's transaction.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QueryResult, QuerySelect, Value};
use uuid::Uuid;

use super::dialect::Dialect;
use super::entity::webhook_delivery::{Column, Entity, Model};
use super::hook::column;
use super::row::word;
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::hook::{Backlog, DeliveryFilter, DeliveryStatus, HookDelivery, HookTry, Replay};
use crate::model::integration::LogStatus;
use crate::model::page::Page;
use crate::model::{Instant, Json, Result};

/// Which deliveries of a webhook go first: lower does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody waits for it in front of a screen.
    Test = -1,
    /// What happens.
    New = 0,
    /// What was missed.
    Replay = 1,
}

/// As far as what waits is counted.
const COUNTED: u64 = 1_000;
/// Deliveries looked through for one page of a list.
const WALKED: u64 = 10_000;
/// Tries shown of one delivery.
const MOST_TRIES: u64 = 100;

/// A delivery to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewDelivery {
    /// UUID, version 7.
    pub id: Uuid,
    /// Whom it goes to.
    pub webhook_id: Uuid,
    /// Of whose events it is one.
    pub integration_id: Uuid,
    /// The event.
    pub event: String,
    /// The body, byte for byte.
    pub payload: String,
    /// `Pending` or `Held`.
    pub status: DeliveryStatus,
    /// Whether the event was made up.
    pub is_test: bool,
    /// When the event happened.
    pub created_at: Instant,
    /// When it is tried first; nothing when it is held.
    pub due_at: Instant,
}

/// Adds deliveries.
pub async fn insert(tx: &mut WriteTx, deliveries: &[NewDelivery]) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "webhook_id",
        "integration_id",
        "event",
        "payload",
        "status",
        "priority",
        "next_attempt_at",
        "is_test",
        "created_at",
    ];
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, deliveries.len());
    for one in deliveries {
        let priority = if one.is_test { Priority::Test } else { Priority::New };
        let due_at = (one.status == DeliveryStatus::Pending).then_some(one.due_at);
        rows.uuid(one.id).uuid(one.webhook_id).uuid(one.integration_id).text(&one.event).text(&one.payload);
        rows.text(one.status.as_str()).int(priority as i32).time(due_at).bool(one.is_test).time(one.created_at);
    }
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "webhook_deliveries", "")).await
}

/// A delivery that is to be tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The delivery.
    pub id: Uuid,
    /// The event.
    pub event: String,
    /// The body, byte for byte.
    pub payload: String,
    /// Which go first.
    pub priority: i32,
    /// Tries so far: the fence, because each try raises it.
    pub attempts: i32,
    /// Tries that were over when it was last sent anew.
    pub attempts_before: i32,
    /// Whether the event was made up.
    pub is_test: bool,
}

/// The first deliveries of a webhook whose time has come; of no priority after `last`.
pub async fn due<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    webhook_id: Uuid,
    now: Instant,
    last: Priority,
    most: usize,
) -> Result<Vec<Due>> {
    let mut due = Vec::new();
    for priority in [Priority::Test, Priority::New, Priority::Replay] {
        if priority > last || due.len() >= most {
            break;
        }
        let find = dialect.statement(
            "SELECT id, event, payload, priority, attempts, attempts_before, is_test FROM webhook_deliveries \
             WHERE status = 'pending' AND webhook_id = $1 AND priority = $2 AND next_attempt_at <= $3 \
             ORDER BY next_attempt_at, id LIMIT $4",
            [webhook_id.into(), (priority as i32).into(), now.into(), ((most - due.len()) as i64).into()],
        );
        for row in &asked(connection.query_all_raw(find)).await? {
            due.push(Due {
                id: column(row, "id")?,
                event: column(row, "event")?,
                payload: column(row, "payload")?,
                priority: column(row, "priority")?,
                attempts: column(row, "attempts")?,
                attempts_before: column(row, "attempts_before")?,
                is_test: column(row, "is_test")?,
            });
        }
    }
    Ok(due)
}

/// When the first delivery of a webhook is due; of no priority after `last`.
pub async fn next_due<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    webhook_id: Uuid,
    last: Priority,
) -> Result<Option<Instant>> {
    let mut first = None;
    for priority in [Priority::Test, Priority::New, Priority::Replay].into_iter().filter(|one| *one <= last) {
        let find = dialect.statement(
            "SELECT next_attempt_at FROM webhook_deliveries WHERE status = 'pending' AND webhook_id = $1 \
             AND priority = $2 ORDER BY next_attempt_at, id LIMIT 1",
            [webhook_id.into(), (priority as i32).into()],
        );
        let row = asked(connection.query_one_raw(find)).await?;
        let at: Option<Instant> = row.map_or(Ok(None), |row| column(&row, "next_attempt_at"))?;
        first = first.into_iter().chain(at).min();
    }
    Ok(first)
}

/// How a try of a delivery ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// The delivery.
    pub id: Uuid,
    /// The tries before this one.
    pub attempts: i32,
    /// Where it stands now: not `Held`.
    pub status: DeliveryStatus,
    /// When it is tried again, if it is.
    pub next_attempt_at: Option<Instant>,
    /// The receiver's HTTP status.
    pub response_status: Option<i32>,
    /// Why it failed.
    pub error_class: Option<&'static str>,
    /// When it ended.
    pub at: Instant,
}

/// Notes how tries ended, as a set; answers with the deliveries of those that are believed: one is not when its delivery
/// is gone, or was tried since.
pub async fn settle(tx: &mut WriteTx, tries: &[&Tried]) -> Result<HashSet<Uuid>> {
    const COLUMNS: &[&str] =
        &["id", "tried", "status", "next_attempt_at", "response_status", "error_class", "finished_at"];
    let mut rows = Rows::new(COLUMNS, tries.len());
    for one in tries {
        let finished_at = (one.status != DeliveryStatus::Pending).then_some(one.at);
        rows.uuid(one.id).int(one.attempts).text(one.status.as_str()).time(one.next_attempt_at);
        rows.int_or_null(one.response_status).text_or_null(one.error_class.map(str::to_owned)).time(finished_at);
    }
    let dialect = tx.dialect();
    let changes = "status = done.status, attempts = done.tried + 1, next_attempt_at = done.next_attempt_at, \
                   response_status = done.response_status, error_class = done.error_class, \
                   finished_at = done.finished_at";
    let update = dialect.update_each("webhook_deliveries", changes, "done", ("status", "pending"));
    let update = format!("{update} AND webhook_deliveries.attempts = done.tried RETURNING webhook_deliveries.id");
    let believed = asked(rows.query(tx.connection(), dialect, "done", &update)).await?;
    believed.iter().map(|row| column(row, "id")).collect()
}

/// Holds what waits for a webhook that is disabled, so many at most; says how many. What was made up goes out all the
/// same.
pub async fn hold(tx: &mut WriteTx, webhook_id: Uuid, most: u64) -> Result<u64> {
    let hold = tx.dialect().statement(
        "UPDATE webhook_deliveries SET status = 'held', next_attempt_at = NULL WHERE id IN (SELECT id \
         FROM webhook_deliveries WHERE status = 'pending' AND webhook_id = $1 AND priority >= 0 \
         ORDER BY priority, next_attempt_at, id LIMIT $2) AND status = 'pending'",
        [webhook_id.into(), (most as i64).into()],
    );
    Ok(asked(tx.connection().execute_raw(hold)).await?.rows_affected())
}

/// Removes deliveries of a webhook, so many at most; says how many.
pub async fn remove(tx: &mut WriteTx, webhook_id: Uuid, most: u64) -> Result<u64> {
    let remove = tx.dialect().statement(
        "DELETE FROM webhook_deliveries WHERE id IN (SELECT id FROM webhook_deliveries WHERE webhook_id = $1 \
         ORDER BY id LIMIT $2)",
        [webhook_id.into(), (most as i64).into()],
    );
    Ok(asked(tx.connection().execute_raw(remove)).await?.rows_affected())
}

/// Sends one again that is not on its way; says whether there was such a one.
pub async fn resend(tx: &mut WriteTx, id: Uuid, now: Instant) -> Result<bool> {
    let resend = tx.dialect().statement(
        "UPDATE webhook_deliveries SET status = 'pending', priority = CASE WHEN is_test THEN -1 ELSE 1 END, \
         attempts_before = attempts, next_attempt_at = $2, finished_at = NULL WHERE id = $1 AND status <> 'pending'",
        [id.into(), now.into()],
    );
    Ok(asked(tx.connection().execute_raw(resend)).await?.rows_affected() > 0)
}

/// What a webhook missed, oldest first: so many at most as are asked for, and one more when there are more. Found where
/// it holds up nobody who writes, however much it has to pass by.
pub async fn missed<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    webhook_id: Uuid,
    replay: &Replay,
) -> Result<Vec<Uuid>> {
    let mut values: Vec<Value> = vec![webhook_id.into()];
    // The list of words as the index has it: only so is it seen to serve.
    let mut wanted = "status IN ('held', 'failed') AND webhook_id = $1 AND NOT is_test".to_owned();
    if let Some(status) = replay.status {
        wanted += &format!(" AND status = '{}'", status.as_str());
    }
    let bounds = [
        (replay.event.clone().map(Value::from), "event ="),
        (replay.since.map(Value::from), "created_at >="),
        (replay.until.map(Value::from), "created_at <"),
    ];
    for (value, is) in bounds {
        if let Some(value) = value {
            values.push(value);
            wanted += &format!(" AND {is} ${}", values.len());
        }
    }
    values.push((replay.most as i64 + 1).into());
    let find = format!("SELECT id FROM webhook_deliveries WHERE {wanted} ORDER BY id LIMIT ${}", values.len());
    let rows = asked(connection.query_all_raw(dialect.statement(find, values))).await?;
    rows.iter().map(|row| column(row, "id")).collect()
}

/// Sends those again that a webhook missed and still misses; says how many.
pub async fn replay(tx: &mut WriteTx, ids: &[Uuid], now: Instant) -> Result<u64> {
    if ids.is_empty() {
        return Ok(0);
    }
    let mut rows = Rows::new(&["id", "replayed_at"], ids.len());
    for id in ids {
        rows.uuid(*id).time(now);
    }
    let dialect = tx.dialect();
    let changes = "status = 'pending', priority = 1, attempts_before = attempts, finished_at = NULL, \
                   next_attempt_at = missed.replayed_at";
    let mut replayed = 0;
    for status in [DeliveryStatus::Held, DeliveryStatus::Failed] {
        let update = dialect.update_each("webhook_deliveries", changes, "missed", ("status", status.as_str()));
        let update = format!("{update} RETURNING webhook_deliveries.id");
        replayed += asked(rows.clone().query(tx.connection(), dialect, "missed", &update)).await?.len() as u64;
    }
    Ok(replayed)
}

/// How many deliveries of a webhook wait, as far as they are counted.
pub async fn backlog<C: ConnectionTrait>(connection: &C, dialect: Dialect, webhook_id: Uuid) -> Result<Backlog> {
    let count = |status: &str| {
        format!(
            "(SELECT COUNT(*) FROM (SELECT id FROM webhook_deliveries WHERE status = '{status}' AND webhook_id = $1 \
             LIMIT {COUNTED}) AS {status}_ones) AS {status}"
        )
    };
    let count = dialect.statement(format!("SELECT {}, {}", count("pending"), count("held")), [webhook_id.into()]);
    let Some(row) = asked(connection.query_one_raw(count)).await? else { return Ok(Backlog::default()) };
    Ok(Backlog { pending: column(&row, "pending")?, held: column(&row, "held")? })
}

/// Which of these webhooks have a newest delivery that is on its way.
pub async fn pending_of<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    webhook_ids: &[Uuid],
) -> Result<HashSet<Uuid>> {
    const FIND: &str = "SELECT id, (SELECT status FROM webhook_deliveries AS deliveries \
                        WHERE deliveries.webhook_id = shown.id AND NOT deliveries.is_test \
                        ORDER BY deliveries.id DESC LIMIT 1) AS status FROM shown";
    let mut shown = Rows::new(&["id"], webhook_ids.len());
    for id in webhook_ids {
        shown.uuid(*id);
    }
    let rows = asked(shown.query(connection, dialect, "shown", FIND)).await?;
    let statuses = rows.iter().map(|row| Ok((column(row, "id")?, column(row, "status")?)));
    let statuses = statuses.collect::<Result<HashMap<Uuid, Option<String>>>>()?;
    let is_pending = |status: &Option<String>| status.as_deref() == Some(DeliveryStatus::Pending.as_str());
    Ok(statuses.into_iter().filter(|(_, status)| is_pending(status)).map(|(id, _)| id).collect())
}

/// A delivery.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<HookDelivery>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(read).transpose()
}

/// A page of a webhook's deliveries, newest first, with one more than asked for when there are more; and how far they
/// were looked through, where that is not to their end.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    webhook_id: Uuid,
    filter: &DeliveryFilter,
    page: &Page,
) -> Result<(Vec<HookDelivery>, Option<Uuid>)> {
    let mut query = Entity::find().filter(Column::WebhookId.eq(webhook_id)).order_by_desc(Column::Id);
    if let Some(after) = &page.after {
        query = query.filter(Column::Id.lt(after.id));
    }
    // The words as the indexes have them: only so are they seen to serve.
    query = match filter.status {
        Some(DeliveryStatus::Held) => query.filter(Expr::cust("status = 'held'")),
        Some(DeliveryStatus::Failed) => query.filter(Expr::cust("status IN ('held', 'failed')")),
        _ => query,
    };
    // What an index does not part from the rest is looked for among so many at most.
    let is_walk = filter.event.is_some() || !matches!(filter.status, None | Some(DeliveryStatus::Held));
    let last = query.clone().select_only().column(Column::Id).offset(WALKED - 1).limit(1).into_tuple::<Uuid>();
    let reached = if is_walk { asked(last.one(connection)).await? } else { None };
    if let Some(reached) = reached {
        query = query.filter(Column::Id.gte(reached));
    }
    if let Some(status) = filter.status {
        query = query.filter(Expr::cust(format!("status = '{}'", status.as_str())));
    }
    if let Some(event) = &filter.event {
        query = query.filter(Column::Event.eq(event));
    }
    let rows = asked(query.limit(u64::from(page.size) + 1).all(connection)).await?;
    Ok((rows.into_iter().map(read).collect::<Result<_>>()?, reached))
}

/// The tries of a delivery, oldest first.
pub async fn tries<C: ConnectionTrait>(connection: &C, dialect: Dialect, id: Uuid) -> Result<Vec<HookTry>> {
    let find = dialect.statement(
        "SELECT id, status, message, request_data, response_data, duration, created_at FROM integration_logs \
         WHERE delivery_id = $1 AND delivery_id IS NOT NULL ORDER BY id LIMIT $2",
        [id.into(), (MOST_TRIES as i64).into()],
    );
    let read = |row: &QueryResult| {
        let status: String = column(row, "status")?;
        Ok(HookTry {
            id: column(row, "id")?,
            status: word("integration_logs.status", &status, LogStatus::parse)?,
            message: column(row, "message")?,
            request: column::<Option<Json>>(row, "request_data")?.unwrap_or_default(),
            response: column::<Option<Json>>(row, "response_data")?.unwrap_or_default(),
            duration: column::<Option<i32>>(row, "duration")?.unwrap_or_default(),
            at: column(row, "created_at")?,
        })
    };
    asked(connection.query_all_raw(find)).await?.iter().map(read).collect()
}

fn read(row: Model) -> Result<HookDelivery> {
    Ok(HookDelivery {
        id: row.id,
        webhook_id: row.webhook_id,
        event: row.event,
        payload: row.payload,
        status: word("webhook_deliveries.status", &row.status, DeliveryStatus::parse)?,
        attempts: row.attempts,
        next_attempt_at: row.next_attempt_at,
        response_status: row.response_status,
        error_class: row.error_class,
        is_test: row.is_test,
        created_at: row.created_at,
        finished_at: row.finished_at,
    })
}
