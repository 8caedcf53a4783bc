//! Monthly sums of the ledger, a cache.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "usage_monthly")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub month_year: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub usage_type: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub batch_type: String,
    pub amount: i64,
    pub batches: i64,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
