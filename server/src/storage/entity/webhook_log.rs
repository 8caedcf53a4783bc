//! Webhooks that came in, good or refused.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_logs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub source: String,
    pub event_type: String,
    pub user_id: Option<Uuid>,
    pub payload: Option<Json>,
    pub signature: Option<String>,
    pub status: String,
    pub response: Option<Json>,
    pub error_message: Option<String>,
    pub ip_address: String,
    pub processed_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
