//! Webhooks the hub sends.

use std::collections::BTreeSet;

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QueryResult, QuerySelect,
};
use serde_json::json;
use uuid::Uuid;

use super::dialect::Dialect;
use super::entity::integration_webhook::{ActiveModel, Column, Entity, Model};
use super::row::word;
use super::rows::Rows;
use super::{WriteTx, asked, fault};
use crate::model::hook::breaker::Breaker;
use crate::model::hook::{Hook, MOST_HOOKS};
use crate::model::integration::LogStatus;
use crate::model::{Error, Instant, Json, Result};

/// What the secret of a webhook is sealed for.
pub const SECRET: &str = "webhook secret";
/// What the secret before it is sealed for.
pub const PREVIOUS_SECRET: &str = "previous webhook secret";

/// The secrets of a webhook, sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecrets {
    /// The one that signs.
    pub current: String,
    /// The one that signs too until its time is over.
    pub previous: Option<String>,
}

/// An integration's webhooks, newest first.
pub async fn list<C: ConnectionTrait>(connection: &C, integration_id: Uuid) -> Result<Vec<Hook>> {
    let of_it = Entity::find().filter(Column::IntegrationId.eq(integration_id));
    let rows = asked(of_it.order_by_desc(Column::Id).limit(MOST_HOOKS).all(connection)).await?;
    rows.into_iter().map(|row| read(row).map(|(hook, _)| hook)).collect()
}

/// How many webhooks an integration has.
pub async fn count<C: ConnectionTrait>(connection: &C, integration_id: Uuid) -> Result<u64> {
    asked(Entity::find().filter(Column::IntegrationId.eq(integration_id)).count(connection)).await
}

/// Holds an integration until the transaction ends, where others could change it or its webhooks meanwhile; says whether
/// there is one.
pub async fn hold_integration(tx: &mut WriteTx, integration_id: Uuid) -> Result<bool> {
    let dialect = tx.dialect();
    let hold = format!("SELECT id FROM partner_integrations WHERE id = $1 {}", dialect.hold_rows().unwrap_or_default());
    let hold = dialect.statement(hold, [integration_id.into()]);
    Ok(asked(tx.connection().query_one_raw(hold)).await?.is_some())
}

/// A webhook.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Hook>> {
    Ok(find_sealed(connection, id).await?.map(|(hook, _)| hook))
}

/// A webhook with its secrets.
pub async fn find_sealed<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<(Hook, SealedSecrets)>> {
    asked(Entity::find_by_id(id).one(connection)).await?.map(read).transpose()
}

/// Adds a webhook whose secret was sealed with that key.
pub async fn insert(tx: &mut WriteTx, hook: &Hook, sealed: &str, key_id: &str) -> Result<()> {
    let row = ActiveModel {
        id: Set(hook.id),
        integration_id: Set(hook.integration_id),
        webhook_secret: Set(sealed.to_owned()),
        secret_key_id: Set(key_id.to_owned()),
        secret_masked: Set(hook.secret_masked.clone()),
        created_by: Set(hook.created_by),
        created_at: Set(hook.created_at),
        ..changed(hook)
    };
    asked(Entity::insert(row).exec_without_returning(tx.connection())).await.map(drop)
}

/// Writes what can be changed about a webhook, how it stands included.
pub async fn update(tx: &mut WriteTx, hook: &Hook) -> Result<()> {
    let update = Entity::update_many().set(changed(hook)).filter(Column::Id.eq(hook.id));
    asked(update.exec(tx.connection())).await.map(drop)
}

fn changed(hook: &Hook) -> ActiveModel {
    ActiveModel {
        webhook_url: Set(hook.url.clone()),
        events: Set(json!(hook.events)),
        is_active: Set(hook.is_active),
        retry_attempts: Set(hook.retry_attempts),
        retry_delay: Set(hook.retry_delay),
        rate_limit: Set(hook.rate_limit),
        failure_count: Set(hook.failure_count),
        disabled_at: Set(hook.disabled_at),
        disabled_reason: Set(hook.disabled_reason.clone()),
        breaker_window_at: Set(hook.breaker.window_at),
        breaker_tried: Set(hook.breaker.tried),
        breaker_failed: Set(hook.breaker.failed),
        breaker_trips: Set(hook.breaker.trips),
        breaker_open_until: Set(hook.breaker.open_until),
        generation: Set(hook.generation),
        updated_at: Set(hook.updated_at),
        ..Default::default()
    }
}

/// A webhook's new secret, and what is left of the one before.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The new one, sealed.
    pub sealed: String,
    /// Id of the key it was sealed with.
    pub key_id: String,
    /// What of it may be shown.
    pub masked: String,
    /// The one before, sealed, and until when it signs too.
    pub previous: Option<(String, Instant)>,
}

