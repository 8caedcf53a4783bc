//! Subscriptions.

use std::collections::HashMap;

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::subscription::{ActiveModel, Column, Entity};
use super::{WriteTx, asked, taken};
use crate::model::membership::{Subscription, SubscriptionStatus};
use crate::model::{Instant, Result};

/// The subscription that counts for each user: the active one, or else the newest.
pub async fn current<C: ConnectionTrait>(connection: &C, users: &[Uuid]) -> Result<HashMap<Uuid, Subscription>> {
    let query = Entity::find().filter(Column::UserId.is_in(users.iter().copied())).order_by_asc(Column::Id);
    let mut found: HashMap<Uuid, Subscription> = HashMap::with_capacity(users.len());
    for row in asked(query.all(connection)).await? {
        let subscription = Subscription::try_from(row)?;
        let stays = found.get(&subscription.user_id).is_some_and(|kept| kept.status == SubscriptionStatus::Active);
        if !stays {
            found.insert(subscription.user_id, subscription);
        }
    }
    Ok(found)
}

/// Active subscriptions whose end has passed, oldest end first.
pub async fn list_due<C: ConnectionTrait>(connection: &C, now: Instant, most: u64) -> Result<Vec<Subscription>> {
    let query = Entity::find()
        .filter(Column::Status.eq(SubscriptionStatus::Active.as_str()))
        .filter(Column::EndDate.lte(now))
        .order_by_asc(Column::EndDate)
        .limit(most);
    asked(query.all(connection)).await?.into_iter().map(Subscription::try_from).collect()
}

/// Adds a subscription. That a user has one active subscription at most is the database's to keep.
pub async fn insert(tx: &mut WriteTx, subscription: &Subscription) -> Result<()> {
    let insert = Entity::insert(row(subscription)).exec_without_returning(tx.connection()).await;
    insert.map(drop).map_err(|error| taken(error, &["user_id", "one_active_subscription_per_user"]))
}

/// Writes a subscription as it is now.
pub async fn update(tx: &mut WriteTx, subscription: &Subscription) -> Result<()> {
    asked(Entity::update(row(subscription)).exec(tx.connection())).await.map(drop)
}

/// Marks an active subscription as expired; says whether it still was active, so that of two sweeps one tells.
pub async fn expire(tx: &mut WriteTx, id: Uuid, now: Instant) -> Result<bool> {
    let expired = ActiveModel {
        status: Set(SubscriptionStatus::Expired.as_str().to_owned()),
        updated_at: Set(now),
        ..Default::default()
    };
    let update = Entity::update_many()
        .set(expired)
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(SubscriptionStatus::Active.as_str()))
        .filter(Column::EndDate.lte(now));
    Ok(asked(update.exec(tx.connection())).await?.rows_affected == 1)
}

fn row(subscription: &Subscription) -> ActiveModel {
    ActiveModel {
        id: Set(subscription.id),
        user_id: Set(subscription.user_id),
        plan_id: Set(subscription.plan_id),
        status: Set(subscription.status.as_str().to_owned()),
        start_date: Set(subscription.start_date),
        end_date: Set(subscription.end_date),
        cancel_at_period_end: Set(subscription.cancel_at_period_end),
        source: Set(subscription.source.as_str().to_owned()),
        created_at: Set(subscription.created_at),
        updated_at: Set(subscription.updated_at),
        changed_at: Set(Some(subscription.changed_at)),
    }
}
