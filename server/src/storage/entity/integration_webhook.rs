//! Who is told of an integration's events.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "integration_webhooks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub integration_id: Uuid,
    pub webhook_url: String,
    pub webhook_secret: String,
    pub secret_key_id: String,
    pub secret_masked: String,
    pub previous_secret: Option<String>,
    pub previous_secret_expires_at: Option<DateTimeUtc>,
    pub events: Json,
    pub is_active: bool,
    pub retry_attempts: i32,
    pub retry_delay: i32,
    pub rate_limit: Option<i32>,
    pub last_triggered_at: Option<DateTimeUtc>,
    pub last_status: Option<String>,
    pub failure_count: i32,
    pub disabled_at: Option<DateTimeUtc>,
    pub disabled_reason: Option<String>,
    pub breaker_window_at: Option<DateTimeUtc>,
    pub breaker_tried: i32,
    pub breaker_failed: i32,
    pub breaker_trips: i32,
    pub breaker_open_until: Option<DateTimeUtc>,
    pub generation: i32,
    pub created_by: Option<Uuid>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
