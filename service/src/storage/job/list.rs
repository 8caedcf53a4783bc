//! Jobs as administrators look at them.

use sea_orm::{ConnectionTrait, QueryResult, Value};
use uuid::Uuid;

use super::super::dialect::Dialect;
use super::super::{WriteTx, asked};
use super::{JOB, read_job, read_kinds};
use crate::model::job::{JobFilter, JobState, JobView, Kind, Kinds};
use crate::model::{Error, Instant, Result};

/// A page of jobs, newest first.
pub async fn list<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kinds: Kinds,
    filter: &JobFilter,
    most: u64,
) -> Result<Vec<JobView>> {
    let mut filters = vec!["1 = 1".to_owned()];
    let mut values: Vec<Value> = vec![(most as i64).into()];
    for (test, value) in [
        ("state =", filter.state.map(|state| Value::from(state.as_str()))),
        ("kind =", filter.kind.map(|kind| Value::from(kind.as_str()))),
        ("queue_key =", filter.key.clone().map(Value::from)),
        ("id <", filter.before.map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            filters.push(format!("{test} ${}", values.len()));
        }
    }
    let filters = filters.join(" AND ");
    let waiting = format!(
        "SELECT {JOB}, state, priority, run_at, started_at, NULL AS finished_at, worker_id FROM jobs WHERE {filters} \
         ORDER BY id DESC LIMIT $1"
    );
    let over = format!(
        "SELECT {JOB}, state, priority, NULL AS run_at, started_at, finished_at, NULL AS worker_id \
         FROM finished_jobs WHERE {filters} ORDER BY id DESC LIMIT $1"
    );
    let tables = match filter.state {
        Some(state) if state.is_over() => vec![over],
        Some(_) => vec![waiting],
        None => vec![waiting, over],
    };
    let mut found = Vec::new();
    for sql in tables {
        let rows = asked(connection.query_all_raw(dialect.statement(sql, values.clone()))).await?;
        found.extend(rows.iter().map(|row| read_view(row, kinds)).collect::<Result<Vec<JobView>>>()?);
    }
    // One that ended between the two statements is in both; what came last is so.
    found.reverse();
    found.sort_by_key(|view| std::cmp::Reverse(view.job.id));
    found.dedup_by_key(|view| view.job.id);
    found.truncate(most as usize);
    Ok(found)
}

/// The job of that id, whether it is over or not.
pub async fn find<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kinds: Kinds,
    id: Uuid,
) -> Result<Option<JobView>> {
    for sql in [
        format!(
            "SELECT {JOB}, state, priority, run_at, started_at, NULL AS finished_at, worker_id FROM jobs WHERE id = $1"
        ),
        format!(
            "SELECT {JOB}, state, priority, NULL AS run_at, started_at, finished_at, NULL AS worker_id \
             FROM finished_jobs WHERE id = $1"
        ),
    ] {
        if let Some(row) = asked(connection.query_one_raw(dialect.statement(sql, [id.into()]))).await? {
            return read_view(&row, kinds).map(Some);
        }
    }
    Ok(None)
}

/// When the oldest ready job of any kind was asked for.
pub async fn oldest_ready<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kinds: Kinds,
) -> Result<Option<Instant>> {
    // The first in turn of each kind stands for its oldest: no walk over what waits.
    let branch = |kind: &Kind| {
        let kind = kind.as_str();
        format!(
            "SELECT * FROM (SELECT created_at FROM jobs WHERE state = 'ready' AND kind = '{kind}' \
             ORDER BY priority, turn, id LIMIT 1) AS {kind}_jobs"
        )
    };
    let branches = kinds.iter().map(branch).collect::<Vec<_>>().join(" UNION ALL ");
    let sql = format!("SELECT created_at FROM ({branches}) AS first_jobs ORDER BY created_at LIMIT 1");
    let row = asked(connection.query_one_raw(dialect.statement(sql, []))).await?;
    row.map(|row| row.try_get("", "created_at").map_err(super::fault)).transpose()
}

