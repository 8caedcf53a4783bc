//! Rescue: the jobs of workers that are gone become claimable again, and poison is set aside.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::super::rows::Rows;
use super::super::sync_event::{self, Fate};
use super::super::{WriteTx, asked};
use super::claim::{key_rows, lock_keys};
use super::settle::{Finished, insert_finished, merge_into_waiting};
use super::{JOB, MOVED, count_moves, read_job, read_kinds, tell, tell_jobs, tell_moved};
use crate::model::event::EventStatus;
use crate::model::job::{Job, JobKind, JobState};
use crate::model::transition::{JobStep, Transition};
use crate::model::{Instant, Result};

/// Jobs one call rescues at most: a bounded transaction, and the next call takes the rest.
const RESCUED: i64 = 1_000;
/// Rescues of one job before it is set aside: whatever it does, it does not survive it.
const MOST_RESCUES: i32 = 3;

/// What a rescue found.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Jobs that can be claimed again.
    pub ready: u64,
    /// Jobs that were given up because they took their workers with them once too often.
    pub dead: Vec<Job>,
    /// Jobs a newer one of their unique key stands for.
    pub merged: u64,
}

impl Rescued {
    /// Jobs that were looked at.
    pub fn total(&self) -> u64 {
        self.ready + self.merged + self.dead.len() as u64
    }
}

/// Takes the leases of workers that have not been heard of for `silence`, and of those that have signed off.
///
/// The database's clock decides, not a hub's. A worker that is late all the same loses nothing but its try: what it
/// says about a job it no longer holds is not believed.
pub async fn rescue(tx: &mut WriteTx, silence: Duration, now: Instant) -> Result<Rescued> {
    let dialect = tx.dialect();
    let orphans = dialect.statement(
        format!(
            "SELECT {JOB} FROM jobs WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM workers \
             WHERE workers.id = jobs.worker_id AND workers.beat_at > {since}) LIMIT {RESCUED} {skip}",
            since = dialect.ago(silence),
            skip = dialect.skip_locked()
        ),
        [],
    );
    let rows = asked(tx.connection().query_all_raw(orphans)).await?;
    let orphans = rows.iter().map(read_job).collect::<Result<Vec<Job>>>()?;
    let mut rescued = Rescued::default();
    let mut again = Vec::with_capacity(orphans.len());
    let mut keys: HashSet<(JobKind, String)> = HashSet::new();
    let mut freed = BTreeSet::new();
    for job in orphans {
        if job.rescues >= MOST_RESCUES {
            freed.insert((job.kind, job.key.clone()));
            rescued.dead.push(job);
        } else if merge_into_waiting(tx, &job).await? {
            freed.insert((job.kind, job.key.clone()));
            rescued.merged += 1;
        } else if job.unique_key.clone().is_none_or(|key| keys.insert((job.kind, key))) {
            again.push(job);
        }
        // Of two that ran under one unique key, the second is left to the next call, which merges it into the first.
    }
    rescued.ready = make_ready(tx, &again).await?;
    set_aside(tx, &rescued.dead, now).await?;
    if rescued.ready > 0 {
        tx.wake_workers();
    }
    free_held(tx, &freed).await?;
    Ok(rescued)
}

async fn make_ready(tx: &mut WriteTx, jobs: &[Job]) -> Result<u64> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let mut rows = Rows::new(&["id", "lease"], jobs.len());
    for job in jobs {
        rows.uuid(job.id).bigint(job.lease);
    }
    let dialect = tx.dialect();
    let changes = "state = 'ready', worker_id = NULL, started_at = NULL, rescues = jobs.rescues + 1";
    let ready = dialect.update_each("jobs", changes, "orphan", ("state", JobState::Running.as_str()));
    let ready = format!("{ready} AND jobs.lease = orphan.lease RETURNING jobs.kind");
    let rows = asked(rows.query(tx.connection(), dialect, "orphan", &ready)).await?;
    count_moves(tx, read_kinds(&rows)?, JobState::Running, JobState::Ready);
    tell_jobs(tx, jobs, JobStep::Ready);
    Ok(rows.len() as u64)
}

async fn set_aside(tx: &mut WriteTx, dead: &[Job], now: Instant) -> Result<()> {
    for job in dead {
        let delete = tx.dialect().statement("DELETE FROM jobs WHERE id = $1", [job.id.into()]);
        asked(tx.connection().execute_raw(delete)).await?;
    }
    count_moves(tx, dead.iter().map(|job| job.kind), JobState::Running, JobState::Dead);
    let why = "given up: its workers died under it too often";
    let finished =
        |job| Finished { job, state: JobState::Dead, attempts: job.attempts, error: Some(why), started_at: None };
    insert_finished(tx, dead.iter().map(finished), now).await?;
    let told = |job| Transition { error: Some(why.to_owned()), ..Transition::of(job, JobStep::Dead) };
    tell(tx, || dead.iter().map(told).collect());
    fail_events(tx, dead, why, now).await
}

/// Fails the events of jobs that are over without their worker's word.
pub(super) async fn fail_events(tx: &mut WriteTx, jobs: &[Job], why: &str, now: Instant) -> Result<()> {
    let fate = |job: &Job| {
        let (status, error) = (EventStatus::Failed, Some(why.to_owned()));
        Some(Fate { id: job.event_id?, status, retries: job.attempts, response: None, error })
    };
    let fates: Vec<Fate> = jobs.iter().filter_map(fate).collect();
    sync_event::settle(tx, &fates, now).await
}

/// Makes one held job ready for each of these keys, whose running job just ended.
///
/// Under the lock a claim takes: a claim that found the key busy, and so held a job, is over and its job is freed here;
/// a claim that comes later finds the key free.
pub async fn free_held(tx: &mut WriteTx, keys: &BTreeSet<(JobKind, String)>) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    lock_keys(tx, keys).await?;
    let free = format!(
        "UPDATE jobs SET state = 'ready' WHERE state = 'held' AND id IN (SELECT (SELECT id FROM jobs AS waiting \
         WHERE waiting.state = 'held' AND waiting.kind = freed.kind AND waiting.queue_key = freed.queue_key \
         ORDER BY waiting.priority, waiting.turn LIMIT 1) FROM freed) RETURNING {MOVED}"
    );
    let dialect = tx.dialect();
    let rows = asked(key_rows(keys).query(tx.connection(), dialect, "freed", &free)).await?;
    if !rows.is_empty() {
        count_moves(tx, read_kinds(&rows)?, JobState::Held, JobState::Ready);
        tell_moved(tx, &rows, JobStep::Ready)?;
        tx.wake_workers();
    }
    Ok(())
}