/// Gives a webhook a new secret.
pub async fn rotate(tx: &mut WriteTx, id: Uuid, rotation: &Rotation, now: Instant) -> Result<()> {
    let row = ActiveModel {
        webhook_secret: Set(rotation.sealed.clone()),
        secret_key_id: Set(rotation.key_id.clone()),
        secret_masked: Set(rotation.masked.clone()),
        previous_secret: Set(rotation.previous.as_ref().map(|(sealed, _)| sealed.clone())),
        previous_secret_expires_at: Set(rotation.previous.as_ref().map(|(_, until)| *until)),
        updated_at: Set(now),
        ..Default::default()
    };
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Deletes a webhook, with what is left of its deliveries; says whether there was one.
pub async fn delete(tx: &mut WriteTx, id: Uuid) -> Result<bool> {
    Ok(asked(Entity::delete_by_id(id).exec(tx.connection())).await?.rows_affected > 0)
}

/// Who would be told of an event, as far as that decides whether they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The webhook.
    pub id: Uuid,
    /// Whose events it is told.
    pub integration_id: Uuid,
    /// Which of them.
    pub events: Vec<String>,
    /// Whether it is told anything.
    pub is_active: bool,
    /// Until when nothing is tried.
    pub open_until: Option<Instant>,
}

/// The webhooks of these integrations.
pub async fn listeners(tx: &WriteTx, integration_ids: &BTreeSet<Uuid>) -> Result<Vec<Listener>> {
    const FIND: &str = "SELECT webhooks.id, webhooks.integration_id, webhooks.events, webhooks.is_active, \
                        webhooks.breaker_open_until FROM told JOIN integration_webhooks AS webhooks \
                        ON webhooks.integration_id = told.integration_id ORDER BY webhooks.id";
    let mut told = Rows::new(&["integration_id"], integration_ids.len());
    for id in integration_ids {
        told.uuid(*id);
    }
    let rows = asked(told.query(tx.reader(), tx.dialect(), "told", FIND)).await?;
    rows.iter()
        .map(|row| {
            Ok(Listener {
                id: column(row, "id")?,
                integration_id: column(row, "integration_id")?,
                events: names(&column::<Json>(row, "events")?),
                is_active: column(row, "is_active")?,
                open_until: column(row, "breaker_open_until")?,
            })
        })
        .collect()
}

/// Webhooks for which something is due that may be tried, so many at most.
pub async fn overdue<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    now: Instant,
    most: u64,
) -> Result<Vec<Uuid>> {
    let due = |priority: i32| {
        format!(
            "EXISTS (SELECT 1 FROM webhook_deliveries AS due WHERE due.status = 'pending' \
             AND due.webhook_id = webhooks.id AND due.priority = {priority} AND due.next_attempt_at <= $1)"
        )
    };
    let find = format!(
        "SELECT webhooks.id FROM integration_webhooks AS webhooks \
         WHERE (webhooks.breaker_open_until IS NULL OR webhooks.breaker_open_until <= $1) AND ({} OR {} OR {}) \
         ORDER BY webhooks.id LIMIT $2",
        due(-1),
        due(0),
        due(1)
    );
    let find = dialect.statement(find, [now.into(), (most as i64).into()]);
    asked(connection.query_all_raw(find)).await?.iter().map(|row| column(row, "id")).collect()
}

/// What tries change about a webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The webhook.
    pub id: Uuid,
    /// Of whose events it is told.
    pub integration_id: Uuid,
    /// Whether it is told anything.
    pub is_active: bool,
    /// When a delivery was tried last.
    pub last_triggered_at: Option<Instant>,
    /// How that ended.
    pub last_status: Option<LogStatus>,
    /// Deliveries in a row that failed for good.
    pub failure_count: i32,
    /// When the hub disabled it, and why.
    pub disabled: Option<(Instant, String)>,
    /// Whether trying makes sense.
    pub breaker: Breaker,
    /// Which tries count: those that began in it.
    pub generation: i32,
}

