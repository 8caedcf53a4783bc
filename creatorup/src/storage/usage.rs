//! What batches count for.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter};
use upbridge_service::storage::asked;
use uuid::Uuid;

use super::entity::usage_record::{ActiveModel, Column, Entity, Model};
use super::{WriteTx, word};
use crate::model::usage::{Sum, UsageRecord};
use crate::model::{Instant, Month, Result};

/// Adds a record.
pub async fn insert(tx: &mut WriteTx, record: &UsageRecord) -> Result<()> {
    asked(Entity::insert(row(record)).exec_without_returning(tx.connection())).await.map(drop)
}

/// The record of a batch.
pub async fn find<C: ConnectionTrait>(connection: &C, batch_id: Uuid) -> Result<Option<UsageRecord>> {
    let query = Entity::find().filter(Column::BatchId.eq(batch_id));
    asked(query.one(connection)).await?.map(read).transpose()
}

/// The records of some batches.
pub async fn find_all<C: ConnectionTrait>(connection: &C, batch_ids: &[Uuid]) -> Result<Vec<UsageRecord>> {
    let query = Entity::find().filter(Column::BatchId.is_in(batch_ids.iter().copied()));
    asked(query.all(connection)).await?.into_iter().map(read).collect()
}

/// Writes a record whose batch is held.
pub async fn update(tx: &mut WriteTx, record: &UsageRecord) -> Result<()> {
    asked(Entity::update(row(record)).exec(tx.connection())).await.map(drop)
}

/// Notes that the hub knows all of these batches.
pub async fn reported(tx: &mut WriteTx, batch_ids: &[Uuid], now: Instant) -> Result<()> {
    let row = ActiveModel { reported_at: Set(Some(now)), ..Default::default() };
    let update = Entity::update_many().set(row).filter(Column::BatchId.is_in(batch_ids.iter().copied()));
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Notes that nothing of a user has to be told any more.
pub async fn reported_all(tx: &mut WriteTx, user_id: Uuid, now: Instant) -> Result<()> {
    let row = ActiveModel { reported_at: Set(Some(now)), ..Default::default() };
    let update = Entity::update_many().set(row).filter(Column::UserId.eq(user_id)).filter(Column::ReportedAt.is_null());
    asked(update.exec(tx.connection())).await.map(drop)
}

/// Removes the record of a batch the hub will not count.
pub async fn delete(tx: &mut WriteTx, batch_id: Uuid) -> Result<()> {
    asked(Entity::delete_many().filter(Column::BatchId.eq(batch_id)).exec(tx.connection())).await.map(drop)
}

/// A user's sums of a month, by usage type and batch type, in that order.
pub async fn sums<C: ConnectionTrait>(
    connection: &C,
    dialect: upbridge_service::storage::dialect::Dialect,
    user_id: Uuid,
    month: Month,
) -> Result<Vec<Sum>> {
    let query = dialect.statement(
        "SELECT usage_type, batch_type, CAST(SUM(usage_amount) AS BIGINT) AS amount, COUNT(*) AS batches, \
         CAST(SUM(CASE WHEN reported_at IS NULL THEN 1 ELSE 0 END) AS BIGINT) AS unreported FROM usage_records \
         WHERE user_id = $1 AND month_year = $2 GROUP BY usage_type, batch_type ORDER BY usage_type, batch_type",
        [user_id.into(), month.to_string().into()],
    );
    let rows = asked(connection.query_all_raw(query)).await?;
    let read = |row: &sea_orm::QueryResult| {
        Ok(Sum {
            usage_type: row.try_get("", "usage_type")?,
            batch_type: row.try_get("", "batch_type")?,
            amount: row.try_get("", "amount")?,
            batches: row.try_get("", "batches")?,
            unreported: row.try_get("", "unreported")?,
        })
    };
    asked(async { rows.iter().map(read).collect::<Result<_, sea_orm::DbErr>>() }).await
}

/// How many batches the hub has yet to be told something of.
pub async fn count_unreported<C: ConnectionTrait>(connection: &C) -> Result<u64> {
    asked(Entity::find().filter(Column::ReportedAt.is_null()).count(connection)).await
}

fn row(record: &UsageRecord) -> ActiveModel {
    ActiveModel {
        id: Set(record.id),
        user_id: Set(record.user_id),
        batch_id: Set(record.batch_id),
        batch_type: Set(record.batch_type.clone()),
        usage_type: Set(record.usage_type.clone()),
        usage_amount: Set(record.amount),
        month_year: Set(record.month.to_string()),
        accepted_at: Set(record.accepted_at),
        reported_at: Set(record.reported_at),
        created_at: Set(record.created_at),
    }
}

fn read(row: Model) -> Result<UsageRecord> {
    Ok(UsageRecord {
        month: word("usage_records.month_year", &row.month_year, Month::parse)?,
        id: row.id,
        user_id: row.user_id,
        batch_id: row.batch_id,
        batch_type: row.batch_type,
        usage_type: row.usage_type,
        amount: row.usage_amount,
        accepted_at: row.accepted_at,
        reported_at: row.reported_at,
        created_at: row.created_at,
    })
}
