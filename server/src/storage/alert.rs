//! Alerts: one open row per code, and the closed ones as history.

use sea_orm::{ConnectionTrait, DbErr, QueryResult, Value};
use uuid::Uuid;

use super::dialect::Dialect;
use super::rows::Rows;
use super::{WriteTx, asked, fault};
use crate::model::alert::Alert;
use crate::model::page::Page;
use crate::model::{Instant, Result};

const ALERT: &str = "id, code, severity, source, message, details, opened_at, cleared_at, updated_at";
/// Open alerts read at most; there is one per code.
const OPEN: i64 = 1_000;

/// The alerts that are open, the oldest first.
pub async fn open<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Vec<Alert>> {
    let sql = format!("SELECT {ALERT} FROM alerts WHERE cleared_at IS NULL ORDER BY opened_at, id LIMIT $1");
    all(connection, dialect, sql, [OPEN.into()]).await
}

/// A page of alerts, newest first, with one more than asked for when there are more.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    only_open: bool,
    page: &Page,
) -> Result<Vec<Alert>> {
    let mut values: Vec<Value> = vec![(i64::from(page.size) + 1).into()];
    let mut filter = if only_open { "cleared_at IS NULL".to_owned() } else { "1 = 1".to_owned() };
    if let Some(after) = &page.after {
        values.push(after.id.into());
        filter += " AND id < $2";
    }
    let sql = format!("SELECT {ALERT} FROM alerts WHERE {filter} ORDER BY id DESC LIMIT $1");
    all(connection, dialect, sql, values).await
}

/// Alerts that changed at `since` or later: the newest of them, no more than `most`, oldest first.
pub async fn changed<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    since: Instant,
    most: u64,
) -> Result<Vec<Alert>> {
    let sql = format!("SELECT {ALERT} FROM alerts WHERE updated_at >= $1 ORDER BY updated_at DESC, id DESC LIMIT $2");
    let mut alerts = all(connection, dialect, sql, [since.into(), (most as i64).into()]).await?;
    alerts.reverse();
    Ok(alerts)
}

/// Holds the alerts of these codes until the transaction ends, whether they are open or not, where other hubs could be
/// opening and clearing the same. In one order, so that two hubs never wait for each other.
pub async fn hold(tx: &mut WriteTx, codes: &[&str]) -> Result<()> {
    let dialect = tx.dialect();
    let Some(lock) = dialect.lock_keys() else { return Ok(()) };
    let mut wanted = Rows::new(&["kind", "queue_key"], codes.len());
    for code in codes {
        wanted.text("alert").text(*code);
    }
    // Whoever has these does not wait for keys of jobs.
    tx.take_keys();
    asked(wanted.query(tx.connection(), dialect, "wanted", &lock)).await.map(drop)
}

/// Opens an alert, unless one of its code is open; says whether it did.
pub async fn insert(tx: &mut WriteTx, alert: &Alert) -> Result<bool> {
    let insert = tx.dialect().statement(
        "INSERT INTO alerts (id, code, severity, source, message, details, opened_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (code) WHERE cleared_at IS NULL DO NOTHING",
        [
            alert.id.into(),
            alert.code.clone().into(),
            alert.severity.clone().into(),
            alert.source.clone().into(),
            alert.message.clone().into(),
            alert.details.clone().into(),
            alert.opened_at.into(),
            alert.updated_at.into(),
        ],
    );
    let inserted = asked(tx.connection().execute_raw(insert)).await?.rows_affected() == 1;
    tx.changed();
    Ok(inserted)
}

/// Clears the open alert of a code; answers with it, when there was one.
pub async fn clear(tx: &mut WriteTx, code: &str, cleared_at: Instant, now: Instant) -> Result<Option<Alert>> {
    let clear = tx.dialect().statement(
        format!(
            "UPDATE alerts SET cleared_at = $2, updated_at = $3 WHERE code = $1 AND cleared_at IS NULL RETURNING {ALERT}"
        ),
        [code.into(), cleared_at.into(), now.into()],
    );
    let row = asked(tx.connection().query_one_raw(clear)).await?;
    tx.changed();
    row.as_ref().map(|row| read(row).map_err(fault)).transpose()
}

/// Whether the history has an alert of this code for some of the time between two instants; several hubs see the same
/// trouble, and it is one.
pub async fn overlaps(tx: &WriteTx, code: &str, from: Instant, to: Instant) -> Result<bool> {
    let query = tx.dialect().statement(
        "SELECT id FROM alerts WHERE code = $1 AND opened_at <= $3 AND (cleared_at IS NULL OR cleared_at >= $2) LIMIT 1",
        [code.into(), from.into(), to.into()],
    );
    Ok(asked(tx.reader().query_one_raw(query)).await?.is_some())
}

async fn all<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    sql: String,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<Alert>> {
    let rows = asked(connection.query_all_raw(dialect.statement(sql, values))).await?;
    rows.iter().map(|row| read(row).map_err(fault)).collect()
}

fn read(row: &QueryResult) -> Result<Alert, DbErr> {
    Ok(Alert {
        id: row.try_get::<Uuid>("", "id")?,
        code: row.try_get("", "code")?,
        severity: row.try_get("", "severity")?,
        source: row.try_get("", "source")?,
        message: row.try_get("", "message")?,
        details: row.try_get("", "details")?,
        opened_at: row.try_get("", "opened_at")?,
        cleared_at: row.try_get("", "cleared_at")?,
        updated_at: row.try_get("", "updated_at")?,
    })
}
