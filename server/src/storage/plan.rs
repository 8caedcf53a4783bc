//! Plans.

use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait, QueryOrder};

use super::entity::plan::{ActiveModel, Column, Entity};
use super::row::write_features;
use super::{WriteTx, asked, taken};
use crate::model::Result;
use crate::model::membership::Plan;

/// Every plan, retired ones too, by id. There are few.
pub async fn list<C: ConnectionTrait>(connection: &C) -> Result<Vec<Plan>> {
    let rows = asked(Entity::find().order_by_asc(Column::Id).all(connection)).await?;
    rows.into_iter().map(Plan::try_from).collect()
}

/// Adds a plan and returns its number; the number in `plan` is ignored.
pub async fn insert(tx: &mut WriteTx, plan: &Plan) -> Result<i32> {
    let row = ActiveModel { id: sea_orm::ActiveValue::NotSet, ..row(plan) };
    let insert = Entity::insert(row).exec(tx.connection()).await;
    insert.map(|done| done.last_insert_id).map_err(|error| taken(error, &["name"]))
}

/// Writes a plan as it is now.
pub async fn update(tx: &mut WriteTx, plan: &Plan) -> Result<()> {
    let update = Entity::update(row(plan)).exec(tx.connection()).await;
    update.map(drop).map_err(|error| taken(error, &["name"]))
}

fn row(plan: &Plan) -> ActiveModel {
    ActiveModel {
        id: Set(plan.id),
        name: Set(plan.name.clone()),
        tier: Set(plan.tier.as_str().to_owned()),
        price: Set(plan.price),
        currency: Set(plan.currency.clone()),
        interval: Set("month".to_owned()),
        features: Set(write_features(&plan.features)),
        is_active: Set(plan.is_active),
        created_at: Set(plan.created_at),
        updated_at: Set(plan.updated_at),
    }
}