/// How these webhooks stand, held until the transaction ends where another server could change them meanwhile.
pub async fn standings(tx: &mut WriteTx, ids: &BTreeSet<Uuid>) -> Result<Vec<Standing>> {
    let dialect = tx.dialect();
    let find = format!(
        "SELECT webhooks.id, webhooks.integration_id, webhooks.is_active, webhooks.last_triggered_at, \
         webhooks.last_status, webhooks.failure_count, webhooks.disabled_at, webhooks.disabled_reason, \
         webhooks.breaker_window_at, webhooks.breaker_tried, webhooks.breaker_failed, webhooks.breaker_trips, \
         webhooks.breaker_open_until, webhooks.generation FROM integration_webhooks AS webhooks \
         WHERE webhooks.id IN (SELECT id FROM tried) ORDER BY webhooks.id {}",
        dialect.hold_rows().unwrap_or_default()
    );
    let mut tried = Rows::new(&["id"], ids.len());
    for id in ids {
        tried.uuid(*id);
    }
    let rows = asked(tried.query(tx.connection(), dialect, "tried", &find)).await?;
    rows.iter()
        .map(|row| {
            let disabled_at: Option<Instant> = column(row, "disabled_at")?;
            let reason: Option<String> = column(row, "disabled_reason")?;
            let last_status: Option<String> = column(row, "last_status")?;
            Ok(Standing {
                id: column(row, "id")?,
                integration_id: column(row, "integration_id")?,
                is_active: column(row, "is_active")?,
                last_triggered_at: column(row, "last_triggered_at")?,
                last_status: status(last_status.as_deref())?,
                failure_count: column(row, "failure_count")?,
                disabled: disabled_at.map(|at| (at, reason.unwrap_or_default())),
                breaker: Breaker {
                    window_at: column(row, "breaker_window_at")?,
                    tried: column(row, "breaker_tried")?,
                    failed: column(row, "breaker_failed")?,
                    trips: column(row, "breaker_trips")?,
                    open_until: column(row, "breaker_open_until")?,
                },
                generation: column(row, "generation")?,
            })
        })
        .collect()
}

/// Writes how webhooks stand, as a set.
pub async fn save(tx: &mut WriteTx, standings: &[Standing]) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "is_active",
        "last_triggered_at",
        "last_status",
        "failure_count",
        "disabled_at",
        "disabled_reason",
        "window_at",
        "tried",
        "failed",
        "trips",
        "open_until",
    ];
    const SAVE: &str = "UPDATE integration_webhooks SET is_active = stood.is_active, \
                        last_triggered_at = stood.last_triggered_at, last_status = stood.last_status, \
                        failure_count = stood.failure_count, disabled_at = stood.disabled_at, \
                        disabled_reason = stood.disabled_reason, breaker_window_at = stood.window_at, \
                        breaker_tried = stood.tried, breaker_failed = stood.failed, breaker_trips = stood.trips, \
                        breaker_open_until = stood.open_until FROM stood WHERE integration_webhooks.id = stood.id \
                        RETURNING integration_webhooks.id";
    if standings.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, standings.len());
    for one in standings {
        let (disabled_at, reason) = one.disabled.clone().unzip();
        rows.uuid(one.id).bool(one.is_active).time(one.last_triggered_at);
        rows.text_or_null(one.last_status.map(|status| status.as_str().to_owned())).int(one.failure_count);
        rows.time(disabled_at).text_or_null(reason).time(one.breaker.window_at).int(one.breaker.tried);
        rows.int(one.breaker.failed).int(one.breaker.trips).time(one.breaker.open_until);
    }
    let dialect = tx.dialect();
    asked(rows.query(tx.connection(), dialect, "stood", SAVE)).await.map(drop)
}

fn read(row: Model) -> Result<(Hook, SealedSecrets)> {
    let sealed = SealedSecrets { current: row.webhook_secret, previous: row.previous_secret };
    let hook = Hook {
        id: row.id,
        integration_id: row.integration_id,
        url: row.webhook_url,
        secret_masked: row.secret_masked,
        events: names(&row.events),
        is_active: row.is_active,
        retry_attempts: row.retry_attempts,
        retry_delay: row.retry_delay,
        rate_limit: row.rate_limit,
        last_triggered_at: row.last_triggered_at,
        last_status: status(row.last_status.as_deref())?,
        failure_count: row.failure_count,
        disabled_at: row.disabled_at,
        disabled_reason: row.disabled_reason,
        previous_secret_expires_at: row.previous_secret_expires_at,
        breaker: Breaker {
            window_at: row.breaker_window_at,
            tried: row.breaker_tried,
            failed: row.breaker_failed,
            trips: row.breaker_trips,
            open_until: row.breaker_open_until,
        },
        generation: row.generation,
        created_by: row.created_by,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok((hook, sealed))
}

fn names(events: &Json) -> Vec<String> {
    let names = events.as_array().into_iter().flatten().filter_map(Json::as_str);
    names.map(str::to_owned).collect()
}

fn status(text: Option<&str>) -> Result<Option<LogStatus>> {
    text.map(|text| word("integration_webhooks.last_status", text, LogStatus::parse)).transpose()
}

pub(super) fn column<T: sea_orm::TryGetable>(row: &QueryResult, name: &str) -> Result<T> {
    let read: Result<T, DbErr> = row.try_get("", name);
    read.map_err(|error| -> Error { fault(error) })
}
