//! What happened to integrations.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "integration_logs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub integration_id: Uuid,
    pub action: String,
    pub status: String,
    pub message: String,
    pub request_data: Option<Json>,
    pub response_data: Option<Json>,
    pub error_details: Option<Json>,
    pub duration: Option<i32>,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub user_id: Option<Uuid>,
    pub delivery_id: Option<Uuid>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
