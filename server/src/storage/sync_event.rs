//! The record of what has to reach the other side.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::sync_event::{Column, Entity};
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::Result;
use crate::model::event::{Event, EventStatus, NewEvent};

/// Adds events; only [`WriteTx::commit`] calls this, so an event never stands without its write.
pub(super) async fn insert(tx: &mut WriteTx, events: &[NewEvent]) -> Result<(), DbErr> {
    const COLUMNS: &[&str] =
        &["id", "event_type", "user_id", "status", "payload", "processed_at", "created_at", "updated_at"];
    let mut rows = Rows::new(COLUMNS, events.len());
    for event in events {
        let processed_at = (event.status != EventStatus::Pending).then_some(event.at);
        rows.uuid(Uuid::now_v7()).text(event.kind.as_str()).uuid(event.user_id).text(event.status.as_str());
        rows.json(Some(event.payload.clone())).time(processed_at).time(event.at).time(event.at);
    }
    let dialect = tx.dialect();
    rows.insert(tx.connection(), dialect, "sync_events", "").await
}

/// The newest events of a user that are not about usage, newest first.
pub async fn recent<C: ConnectionTrait>(connection: &C, user_id: Uuid, most: u64) -> Result<Vec<Event>> {
    // A literal and not a bound value: only so does a planner see that the partial index holds all it needs.
    let query = Entity::find()
        .filter(Column::UserId.eq(user_id))
        .filter(Expr::cust("event_type <> 'usage_sync'"))
        .order_by_desc(Column::Id)
        .limit(most);
    Ok(asked(query.all(connection)).await?.into_iter().map(Event::from).collect())
}
