//! Values a ledger record had before an amendment.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "usage_revisions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub usage_id: Uuid,
    pub revision: i32,
    pub batch_name: String,
    pub batch_type: String,
    pub usage_type: String,
    pub usage_amount: i32,
    pub month_year: String,
    pub completed_at: DateTimeUtc,
    pub completion_reported: bool,
    pub metadata: Option<Json>,
    pub idempotency_key: Option<String>,
    pub replaced_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
