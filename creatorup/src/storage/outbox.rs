//! Webhooks for the hub. Each stands and falls with the job that sends it: what becomes of the job is written here in
//! the same transaction.

use futures::future::BoxFuture;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryResult,
};
use upbridge_service::model::job::{EventStatus, Fate};
use upbridge_service::storage::rows::Rows;
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

/// How many webhooks there are of a batch.
pub async fn count_of<C: ConnectionTrait>(connection: &C, batch_id: Uuid) -> Result<u64> {
    asked(Entity::find().filter(Column::BatchId.eq(batch_id)).count(connection)).await
}

/// Removes what a user's webhooks have yet to say, or were refused: whoever would send one finds none.
pub async fn forget(tx: &mut WriteTx, digiup_user_id: Uuid) -> Result<()> {
    let unsent = Column::State.ne(Standing::Sent.as_str());
    let delete = Entity::delete_many().filter(Column::DigiupUserId.eq(digiup_user_id)).filter(unsent);
    asked(delete.exec(tx.connection())).await.map(drop)
}

/// Makes failed webhooks pending again; those that were sent stay so.
pub async fn reopen(tx: &mut WriteTx, ids: &[Uuid]) -> Result<()> {
    let row = ActiveModel { state: Set(Standing::Pending.as_str().to_owned()), ..Default::default() };
    let failed = Column::State.eq(Standing::Failed.as_str());
    let update = Entity::update_many().set(row).filter(Column::Id.is_in(ids.iter().copied())).filter(failed);
    asked(update.exec(tx.connection())).await.map(drop)
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
        Box::pin(settle(tx, fates, now))
    }

    fn reopen<'a>(&'a self, tx: &'a mut WriteTx, ids: &'a [Uuid], _now: Instant) -> BoxFuture<'a, Result<()>> {
        Box::pin(reopen(tx, ids))
    }
}

/// Moves pending webhooks on, as a set; with one that was sent, the hub knows all of its batch.
async fn settle(tx: &mut WriteTx, fates: &[Fate], now: Instant) -> Result<()> {
    if fates.is_empty() {
        return Ok(());
    }
    let mut rows = Rows::new(&["id", "state", "attempts", "last_error", "receipt", "sent_at"], fates.len());
    for fate in fates {
        let is_sent = fate.status == EventStatus::Completed;
        let standing = match fate.status {
            EventStatus::Completed => Standing::Sent,
            EventStatus::Pending => Standing::Pending,
            EventStatus::Failed => Standing::Failed,
        };
        let receipt = fate.response.as_ref().and_then(|said| said.get("event_id")?.as_str().map(str::to_owned));
        rows.uuid(fate.id).text(standing.as_str()).int(fate.retries);
        rows.text_or_null(fate.error.clone().filter(|_| !is_sent));
        rows.text_or_null(receipt.filter(|_| is_sent)).time(is_sent.then_some(now));
    }
    let dialect = tx.dialect();
    let changes = "state = fate.state, last_error = fate.last_error, receipt = fate.receipt, sent_at = fate.sent_at, \
                   attempts = CASE WHEN fate.state = 'sent' THEN outbox.attempts ELSE fate.attempts END";
    let update = dialect.update_each("outbox", changes, "fate", ("state", Standing::Pending.as_str()));
    let update = format!("{update} RETURNING outbox.state, outbox.batch_id");
    let moved = asked(rows.query(tx.connection(), dialect, "fate", &update)).await?;
    let read =
        |row: &QueryResult| Ok((row.try_get::<String>("", "state")?, row.try_get::<Option<Uuid>>("", "batch_id")?));
    let moved = asked(async { moved.iter().map(read).collect::<Result<Vec<_>, DbErr>>() }).await?;
    let sent = moved.into_iter().filter(|(state, _)| state == Standing::Sent.as_str());
    let batch_ids: Vec<Uuid> = sent.filter_map(|(_, batch_id)| batch_id).collect();
    match batch_ids.is_empty() {
        true => Ok(()),
        false => usage::reported(tx, &batch_ids, now).await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use tokio_util::sync::CancellationToken;
    use upbridge_service::storage::{Options, Store};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_of_a_set_is_written_to_each_and_what_was_sent_stays_sent() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", directory.path().join("creatorup.db").display());
        let options = Options {
            url,
            read_connections: 2,
            wait: Duration::from_secs(5),
            max_retries: 3,
            patience: Duration::from_secs(30),
        };
        let stop = CancellationToken::new();
        let store = Store::open(&options, crate::setup(), stop.clone()).await.unwrap();
        let now = Instant::default();
        let webhook = |name: &str| {
            let (event, user) = (Event::SubscriptionUpdate, Uuid::now_v7());
            Webhook::new(event, name.to_owned(), user, None, &json!({}), now)
        };
        let webhooks = ["sent", "waits", "failed"].map(webhook);
        let ids = webhooks.each_ref().map(|webhook| webhook.id);
        let fate = |place: usize, status, response, error: Option<&str>| Fate {
            id: ids[place],
            status,
            retries: 2,
            response,
            error: error.map(str::to_owned),
        };
        let fates = [
            fate(0, EventStatus::Completed, Some(json!({"event_id": "hub-1"})), None),
            fate(1, EventStatus::Pending, None, Some("503")),
            fate(2, EventStatus::Failed, None, Some("422")),
        ];
        let settled = store.write((webhooks, fates), |tx, (webhooks, fates)| {
            Box::pin(async move {
                for webhook in webhooks.iter() {
                    assert!(insert(tx, webhook).await?);
                }
                Outbox.settle(tx, fates, Instant::default()).await
            })
        });
        settled.await.unwrap();
        let stand = async || {
            let mut stand = Vec::new();
            for id in ids {
                let row = Entity::find_by_id(id).one(store.read()).await.unwrap().unwrap();
                stand.push((row.state, row.attempts, row.last_error, row.receipt, row.sent_at.is_some()));
            }
            stand
        };
        let row = |state: &str, attempts, error: Option<&str>, receipt: Option<&str>| {
            let is_sent = state == "sent";
            (state.to_owned(), attempts, error.map(str::to_owned), receipt.map(str::to_owned), is_sent)
        };
        let (sent, waits) = (row("sent", 0, None, Some("hub-1")), row("pending", 2, Some("503"), None));
        assert_eq!(stand().await, [sent.clone(), waits.clone(), row("failed", 2, Some("422"), None)]);
        store.write(ids, |tx, ids| Outbox.reopen(tx, ids, Instant::default())).await.unwrap();
        assert_eq!(stand().await, [sent, waits, row("pending", 2, Some("422"), None)]);
        stop.cancel();
        store.close().await;
    }
}
