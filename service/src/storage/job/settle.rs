//! How tries end: done, tried again later, given up, or handed back. Nothing is believed without the lease.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::{WriteTx, asked};
use super::{count_moves, tell, tell_jobs};
use crate::model::job::{EventStatus, Fate, Job, JobState, Kind, Outcome};
use crate::model::tally::Counter;
use crate::model::transition::{JobStep, Transition};
use crate::model::{Instant, Json, Result};

/// Errors remembered of one job.
const ERRORS_KEPT: usize = 10;
/// Rows one pass of trimming deletes at most, per state.
const TRIMMED: u64 = 1_000;

/// How many of the newest finished jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// `QUEUE_REMOVE_ON_COMPLETE`: done ones.
    pub done: u64,
    /// `QUEUE_REMOVE_ON_FAIL`: dead letters, and as many cancelled ones.
    pub failed: u64,
}

/// How one try ended, as its worker says.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The job, with the lease.
    pub job: Job,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
    /// When it is tried again, if it is.
    pub next: Instant,
}

/// What became of what a worker said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The job is in this state now.
    Now(JobState),
    /// The lease was over: another has the job, or nobody, or it is no more. Nothing was changed.
    Stale,
}

/// Ends tries, as a set.
pub async fn settle(tx: &mut WriteTx, settlements: &[&Settlement], keep: Keep, now: Instant) -> Result<Vec<Settled>> {
    let limited = settlements.iter().filter(|one| one.job.kind.rule().per_key.is_some());
    let freed: BTreeSet<(Kind, String)> = limited.map(|one| (one.job.kind, one.job.key.clone())).collect();
    let is_over = |one: &&&Settlement| matches!(fate(one), JobState::Done | JobState::Dead);
    let again = settlements.iter().filter(|one| !is_over(one)).map(|one| &one.job);
    // Before anything is written: who waits here has nothing yet that others could wait for.
    super::lock_keys(tx, &freed.iter().cloned().chain(super::unique_locks(again)).collect()).await?;
    let over: Vec<&Settlement> = settlements.iter().filter(is_over).copied().collect();
    let ended = end(tx, &over).await?;
    let over: Vec<&Settlement> = over.into_iter().filter(|one| ended.contains(&one.job.id)).collect();
    keep_finished(tx, &over, keep, now).await?;
    let mut standing: HashMap<Uuid, Settled> = over.iter().map(|one| (one.job.id, Settled::Now(fate(one)))).collect();
    for one in settlements.iter().filter(|one| !is_over(one)) {
        let settled = match &one.outcome {
            Outcome::Released => release(tx, &one.job).await?,
            outcome => retry(tx, one, error_of(outcome).unwrap_or_default(), now).await?,
        };
        standing.insert(one.job.id, settled);
    }
    settle_records(tx, settlements, &standing, now).await?;
    count_times(tx, settlements, &standing, now);
    super::free_held(tx, &freed).await?;
    Ok(settlements.iter().map(|one| standing.get(&one.job.id).copied().unwrap_or(Settled::Stale)).collect())
}

fn told(settlement: &Settlement) -> Transition {
    match error_of(&settlement.outcome) {
        Some(error) => Transition::failed(&settlement.job, JobStep::Dead, error),
        None => Transition::of(&settlement.job, JobStep::Done),
    }
}

/// The state an outcome leads to.
fn fate(settlement: &Settlement) -> JobState {
    match &settlement.outcome {
        Outcome::Done(_) => JobState::Done,
        Outcome::Dead { .. } => JobState::Dead,
        Outcome::Retry { .. } if settlement.job.is_last_try() => JobState::Dead,
        Outcome::Retry { .. } => JobState::Scheduled,
        Outcome::Released => JobState::Ready,
    }
}

pub(super) fn error_of(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Dead { error } => Some(error),
        Outcome::Done(_) | Outcome::Released => None,
    }
}

/// Each database is told to find a job by its id and nothing else: by the state, PostgreSQL would compare all that run
/// with all that end.
const END: [&str; 2] = [
    "DELETE FROM jobs WHERE (id, lease) IN (SELECT id, lease FROM ended) AND state = 'running' RETURNING id",
    "DELETE FROM jobs WHERE id = ANY (ARRAY(SELECT id FROM ended)) \
     AND CASE WHEN (id, lease) IN (SELECT id, lease FROM ended) THEN state = 'running' END RETURNING id",
];

/// Removes jobs whose lease still holds; answers with their ids.
async fn end(tx: &mut WriteTx, over: &[&Settlement]) -> Result<HashSet<Uuid>> {
    if over.is_empty() {
        return Ok(HashSet::new());
    }
    let mut rows = Rows::new(&["id", "lease"], over.len());
    for one in over {
        rows.uuid(one.job.id).bigint(one.job.lease);
    }
    let dialect = tx.dialect();
    let rows = asked(rows.query(tx.connection(), dialect, "ended", dialect.pick::<&str>(&END))).await?;
    rows.iter().map(|row| row.try_get("", "id").map_err(super::fault)).collect()
}

