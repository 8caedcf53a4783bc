//! The record of what has to reach the other side.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::dialect::rows_per_insert;
use super::entity::sync_event::{ActiveModel, Column, Entity};
use super::{WriteTx, asked};
use crate::model::Result;
use crate::model::event::{Event, EventStatus, NewEvent};

/// Adds events; only [`WriteTx::commit`] calls this, so an event never stands without its write.
pub(super) async fn insert(tx: &mut WriteTx, events: &[NewEvent]) -> Result<(), DbErr> {
    for chunk in events.chunks(rows_per_insert(12)) {
        let rows = chunk.iter().map(|event| ActiveModel {
            id: Set(Uuid::now_v7()),
            event_type: Set(event.kind.as_str().to_owned()),
            user_id: Set(Some(event.user_id)),
            status: Set(event.status.as_str().to_owned()),
            payload: Set(Some(event.payload.clone())),
            response: Set(None),
            error_message: Set(None),
            retry_count: Set(0),
            max_retries: Set(3),
            processed_at: Set((event.status != EventStatus::Pending).then_some(event.at)),
            created_at: Set(event.at),
            updated_at: Set(event.at),
        });
        Entity::insert_many(rows).exec_without_returning(tx.connection()).await?;
    }
    Ok(())
}

/// The newest events of a user, newest first.
pub async fn recent<C: ConnectionTrait>(connection: &C, user_id: Uuid, most: u64) -> Result<Vec<Event>> {
    let query = Entity::find().filter(Column::UserId.eq(user_id)).order_by_desc(Column::Id).limit(most);
    Ok(asked(query.all(connection)).await?.into_iter().map(Event::from).collect())
}
