//! Copies of DigiUp's users.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "digiup_users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub digiup_user_id: Uuid,
    pub email: String,
    pub name: String,
    pub username: Option<String>,
    pub role: String,
    pub status: String,
    pub plan: Option<String>,
    pub subscription_status: Option<String>,
    pub subscription_ends_at: Option<DateTimeUtc>,
    pub details: Option<Json>,
    pub as_of: DateTimeUtc,
    pub synced_at: DateTimeUtc,
    pub created_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
