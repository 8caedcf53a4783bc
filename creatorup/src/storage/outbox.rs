//! Webhooks for the hub. Each stands and falls with the job that sends it: what becomes of the job is written here in
//! the same transaction.

use futures::future::BoxFuture;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter};
use upbridge_service::model::job::{EventStatus, Fate};
use upbridge_service::storage::{Companion, asked};
use uuid::Uuid;

use super::entity::outbox::{ActiveModel, Column, Entity, Model};
use super::{WriteTx, usage, word};
use crate::model::outbox::{Event, Standing, Webhook};
use crate::model::{Instant, Result};

/// Adds a webhook; false when one of its event id is there already.
pub async fn insert(tx: &mut WriteTx, webhook: &Webhook) -> Result<bool> {
    let row = ActiveModel {
        id: Set(webhook.id),
        event: Set(webhook.event.as_str().to_owned()),
        event_id: Set(webhook.event_id.clone()),
        digiup_user_id: Set(webhook.digiup_user_id),
        batch_id: Set(webhook.batch_id),
        body: Set(webhook.body.clone()),
        state: Set(Standing::Pending.as_str().to_owned()),
        attempts: Set(0),
        created_at: Set(webhook.created_at),
        ..Default::default()
    };
    let nothing = OnConflict::column(Column::EventId).do_nothing().to_owned();
    Ok(asked(Entity::insert(row).on_conflict(nothing).exec_without_returning(tx.connection())).await? > 0)
}

/// A webhook that is to be sent; `None` when it was, or never will be.
pub async fn find_unsent<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Webhook>> {
    let query = Entity::find_by_id(id).filter(Column::State.eq(Standing::Pending.as_str()));
    asked(query.one(connection)).await?.map(read).transpose()
}

/// The webhook of an event id.
pub async fn find_by_event<C: ConnectionTrait>(connection: &C, event_id: &str) -> Result<Option<Webhook>> {
    asked(Entity::find().filter(Column::EventId.eq(event_id)).one(connection)).await?.map(read).transpose()
}

/// How many webhooks stand so.
pub async fn count<C: ConnectionTrait>(connection: &C, standing: Standing) -> Result<u64> {
    asked(Entity::find().filter(Column::State.eq(standing.as_str())).count(connection)).await
}

fn read(row: Model) -> Result<Webhook> {
    Ok(Webhook {
        event: word("outbox.event", &row.event, Event::parse)?,
        id: row.id,
        event_id: row.event_id,
        digiup_user_id: row.digiup_user_id,
        batch_id: row.batch_id,
        body: row.body,
        created_at: row.created_at,
    })
}

/// Writes what becomes of the jobs that send webhooks.
pub struct Outbox;

impl Companion for Outbox {
    fn write<'a>(&'a self, _tx: &'a mut WriteTx) -> BoxFuture<'a, Result<(), DbErr>> {
        // Webhooks are written where they are made.
        Box::pin(async { Ok(()) })
    }

    fn settle<'a>(&'a self, tx: &'a mut WriteTx, fates: &'a [Fate], now: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for fate in fates {
                settle(tx, fate, now).await?;
            }
            Ok(())
        })
    }

    fn reopen<'a>(&'a self, tx: &'a mut WriteTx, ids: &'a [Uuid], _now: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let row = ActiveModel { state: Set(Standing::Pending.as_str().to_owned()), ..Default::default() };
            let update = Entity::update_many().set(row).filter(Column::Id.is_in(ids.iter().copied()));
            asked(update.exec(tx.connection())).await.map(drop)
        })
    }
}

async fn settle(tx: &mut WriteTx, fate: &Fate, now: Instant) -> Result<()> {
    let row = match fate.status {
        EventStatus::Completed => {
            let receipt = fate.response.as_ref().and_then(|said| said.get("event_id")?.as_str().map(str::to_owned));
            ActiveModel {
                state: Set(Standing::Sent.as_str().to_owned()),
                receipt: Set(receipt),
                sent_at: Set(Some(now)),
                last_error: Set(None),
                ..Default::default()
            }
        }
        EventStatus::Pending => {
            ActiveModel { attempts: Set(fate.retries), last_error: Set(fate.error.clone()), ..Default::default() }
        }
        EventStatus::Failed => ActiveModel {
            state: Set(Standing::Failed.as_str().to_owned()),
            attempts: Set(fate.retries),
            last_error: Set(fate.error.clone()),
            ..Default::default()
        },
    };
    let pending = Column::State.eq(Standing::Pending.as_str());
    let update = Entity::update_many().set(row).filter(Column::Id.eq(fate.id)).filter(pending);
    let moved = asked(update.exec(tx.connection())).await?.rows_affected > 0;
    if moved
        && fate.status == EventStatus::Completed
        && let Some(row) = asked(Entity::find_by_id(fate.id).one(tx.reader())).await?
        && let Some(batch_id) = row.batch_id
    {
        usage::reported(tx, batch_id, now).await?;
    }
    Ok(())
}
