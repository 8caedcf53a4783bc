//! Sessions.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::entity::session::{ActiveModel, Column, Entity, Model};
use super::{WriteTx, asked};
use crate::model::user::Session;
use crate::model::{Instant, Result};

/// Adds a session.
pub async fn insert(tx: &mut WriteTx, session: &Session) -> Result<()> {
    let row = ActiveModel {
        id: Set(session.id),
        user_id: Set(session.user_id),
        created_at: Set(session.created_at),
        expires_at: Set(session.expires_at),
        revoked_at: Set(None),
        ip_address: Set(session.ip_address.clone()),
        user_agent: Set(session.user_agent.clone()),
    };
    asked(Entity::insert(row).exec_without_returning(tx.connection())).await.map(drop)
}

/// The live sessions of a user, newest first.
pub async fn list<C: ConnectionTrait>(connection: &C, user_id: Uuid, now: Instant, most: u64) -> Result<Vec<Session>> {
    let query = Entity::find()
        .filter(Column::UserId.eq(user_id))
        .filter(Column::RevokedAt.is_null())
        .filter(Column::ExpiresAt.gt(now))
        .order_by_desc(Column::Id)
        .limit(most);
    Ok(asked(query.all(connection)).await?.into_iter().map(Session::from).collect())
}

/// The ended sessions of a user whose tokens have not expired by themselves.
pub async fn list_revoked<C: ConnectionTrait>(connection: &C, user_id: Uuid, now: Instant) -> Result<Vec<Uuid>> {
    let query = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::UserId.eq(user_id))
        .filter(Column::RevokedAt.is_not_null())
        .filter(Column::ExpiresAt.gt(now));
    asked(query.into_tuple().all(connection)).await
}

/// Whether a user has, or had, a session of that id.
pub async fn exists<C: ConnectionTrait>(connection: &C, user_id: Uuid, id: Uuid) -> Result<bool> {
    let query = Entity::find_by_id(id).filter(Column::UserId.eq(user_id));
    Ok(asked(query.one(connection)).await?.is_some())
}

/// Ends one session of a user.
pub async fn revoke(tx: &mut WriteTx, user_id: Uuid, id: Uuid, now: Instant) -> Result<()> {
    let live = Entity::update_many().filter(Column::UserId.eq(user_id)).filter(Column::RevokedAt.is_null());
    let update = live.filter(Column::Id.eq(id)).set(ActiveModel { revoked_at: Set(Some(now)), ..Default::default() });
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Ends the live sessions of a user, but for one, and says how many there were.
pub async fn revoke_others(tx: &mut WriteTx, user_id: Uuid, but: Option<Uuid>, now: Instant) -> Result<u64> {
    let mut live = Entity::update_many()
        .filter(Column::UserId.eq(user_id))
        .filter(Column::RevokedAt.is_null())
        .filter(Column::ExpiresAt.gt(now));
    if let Some(but) = but {
        live = live.filter(Column::Id.ne(but));
    }
    let update = live.set(ActiveModel { revoked_at: Set(Some(now)), ..Default::default() });
    Ok(asked(update.exec(tx.connection())).await?.rows_affected)
}

impl From<Model> for Session {
    fn from(row: Model) -> Session {
        Session {
            id: row.id,
            user_id: row.user_id,
            created_at: row.created_at,
            expires_at: row.expires_at,
            ip_address: row.ip_address,
            user_agent: row.user_agent,
        }
    }
}
