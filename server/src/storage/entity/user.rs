//! Users of DigiUp.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub email: String,
    pub name: String,
    pub username: Option<String>,
    pub role: String,
    pub status: String,
    pub password_hash: String,
    pub purchased_courses: Json,
    pub creatorup_synced_at: Option<DateTimeUtc>,
    pub creatorup_user_id: Option<String>,
    pub last_creatorup_access: Option<DateTimeUtc>,
    pub sync_status: String,
    pub creatorup_metadata: Option<Json>,
    pub created_at: DateTimeUtc,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