/// Keeps the newest of what ended, no more than will be kept anyway.
async fn keep_finished(tx: &mut WriteTx, over: &[&Settlement], keep: Keep, now: Instant) -> Result<()> {
    for (state, most) in [(JobState::Done, keep.done), (JobState::Dead, keep.failed)] {
        let ended: Vec<&&Settlement> = over.iter().filter(|one| fate(one) == state).collect();
        count_moves(tx, ended.iter().map(|one| one.job.kind), JobState::Running, state);
        tell(tx, || ended.iter().map(|one| told(one)).collect());
        let kept = &ended[ended.len().saturating_sub(most as usize)..];
        let finished = kept.iter().map(|one| Finished {
            job: &one.job,
            state,
            attempts: one.job.attempts + i32::from(state == JobState::Dead),
            error: error_of(&one.outcome),
            // To the microsecond, as the databases keep it.
            started_at: Some(now - Duration::from_micros(one.took.as_micros() as u64)),
        });
        insert_finished(tx, finished, now).await?;
    }
    Ok(())
}

/// A job that is over.
pub(super) struct Finished<'a> {
    /// As it was handed out.
    pub job: &'a Job,
    /// How it ended.
    pub state: JobState,
    /// Tries that failed.
    pub attempts: i32,
    /// What went wrong last.
    pub error: Option<&'a str>,
    /// When its last try began.
    pub started_at: Option<Instant>,
}

/// Writes rows of finished jobs. The columns that a worker is not handed are those a finished job has no use for.
pub(super) async fn insert_finished<'a>(
    tx: &mut WriteTx,
    finished: impl ExactSizeIterator<Item = Finished<'a>>,
    now: Instant,
) -> Result<()> {
    const COLUMNS: &[&str] = &[
        "id",
        "kind",
        "queue_key",
        "unique_key",
        "state",
        "priority",
        "payload",
        "event_id",
        "attempts",
        "max_retries",
        "rescues",
        "lease",
        "errors",
        "created_at",
        "started_at",
        "finished_at",
    ];
    if finished.len() == 0 {
        return Ok(());
    }
    let mut rows = Rows::new(COLUMNS, finished.len());
    for Finished { job, state, attempts, error, started_at } in finished {
        rows.uuid(job.id)
            .text(job.kind.as_str())
            .text(&job.key)
            .text_or_null(job.unique_key.clone())
            .text(state.as_str())
            .int(job.kind.rule().priority);
        rows.json(Some(job.payload.clone()))
            .uuid_or_null(job.event_id)
            .int(attempts)
            .int(job.max_retries)
            .int(job.rescues);
        rows.bigint(job.lease).json(with_error(job.errors.clone(), error, job, now)).time(job.created_at);
        rows.time(started_at).time(now);
    }
    let dialect = tx.dialect();
    asked(rows.insert(tx.connection(), dialect, "finished_jobs", "")).await
}

/// The history of a job's errors with one more, the newest last.
fn with_error(errors: Option<Json>, error: Option<&str>, job: &Job, now: Instant) -> Option<Json> {
    let Some(error) = error else { return errors };
    let mut list = match errors {
        Some(Json::Array(list)) => list,
        _ => Vec::new(),
    };
    list.push(serde_json::json!({ "at": now, "attempt": job.attempts + 1, "lease": job.lease, "error": error }));
    let surplus = list.len().saturating_sub(ERRORS_KEPT);
    list.drain(..surplus);
    Some(Json::Array(list))
}

/// Hands a job back as if it had not been claimed.
async fn release(tx: &mut WriteTx, job: &Job) -> Result<Settled> {
    if merge_into_waiting(tx, job).await? {
        return Ok(Settled::Now(JobState::Cancelled));
    }
    let release = tx.dialect().statement(
        "UPDATE jobs SET state = 'ready', worker_id = NULL, started_at = NULL \
         WHERE id = $1 AND lease = $2 AND state = 'running'",
        [job.id.into(), job.lease.into()],
    );
    if asked(tx.connection().execute_raw(release)).await?.rows_affected() == 0 {
        return Ok(Settled::Stale);
    }
    count_moves(tx, [job.kind], JobState::Running, JobState::Ready);
    tell_jobs(tx, [job], JobStep::Ready);
    tx.wake_workers();
    Ok(Settled::Now(JobState::Ready))
}

