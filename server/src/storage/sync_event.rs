//! The record of what has to reach the other side.

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::sync_event::{Column, Entity};
use super::rows::{Kind, Rows};
use super::{WriteTx, asked};
use crate::model::Result;
use crate::model::event::{Event, EventStatus, NewEvent};

/// Adds events; only [`WriteTx::commit`] calls this, so an event never stands without its write.
pub(super) async fn insert(tx: &mut WriteTx, events: &[NewEvent]) -> Result<(), DbErr> {
    let mut rows = Rows::new(&[
        ("id", Kind::Uuid),
        ("event_type", Kind::Text),
        ("user_id", Kind::Uuid),
        ("status", Kind::Text),
        ("payload", Kind::Json),
        ("processed_at", Kind::Time),
        ("created_at", Kind::Time),
        ("updated_at", Kind::Time),
    ]);
    for event in events {
        let processed_at = (event.status != EventStatus::Pending).then_some(event.at);
        rows.uuid(Uuid::now_v7()).text(event.kind.as_str()).uuid(event.user_id).text(event.status.as_str());
        rows.json_or_null(Some(&event.payload)).time_or_null(processed_at).time(event.at).time(event.at);
    }
    let dialect = tx.dialect();
    rows.insert(tx.connection(), dialect, "sync_events", "").await
}

/// The newest events of a user, newest first.
pub async fn recent<C: ConnectionTrait>(connection: &C, user_id: Uuid, most: u64) -> Result<Vec<Event>> {
    let query = Entity::find().filter(Column::UserId.eq(user_id)).order_by_desc(Column::Id).limit(most);
    Ok(asked(query.all(connection)).await?.into_iter().map(Event::from).collect())
}
