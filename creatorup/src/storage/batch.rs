//! Batches. Every query is scoped by the batch's owner, but for those of the server itself.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde_json::json;
use upbridge_service::model::page::Page;
use upbridge_service::storage::asked;
use uuid::Uuid;

use super::entity::batch::{ActiveModel, Column, Entity, Model};
use super::entity::user;
use super::{WriteTx, word};
use crate::model::batch::{Batch, BatchStatus};
use crate::model::media::MediaPath;
use crate::model::{Error, Json, Result};

/// Adds a batch; false when the owner has one of the same key already.
pub async fn insert(tx: &mut WriteTx, batch: &Batch) -> Result<bool> {
    let nothing = OnConflict::new().do_nothing().to_owned();
    let insert = Entity::insert(row(batch)).on_conflict(nothing);
    Ok(asked(insert.exec_without_returning(tx.connection())).await? > 0)
}

/// A batch, whoever's it is.
pub async fn find<C: ConnectionTrait>(connection: &C, id: Uuid) -> Result<Option<Batch>> {
    one(connection, Entity::find_by_id(id)).await
}

/// A batch of a user.
pub async fn find_of<C: ConnectionTrait>(connection: &C, user_id: Uuid, id: Uuid) -> Result<Option<Batch>> {
    one(connection, Entity::find_by_id(id).filter(Column::UserId.eq(user_id))).await
}

/// The batch a user created under a key.
pub async fn find_by_key<C: ConnectionTrait>(connection: &C, user_id: Uuid, key: &str) -> Result<Option<Batch>> {
    one(connection, Entity::find().filter(Column::UserId.eq(user_id)).filter(Column::IdempotencyKey.eq(key))).await
}

/// A batch that nobody else changes until the transaction ends.
pub async fn held(tx: &mut WriteTx, id: Uuid) -> Result<Option<Batch>> {
    super::hold(tx, "batches", "id", id).await?;
    find(tx.reader(), id).await
}

/// A page of a user's batches, newest first, one more than it holds.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    user_id: Uuid,
    status: Option<BatchStatus>,
    page: &Page,
) -> Result<Vec<Batch>> {
    let mut query = Entity::find().filter(Column::UserId.eq(user_id));
    if let Some(status) = status {
        query = query.filter(Column::Status.eq(status.as_str()));
    }
    if let Some(after) = &page.after {
        query = query.filter(Column::Id.lt(after.id));
    }
    let query = query.order_by_desc(Column::Id).limit(u64::from(page.size) + 1);
    many(connection, query).await
}

/// The batches of a user that are not over.
pub async fn open_of<C: ConnectionTrait>(connection: &C, user_id: Uuid) -> Result<Vec<Batch>> {
    let open = [BatchStatus::Pending, BatchStatus::Processing].map(BatchStatus::as_str);
    many(connection, Entity::find().filter(Column::UserId.eq(user_id)).filter(Column::Status.is_in(open))).await
}

/// Writes a batch that is held.
pub async fn update(tx: &mut WriteTx, batch: &Batch) -> Result<()> {
    asked(Entity::update(row(batch)).exec(tx.connection())).await.map(drop)
}

/// Writes how far a batch is; false when it is no longer being processed.
pub async fn progress(tx: &mut WriteTx, id: Uuid, progress: i32, videos: Option<&[Json]>) -> Result<bool> {
    let mut row = ActiveModel { progress: Set(progress), ..Default::default() };
    if let Some(videos) = videos {
        row.videos = Set(Json::Array(videos.to_vec()));
    }
    let update = Entity::update_many()
        .set(row)
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(BatchStatus::Processing.as_str()));
    Ok(asked(update.exec(tx.connection())).await?.rows_affected > 0)
}

/// Removes a batch the hub refused, with what it would have counted for.
pub async fn delete(tx: &mut WriteTx, id: Uuid) -> Result<()> {
    asked(Entity::delete_by_id(id).exec(tx.connection())).await.map(drop)
}

async fn one<C: ConnectionTrait>(connection: &C, query: sea_orm::Select<Entity>) -> Result<Option<Batch>> {
    Ok(many(connection, query.limit(1)).await?.pop())
}

async fn many<C: ConnectionTrait>(connection: &C, query: sea_orm::Select<Entity>) -> Result<Vec<Batch>> {
    let rows = asked(query.all(connection)).await?;
    let owners: Vec<Uuid> = rows.iter().map(|row| row.user_id).collect();
    let owners = user::Entity::find()
        .select_only()
        .columns([user::Column::Id, user::Column::DigiupUserId])
        .filter(user::Column::Id.is_in(owners));
    let owners: Vec<(Uuid, Uuid)> = asked(owners.into_tuple().all(connection)).await?;
    let owner = |id: Uuid| owners.iter().find(|(user_id, _)| *user_id == id).map(|(_, digiup_user_id)| *digiup_user_id);
    rows.into_iter()
        .map(|row| {
            let digiup_user_id = owner(row.user_id).ok_or_else(|| Error::internal("a batch of nobody"))?;
            read(row, digiup_user_id)
        })
        .collect()
}

fn read(row: Model, digiup_user_id: Uuid) -> Result<Batch> {
    let broken = || Error::internal(format!("batch {} has inputs or videos that cannot be read", row.id));
    let inputs = row.inputs.as_array().ok_or_else(broken)?.iter();
    let inputs = inputs.map(|input| MediaPath::parse(input.as_str().unwrap_or_default()).map_err(|_| broken()));
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    let videos = row.videos.as_array().ok_or_else(broken)?.clone();
    Ok(Batch {
        id: row.id,
        user_id: row.user_id,
        digiup_user_id,
        name: row.name,
        batch_type: row.batch_type,
        usage_type: row.usage_type,
        status: word("batches.status", &row.status, BatchStatus::parse)?,
        progress: row.progress,
        inputs,
        metadata: row.metadata,
        videos,
        error: row.error,
        key: row.idempotency_key,
        job_id: row.job_id,
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    })
}

fn row(batch: &Batch) -> ActiveModel {
    ActiveModel {
        id: Set(batch.id),
        user_id: Set(batch.user_id),
        name: Set(batch.name.clone()),
        batch_type: Set(batch.batch_type.clone()),
        usage_type: Set(batch.usage_type.clone()),
        status: Set(batch.status.as_str().to_owned()),
        progress: Set(batch.progress),
        inputs: Set(json!(batch.inputs.iter().map(MediaPath::as_str).collect::<Vec<_>>())),
        metadata: Set(batch.metadata.clone()),
        videos: Set(Json::Array(batch.videos.clone())),
        error: Set(batch.error.clone()),
        idempotency_key: Set(batch.key.clone()),
        job_id: Set(batch.job_id),
        created_at: Set(batch.created_at),
        started_at: Set(batch.started_at),
        finished_at: Set(batch.finished_at),
    }
}
