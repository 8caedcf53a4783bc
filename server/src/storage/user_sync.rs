//! How users' copies at CreatorUp stand.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::entity::user::{ActiveModel, Column, Entity};
use super::entity::{subscription, user};
use super::rows::Rows;
use super::{WriteTx, asked};
use crate::model::creatorup::Confirmation;
use crate::model::membership::SubscriptionStatus;
use crate::model::user::SyncStatus;
use crate::model::{Error, Instant, Json, Result};

/// Notes that the copies of these users are no longer as the users are. Whoever can change the same users must hold
/// their rows.
pub async fn mark_pending(tx: &mut WriteTx, ids: &[Uuid]) -> Result<()> {
    super::user::count_sync_status(tx, ids, SyncStatus::Pending).await?;
    let mut changed = Rows::new(&["id"], ids.len());
    for id in ids {
        changed.uuid(*id);
    }
    let update = "UPDATE users SET sync_status = 'pending' WHERE id IN (SELECT id FROM changed) \
                  AND sync_status <> 'pending' RETURNING users.id";
    let dialect = tx.dialect();
    asked(changed.query(tx.connection(), dialect, "changed", update)).await.map(drop)
}

/// Notes that CreatorUp has a user, and what it said. The copy stays pending when the user changed meanwhile.
pub async fn confirm(tx: &mut WriteTx, id: Uuid, said: &Confirmation, is_newest: bool, now: Instant) -> Result<()> {
    let status = if is_newest { SyncStatus::Synced } else { SyncStatus::Pending };
    super::user::count_sync_status(tx, &[id], status).await?;
    let mut row = ActiveModel {
        sync_status: Set(status.as_str().to_owned()),
        creatorup_synced_at: Set(Some(now)),
        creatorup_metadata: Set(Some(said.metadata.clone())),
        ..Default::default()
    };
    if let Some(creatorup_user_id) = &said.creatorup_user_id {
        row.creatorup_user_id = Set(Some(creatorup_user_id.clone()));
    }
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Notes that CreatorUp could not be told about a user.
pub async fn fail(tx: &mut WriteTx, id: Uuid) -> Result<()> {
    super::user::count_sync_status(tx, &[id], SyncStatus::Error).await?;
    let row = ActiveModel { sync_status: Set(SyncStatus::Error.as_str().to_owned()), ..Default::default() };
    let update = Entity::update_many().set(row).filter(Column::Id.eq(id));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// The courses a user bought; none for a user who is gone.
pub async fn courses<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Json> {
    let query = Entity::find_by_id(id).select_only().column(Column::PurchasedCourses).into_tuple::<Json>();
    Ok(asked(query.one(connection)).await?.unwrap_or_else(|| Json::Array(Vec::new())))
}

/// Users and how their copies stand.
pub type Standings = Vec<(Uuid, SyncStatus)>;

/// Users whose copy is missing or wrong, by id, after one.
pub async fn list_behind<C: ConnectionTrait>(connection: &C, after: Option<Uuid>, most: u64) -> Result<Standings> {
    let mut found = Vec::new();
    // Each status is a walk down its part of the index; together they would be a walk over all users.
    for status in [SyncStatus::Pending, SyncStatus::Error] {
        let mut query = standings().filter(Column::SyncStatus.eq(status.as_str()));
        if let Some(after) = after {
            query = query.filter(Column::Id.gt(after));
        }
        found.extend(read(connection, query.order_by_asc(Column::Id).limit(most)).await?);
    }
    found.sort_unstable_by_key(|(id, _)| *id);
    found.truncate(most as usize);
    Ok(found)
}

/// Users whose copy was last confirmed before `before`, the oldest copy first.
pub async fn list_stale<C: ConnectionTrait>(connection: &C, before: Instant, most: u64) -> Result<Standings> {
    let query = standings()
        .filter(sea_orm::sea_query::Expr::cust("sync_status = 'synced'"))
        .filter(Column::CreatorupSyncedAt.lt(before))
        .order_by_asc(Column::CreatorupSyncedAt)
        .limit(most);
    read(connection, query).await
}

/// Those of these users whose copy is missing or wrong, or was last confirmed before `before`, as they stand now.
pub async fn still_behind<C: ConnectionTrait>(connection: &C, users: &Standings, before: Instant) -> Result<Standings> {
    let behind = Condition::any()
        .add(Column::SyncStatus.ne(SyncStatus::Synced.as_str()))
        .add(Column::CreatorupSyncedAt.lt(before));
    let query = standings().filter(Column::Id.is_in(users.iter().map(|(id, _)| *id))).filter(behind);
    read(connection, query.order_by_asc(Column::Id)).await
}

/// Users with an active subscription to a plan, by id, after one.
pub async fn list_subscribers<C: ConnectionTrait>(
    connection: &C,
    plan_id: i32,
    after: Option<Uuid>,
    most: u64,
) -> Result<Standings> {
    let mut query = subscription::Entity::find()
        .select_only()
        .column(subscription::Column::UserId)
        .filter(subscription::Column::PlanId.eq(plan_id))
        .filter(sea_orm::sea_query::Expr::cust(format!("status = '{}'", SubscriptionStatus::Active.as_str())))
        .order_by_asc(subscription::Column::UserId)
        .limit(most);
    if let Some(after) = after {
        query = query.filter(subscription::Column::UserId.gt(after));
    }
    let ids: Vec<Uuid> = asked(query.into_tuple().all(connection)).await?;
    let found = read(connection, standings().filter(Column::Id.is_in(ids)).order_by_asc(Column::Id)).await?;
    Ok(found)
}

fn standings() -> sea_orm::Select<user::Entity> {
    Entity::find().select_only().column(Column::Id).column(Column::SyncStatus)
}

async fn read<C: ConnectionTrait>(connection: &C, query: sea_orm::Select<user::Entity>) -> Result<Standings> {
    let rows: Vec<(Uuid, String)> = asked(query.into_tuple().all(connection)).await?;
    let known = |status: &str| SyncStatus::parse(status).ok_or_else(|| Error::internal("an unknown sync status"));
    rows.into_iter().map(|(id, status)| Ok((id, known(&status)?))).collect()
}
