//! Partners' accounts at providers.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "partner_integrations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub partner_id: Uuid,
    pub category: String,
    pub provider: String,
    pub name: String,
    pub environment: String,
    pub credentials: String,
    pub credentials_key_id: String,
    pub credentials_masked: Option<Json>,
    pub config: Option<Json>,
    pub base_url: Option<String>,
    pub callback_digest: Option<String>,
    pub is_active: bool,
    pub last_test_at: Option<DateTimeUtc>,
    pub last_test_status: Option<String>,
    pub last_test_message: Option<String>,
    pub last_test_class: Option<String>,
    pub last_test_latency: Option<i32>,
    pub created_by: Option<Uuid>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
