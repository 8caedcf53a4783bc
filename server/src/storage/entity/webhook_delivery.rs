//! Events on their way to webhooks.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub webhook_id: Uuid,
    pub integration_id: Uuid,
    pub event: String,
    pub payload: String,
    pub status: String,
    pub priority: i32,
    pub attempts: i32,
    pub attempts_before: i32,
    pub next_attempt_at: Option<DateTimeUtc>,
    pub response_status: Option<i32>,
    pub error_class: Option<String>,
    pub is_test: bool,
    pub created_at: DateTimeUtc,
    pub finished_at: Option<DateTimeUtc>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