/// How many dead letters are kept, counted up to `most`; no more than QUEUE_REMOVE_ON_FAIL are for long.
pub async fn count_dead<C: ConnectionTrait>(connection: &C, dialect: Dialect, most: u64) -> Result<i64> {
    let query = dialect.statement(
        "SELECT COUNT(*) AS count FROM (SELECT 1 FROM finished_jobs WHERE state = 'dead' LIMIT $1) AS dead_letters",
        [(most as i64).into()],
    );
    let row = asked(connection.query_one_raw(query)).await?;
    row.map_or(Ok(0), |row| row.try_get("", "count").map_err(super::fault))
}

/// How many dead letters of each kind are kept.
pub async fn dead_by_kind<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kinds: Kinds,
) -> Result<Vec<(Kind, i64)>> {
    let sql = "SELECT kind, COUNT(*) AS count FROM finished_jobs WHERE state = 'dead' GROUP BY kind";
    let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
    let counts = rows.iter().map(|row| row.try_get("", "count").map_err(super::fault));
    read_kinds(&rows, kinds)?.into_iter().zip(counts).map(|(kind, count)| Ok((kind, count?))).collect()
}

/// The turn each kind has come to, as its jobs show: that of its first ready job, or the last of those that run, which
/// were claimed by any hub.
pub(in crate::storage) async fn turns_reached<C: ConnectionTrait>(
    connection: &C,
    dialect: Dialect,
    kinds: Kinds,
) -> Result<Vec<(Kind, i64)>> {
    let first = |kind: &Kind| {
        let kind = kind.as_str();
        format!(
            "SELECT * FROM (SELECT kind, turn FROM jobs WHERE state = 'ready' AND kind = '{kind}' \
             ORDER BY priority, turn, id LIMIT 1) AS {kind}_jobs"
        )
    };
    let first = kinds.iter().map(first).collect::<Vec<_>>().join(" UNION ALL ");
    let sql =
        format!("SELECT kind, MAX(turn) AS turn FROM jobs WHERE state = 'running' GROUP BY kind UNION ALL {first}");
    let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
    let turns = rows.iter().map(|row| row.try_get("", "turn").map_err(super::fault));
    read_kinds(&rows, kinds)?.into_iter().zip(turns).map(|(kind, turn)| Ok((kind, turn?))).collect()
}

/// Forgets every job and what was counted of them: for benchmarks and drills, which begin with nothing.
pub async fn clear(tx: &mut WriteTx) -> Result<()> {
    for sql in
        ["DELETE FROM jobs", "DELETE FROM finished_jobs", "DELETE FROM tallies WHERE metric IN ('jobs', 'job_times')"]
    {
        let clear = tx.dialect().statement(sql, []);
        asked(tx.connection().execute_raw(clear)).await?;
    }
    Ok(())
}

/// How many jobs really are in each state of each kind, by counting rows: for checks, never for a request.
pub async fn count_waiting<C: ConnectionTrait>(connection: &C, dialect: Dialect) -> Result<Vec<(String, i64)>> {
    let sql = "SELECT kind || '.' || state AS label, COUNT(*) AS count FROM jobs GROUP BY kind, state ORDER BY 1";
    let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
    rows.iter()
        .map(|row| {
            let label = row.try_get("", "label").map_err(super::fault)?;
            Ok((label, row.try_get("", "count").map_err(super::fault)?))
        })
        .collect()
}

fn read_view(row: &QueryResult, kinds: Kinds) -> Result<JobView> {
    let job = read_job(row, kinds)?;
    let state: String = row.try_get("", "state").map_err(super::fault)?;
    let state =
        JobState::parse(&state).ok_or_else(|| Error::internal(format!("a job in the unknown state {state:?}")))?;
    let read = || {
        Ok(JobView {
            job,
            state,
            priority: row.try_get("", "priority")?,
            run_at: row.try_get("", "run_at")?,
            started_at: row.try_get("", "started_at")?,
            finished_at: row.try_get("", "finished_at")?,
            worker_id: row.try_get("", "worker_id")?,
        })
    };
    read().map_err(super::fault)
}
