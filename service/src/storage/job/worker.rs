//! Workers as the database knows them, and whose slot it is.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use uuid::Uuid;

use super::super::dialect::Dialect;
use super::super::{WriteTx, asked};
use crate::model::Result;
use crate::model::queue::Worker;

/// How long a worker that is not heard of stays on the list, for people to see.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Makes a worker known. `alone` is true where no other worker can be alive: whoever is listed is gone.
pub async fn sign_on(tx: &mut WriteTx, id: Uuid, name: &str, alone: bool) -> Result<()> {
    let dialect = tx.dialect();
    let gone = match alone {
        true => "DELETE FROM workers".to_owned(),
        false => format!("DELETE FROM workers WHERE beat_at < {}", dialect.ago(REMEMBERED)),
    };
    asked(tx.connection().execute_raw(dialect.statement(gone, []))).await?;
    let insert = dialect.statement(
        format!(
            "INSERT INTO workers (id, name, started_at, beat_at) VALUES ($1, $2, {now}, {now})",
            now = dialect.now()
        ),
        [id.into(), name.into()],
    );
    asked(tx.connection().execute_raw(insert)).await.map(drop)
}

/// Says that a worker lives; false when it was taken for dead and is no longer listed.
pub async fn beat(tx: &mut WriteTx, id: Uuid) -> Result<bool> {
    let dialect = tx.dialect();
    let beat = dialect.statement(format!("UPDATE workers SET beat_at = {} WHERE id = $1", dialect.now()), [id.into()]);
    Ok(asked(tx.connection().execute_raw(beat)).await?.rows_affected() == 1)
}

/// Takes a worker off the list: what it still holds can be claimed at once.
pub async fn leave(tx: &mut WriteTx, id: Uuid) -> Result<()> {
    let leave = tx.dialect().statement("DELETE FROM workers WHERE id = $1", [id.into()]);
    asked(tx.connection().execute_raw(leave)).await.map(drop)
}

/// The jobs that a worker has on lease, with their leases.
pub async fn leases<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    worker_id: Uuid,
) -> Result<HashMap<Uuid, i64>> {
    let sql = "SELECT id, lease FROM jobs WHERE state = 'running' AND worker_id = $1";
    let rows = asked(connection.query_all_raw(dialect.statement(sql, [worker_id.into()]))).await?;
    let read = |row: &QueryResult| Ok((row.try_get("", "id")?, row.try_get("", "lease")?));
    rows.iter().map(|row| read(row).map_err(super::fault)).collect()
}

/// The workers, newest first, with how many jobs each has.
pub async fn workers<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Vec<Worker>> {
    let sql = format!(
        "SELECT workers.id, name, workers.started_at, beat_at, {age} AS silent_ms, COALESCE(active, 0) AS active \
         FROM workers LEFT JOIN (SELECT worker_id, COUNT(*) AS active FROM jobs WHERE state = 'running' \
         GROUP BY worker_id) AS leases ON leases.worker_id = workers.id ORDER BY workers.started_at DESC, workers.id",
        age = dialect.millis_since("beat_at")
    );
    let read = |row: &QueryResult| -> Result<Worker, DbErr> {
        Ok(Worker {
            id: row.try_get("", "id")?,
            name: row.try_get("", "name")?,
            started_at: row.try_get("", "started_at")?,
            beat_at: row.try_get("", "beat_at")?,
            silent: Duration::from_millis(row.try_get::<i64>("", "silent_ms")?.max(0) as u64),
            active: row.try_get("", "active")?,
        })
    };
    let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
    rows.iter().map(|row| read(row).map_err(super::fault)).collect()
}

/// Takes a slot of something that is done at intervals; true for the one hub that takes it first.
pub async fn take_slot(tx: &mut WriteTx, name: &str, slot: i64) -> Result<bool> {
    let take = tx.dialect().statement(
        "INSERT INTO schedules (name, slot) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET slot = excluded.slot WHERE schedules.slot < excluded.slot",
        [name.into(), slot.into()],
    );
    Ok(asked(tx.connection().execute_raw(take)).await?.rows_affected() == 1)
}

/// Whether a slot of something was ever taken.
pub async fn was_scheduled(tx: &WriteTx, name: &str) -> Result<bool> {
    let query = tx.dialect().statement("SELECT 1 FROM schedules WHERE name = $1", [name.into()]);
    Ok(asked(tx.reader().query_one_raw(query)).await?.is_some())
}