pub(super) async fn retry(tx: &mut WriteTx, settlement: &Settlement, error: &str, now: Instant) -> Result<Settled> {
    let job = &settlement.job;
    if merge_into_waiting(tx, job).await? {
        return Ok(Settled::Now(JobState::Cancelled));
    }
    let retry = tx.dialect().statement(
        "UPDATE jobs SET state = 'scheduled', run_at = $3, attempts = attempts + 1, errors = $4, worker_id = NULL, \
         started_at = NULL WHERE id = $1 AND lease = $2 AND state = 'running'",
        [
            job.id.into(),
            job.lease.into(),
            settlement.next.into(),
            with_error(job.errors.clone(), Some(error), job, now).into(),
        ],
    );
    if asked(tx.connection().execute_raw(retry)).await?.rows_affected() == 0 {
        return Ok(Settled::Stale);
    }
    count_moves(tx, [job.kind], JobState::Running, JobState::Scheduled);
    tell(tx, || vec![Transition::failed(job, JobStep::Scheduled, error)]);
    tx.wake_workers();
    Ok(Settled::Now(JobState::Scheduled))
}

/// A running job's unique key may have been taken by a newer one that waits: that one will do its work, so a job that
/// would have to wait again is over instead. Says whether it is.
pub(super) async fn merge_into_waiting(tx: &mut WriteTx, job: &Job) -> Result<bool> {
    if job.unique_key.is_none() {
        return Ok(false);
    }
    let merge = tx.dialect().statement(
        "DELETE FROM jobs WHERE id = $1 AND lease = $2 AND state = 'running' AND EXISTS (SELECT 1 FROM jobs AS newer \
         WHERE newer.kind = $3 AND newer.unique_key = $4 AND newer.state <> 'running') RETURNING id",
        [job.id.into(), job.lease.into(), job.kind.as_str().into(), job.unique_key.clone().into()],
    );
    let merged = asked(tx.connection().query_all_raw(merge)).await?;
    if merged.is_empty() {
        return Ok(false);
    }
    count_moves(tx, [job.kind], JobState::Running, JobState::Cancelled);
    tell_jobs(tx, [job], JobStep::Cancelled);
    Ok(true)
}

/// The records that stand and fall with their jobs.
async fn settle_records(
    tx: &mut WriteTx,
    settlements: &[&Settlement],
    standing: &HashMap<Uuid, Settled>,
    now: Instant,
) -> Result<()> {
    let fates: Vec<Fate> = settlements
        .iter()
        .filter_map(|one| {
            let status = match standing.get(&one.job.id)? {
                Settled::Now(JobState::Done) => EventStatus::Completed,
                Settled::Now(JobState::Dead) => EventStatus::Failed,
                Settled::Now(JobState::Scheduled) => EventStatus::Pending,
                _ => return None,
            };
            let response = match &one.outcome {
                Outcome::Done(response) => response.clone(),
                _ => None,
            };
            let error = error_of(&one.outcome).map(str::to_owned);
            // The retry that was the last is not another retry.
            let retries = one.job.attempts + i32::from(status == EventStatus::Pending);
            Some(Fate { id: one.job.event_id?, status, retries, response, error })
        })
        .collect();
    let companion = tx.companion();
    companion.settle(tx, &fates, now).await
}

/// Counts tries by class of duration: a class is a quarter of a doubling of microseconds.
fn count_times(tx: &mut WriteTx, settlements: &[&Settlement], standing: &HashMap<Uuid, Settled>, now: Instant) {
    let mut times: HashMap<(Kind, u32), (i64, i64)> = HashMap::new();
    for one in settlements {
        if !matches!(standing.get(&one.job.id), None | Some(Settled::Stale)) && one.outcome != Outcome::Released {
            let micros = one.took.as_micros().max(1) as u64;
            let sum = times.entry((one.job.kind, time_class(micros))).or_insert((0, 0));
            *sum = (sum.0 + 1, sum.1 + micros as i64);
        }
    }
    for ((kind, class), (count, micros)) in times {
        tx.tally(Counter::JOB_TIMES, &format!("{}.{class}", kind.as_str()), now, count, micros);
    }
}

fn time_class(micros: u64) -> u32 {
    (4.0 * (micros as f64).log2()).floor() as u32
}

/// Deletes finished jobs beyond those that are kept, oldest first; says how many.
pub async fn trim(tx: &mut WriteTx, keep: Keep) -> Result<u64> {
    let mut trimmed = 0;
    for (state, most) in
        [(JobState::Done, keep.done), (JobState::Dead, keep.failed), (JobState::Cancelled, keep.failed)]
    {
        let trim = tx.dialect().statement(
            format!(
                "DELETE FROM finished_jobs WHERE id IN (SELECT id FROM finished_jobs WHERE state = '{}' \
                 ORDER BY finished_at DESC, id DESC LIMIT {TRIMMED} OFFSET $1)",
                state.as_str()
            ),
            [(most as i64).into()],
        );
        trimmed += asked(tx.connection().execute_raw(trim)).await?.rows_affected();
    }
    Ok(trimmed)
}
