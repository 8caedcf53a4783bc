//! What administrators do to jobs: cancel, try at once, pause, and drive dead letters again.

use std::collections::BTreeSet;

use sea_orm::{ConnectionTrait, Value};
use uuid::Uuid;

use super::super::{WriteTx, asked};
use super::claim::read_key;
use super::rescue::fail_records;
use super::settle::{Finished, insert_finished};
use super::{JOB, MOVED, count_moves, free_held, lock_keys, read_job, read_jobs, read_kinds, tell_jobs, tell_moved};
use crate::model::job::{Job, JobState, Kind, Kinds, NewJob, Redrive};
use crate::model::transition::JobStep;
use crate::model::{Instant, Result};

/// Calls a job off, whatever its state; a worker that has it finds its lease over. `None` when it is no more.
pub async fn cancel(tx: &mut WriteTx, id: Uuid, now: Instant) -> Result<Option<Job>> {
    let find = tx.dialect().statement("SELECT kind, queue_key FROM jobs WHERE id = $1", [id.into()]);
    let Some(row) = asked(tx.reader().query_one_raw(find)).await? else { return Ok(None) };
    let key = BTreeSet::from_iter(
        [read_key(&row, tx.kinds())?].into_iter().filter(|(kind, _)| kind.rule().per_key.is_some()),
    );
    lock_keys(tx, &key).await?;
    let delete = tx
        .dialect()
        .statement(format!("DELETE FROM jobs WHERE id = $1 RETURNING state, started_at, {JOB}"), [id.into()]);
    let Some(row) = asked(tx.connection().query_one_raw(delete)).await? else { return Ok(None) };
    let state: String = row.try_get("", "state").map_err(super::fault)?;
    let job = read_job(&row, tx.kinds())?;
    let state = JobState::parse(&state).unwrap_or(JobState::Ready);
    count_moves(tx, [job.kind], state, JobState::Cancelled);
    let started_at = row.try_get("", "started_at").map_err(super::fault)?;
    let finished = Finished { job: &job, state: JobState::Cancelled, attempts: job.attempts, error: None, started_at };
    insert_finished(tx, [finished].into_iter(), now).await?;
    fail_records(tx, std::slice::from_ref(&job), "called off by an administrator", now).await?;
    tell_jobs(tx, [&job], JobStep::Cancelled);
    if state == JobState::Running {
        tx.stop_handler(job.id);
    }
    free_held(tx, &key).await?;
    Ok(Some(job))
}

/// Makes a scheduled job ready now; false when it is not scheduled.
pub async fn retry_now(tx: &mut WriteTx, id: Uuid, now: Instant) -> Result<bool> {
    let retry = tx.dialect().statement(
        format!("UPDATE jobs SET state = 'ready', run_at = $2 WHERE id = $1 AND state = 'scheduled' RETURNING {MOVED}"),
        [id.into(), now.into()],
    );
    let rows = asked(tx.connection().query_all_raw(retry)).await?;
    count_moves(tx, read_kinds(&rows, tx.kinds())?, JobState::Scheduled, JobState::Ready);
    tell_moved(tx, &rows, JobStep::Ready)?;
    tx.wake_workers();
    Ok(!rows.is_empty())
}

/// Stops claims of a kind; what runs is finished.
pub async fn pause(tx: &mut WriteTx, kind: impl Into<Kind>, now: Instant) -> Result<bool> {
    let kind = kind.into();
    let pause = tx.dialect().statement(
        "INSERT INTO paused_kinds (kind, paused_at) VALUES ($1, $2) ON CONFLICT (kind) DO NOTHING",
        [kind.as_str().into(), now.into()],
    );
    Ok(asked(tx.connection().execute_raw(pause)).await?.rows_affected() == 1)
}

/// Lets claims of a kind go on.
pub async fn resume(tx: &mut WriteTx, kind: impl Into<Kind>) -> Result<bool> {
    let kind = kind.into();
    let resume = tx.dialect().statement("DELETE FROM paused_kinds WHERE kind = $1", [kind.as_str().into()]);
    let resumed = asked(tx.connection().execute_raw(resume)).await?.rows_affected() == 1;
    tx.wake_workers();
    Ok(resumed)
}

/// The kinds that are paused, and since when.
pub async fn paused<C: ConnectionTrait>(
    connection: &C,
    dialect: super::super::dialect::Dialect,
    kinds: Kinds,
) -> Result<Vec<(Kind, Instant)>> {
    let query = dialect.statement("SELECT kind, paused_at FROM paused_kinds ORDER BY kind", []);
    let rows = asked(connection.query_all_raw(query)).await?;
    let kinds = read_kinds(&rows, kinds)?;
    let times = rows.iter().map(|row| row.try_get("", "paused_at").map_err(super::fault));
    kinds.into_iter().zip(times).map(|(kind, at)| Ok((kind, at?))).collect()
}

/// Takes dead letters out and enqueues them anew, with all their tries, `spread` apart; their records are pending
/// again. Answers with the letters, each with the id it is tried under: a new one, because a worker that had the old
/// one may still come back with a lease of it.
pub async fn redrive(
    tx: &mut WriteTx,
    which: &Redrive,
    spread: std::time::Duration,
    now: Instant,
) -> Result<Vec<(Job, Uuid)>> {
    let mut filters = vec!["state = 'dead'".to_owned()];
    let mut values: Vec<Value> = vec![(which.most as i64).into()];
    for (column, value) in [
        ("id", which.id.map(Value::from)),
        ("kind", which.kind.map(|kind| Value::from(kind.as_str()))),
        ("queue_key", which.key.clone().map(Value::from)),
    ] {
        if let Some(value) = value {
            values.push(value);
            filters.push(format!("{column} = ${}", values.len()));
        }
    }
    let dialect = tx.dialect();
    let take = dialect.statement(
        // Without a fence the planner may run the subquery again for each row it deletes, and so delete more than that.
        format!(
            "WITH oldest AS MATERIALIZED (SELECT id FROM finished_jobs WHERE {} ORDER BY state, finished_at, id \
             LIMIT $1 {}) DELETE FROM finished_jobs WHERE id IN (SELECT id FROM oldest) RETURNING {JOB}",
            filters.join(" AND "),
            dialect.skip_locked()
        ),
        values,
    );
    let rows = asked(tx.connection().query_all_raw(take)).await?;
    let mut jobs = read_jobs(&rows, tx.kinds())?;
    jobs.sort_by_key(|job| job.id);
    let records: Vec<Uuid> = jobs.iter().filter_map(|job| job.event_id).collect();
    let companion = tx.companion();
    companion.reopen(tx, &records, now).await?;
    let mut redriven = Vec::with_capacity(jobs.len());
    for (place, job) in jobs.into_iter().enumerate() {
        let wait = spread * place as u32;
        let again = NewJob {
            unique_key: job.unique_key.clone(),
            run_at: (!wait.is_zero()).then(|| now + wait),
            event_id: job.event_id,
            max_retries: Some(job.max_retries),
            ..NewJob::new(job.kind, job.key.clone(), job.payload.clone(), now)
        };
        redriven.push((job, again.id));
        tx.enqueue(again);
    }
    Ok(redriven)
}
