//! Workers as the database knows them, and whose slot it is.

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::super::{WriteTx, asked};
use crate::model::Result;

/// Makes a worker known. `alone` is true where no other worker can be alive: whoever is listed is gone.
pub async fn sign_on(tx: &mut WriteTx, id: Uuid, name: &str, alone: bool) -> Result<()> {
    let dialect = tx.dialect();
    if alone {
        asked(tx.connection().execute_raw(dialect.statement("DELETE FROM workers", []))).await?;
    }
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

/// Takes a slot of something that is done at intervals; true for the one hub that takes it first.
pub async fn take_slot(tx: &mut WriteTx, name: &str, slot: i64) -> Result<bool> {
    let take = tx.dialect().statement(
        "INSERT INTO schedules (name, slot) VALUES ($1, $2) \
         ON CONFLICT (name) DO UPDATE SET slot = excluded.slot WHERE schedules.slot < excluded.slot",
        [name.into(), slot.into()],
    );
    Ok(asked(tx.connection().execute_raw(take)).await?.rows_affected() == 1)
}
