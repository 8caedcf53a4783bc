//! Copies of DigiUp's users.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use upbridge_service::storage::asked;
use uuid::Uuid;

use super::WriteTx;
use super::entity::user::{ActiveModel, Column, Entity, Model};
use crate::model::user::{Membership, Profile, User};
use crate::model::{Error, Instant, Json, Result};

/// The copy of a user, by the id at DigiUp.
pub async fn find<C: ConnectionTrait>(connection: &C, digiup_user_id: Uuid) -> Result<Option<User>> {
    let query = Entity::find().filter(Column::DigiupUserId.eq(digiup_user_id));
    Ok(asked(query.one(connection)).await?.map(User::from))
}

/// The copy of a user, by the id here.
pub async fn find_by_id<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<User>> {
    Ok(asked(Entity::find_by_id(id).one(connection)).await?.map(User::from))
}

/// Writes what was told, unless the copy is newer; answers with the copy as it is now, and whether it was changed.
pub async fn put(tx: &mut WriteTx, told: &Profile, now: Instant) -> Result<(User, bool)> {
    let first = User { id: Uuid::now_v7(), profile: told.clone(), synced_at: now, created_at: now };
    let new = ActiveModel { id: Set(first.id), created_at: Set(now), ..row(&first) };
    let insert = Entity::insert(new).on_conflict(OnConflict::column(Column::DigiupUserId).do_nothing().to_owned());
    if asked(insert.exec_without_returning(tx.connection())).await? > 0 {
        return Ok((first, true));
    }
    super::hold(tx, "digiup_users", "digiup_user_id", told.digiup_user_id).await?;
    let known = find(tx.reader(), told.digiup_user_id).await?;
    let known = known.ok_or_else(|| Error::internal("a user that is there was not found"))?;
    let is_same =
        Profile { details: Json::Null, ..known.profile.clone() } == Profile { details: Json::Null, ..told.clone() };
    if is_same || !known.yields_to(told) {
        return Ok((known, false));
    }
    // A pull says less than a push does; what it does not say stays.
    let details = if told.details.as_object().is_some_and(serde_json::Map::is_empty) {
        known.profile.details.clone()
    } else {
        told.details.clone()
    };
    let new = User { profile: Profile { details, ..told.clone() }, synced_at: now, ..known };
    let changed = ActiveModel { id: Set(new.id), ..row(&new) };
    asked(Entity::update(changed).exec(tx.connection())).await?;
    Ok((new, true))
}

fn row(user: &User) -> ActiveModel {
    let profile = &user.profile;
    let held = profile.membership.as_ref();
    ActiveModel {
        digiup_user_id: Set(profile.digiup_user_id),
        email: Set(profile.email.clone()),
        name: Set(profile.name.clone()),
        username: Set(profile.username.clone()),
        role: Set(profile.role.clone()),
        status: Set(profile.status.clone()),
        plan: Set(held.map(|held| held.plan.clone())),
        subscription_status: Set(held.map(|held| held.status.clone())),
        subscription_ends_at: Set(held.and_then(|held| held.end_date)),
        details: Set((!profile.details.is_null()).then(|| profile.details.clone())),
        as_of: Set(profile.as_of),
        synced_at: Set(user.synced_at),
        ..Default::default()
    }
}

impl From<Model> for User {
    fn from(row: Model) -> User {
        let membership = row.plan.zip(row.subscription_status);
        let membership =
            membership.map(|(plan, status)| Membership { plan, status, end_date: row.subscription_ends_at });
        User {
            id: row.id,
            profile: Profile {
                digiup_user_id: row.digiup_user_id,
                email: row.email,
                name: row.name,
                username: row.username,
                role: row.role,
                status: row.status,
                membership,
                details: row.details.unwrap_or_default(),
                as_of: row.as_of,
            },
            synced_at: row.synced_at,
            created_at: row.created_at,
        }
    }
}
