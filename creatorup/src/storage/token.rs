//! Tokens the hub found good, by their digests. A token itself is kept nowhere.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use upbridge_service::storage::asked;
use uuid::Uuid;

use super::WriteTx;
use super::entity::verified_token::{ActiveModel, Column, Entity};
use crate::model::{Instant, Result};

/// A token that was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose it is, by the id here.
    pub user_id: Uuid,
    /// When it expires.
    pub expires_at: Instant,
    /// When the hub last said that it is good.
    pub verified_at: Instant,
}

/// What is known of a token.
pub async fn find<C: ConnectionTrait>(connection: &C, digest: &str) -> Result<Option<Known>> {
    let row = asked(Entity::find_by_id(digest).one(connection)).await?;
    Ok(row.map(|row| Known { user_id: row.user_id, expires_at: row.expires_at, verified_at: row.verified_at }))
}

/// Remembers a token, and forgets those that have expired.
pub async fn remember(tx: &mut WriteTx, digest: &str, known: Known) -> Result<()> {
    let expired = Entity::delete_many().filter(Column::ExpiresAt.lt(known.verified_at));
    asked(expired.exec(tx.connection())).await?;
    let row = ActiveModel {
        digest: Set(digest.to_owned()),
        user_id: Set(known.user_id),
        expires_at: Set(known.expires_at),
        verified_at: Set(known.verified_at),
    };
    let again = OnConflict::column(Column::Digest).update_columns([Column::ExpiresAt, Column::VerifiedAt]).to_owned();
    asked(Entity::insert(row).on_conflict(again).exec_without_returning(tx.connection())).await.map(drop)
}

/// Forgets a token the hub no longer finds good.
pub async fn forget(tx: &mut WriteTx, digest: &str) -> Result<()> {
    asked(Entity::delete_by_id(digest).exec(tx.connection())).await.map(drop)
}
