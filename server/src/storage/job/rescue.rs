//! Rescue: the jobs of workers that are gone become claimable again, and poison is set aside.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::sync_event::{self, Fate};
use super::super::{WriteTx, asked};
use super::claim::{key_rows, lock_keys};
use super::settle::{Finished, Settled, Settlement, error_of, insert_finished, merge_into_waiting, retry};
use super::{JOB, MOVED, count_moves, read_job, read_kinds, tell, tell_jobs, tell_moved};
use crate::model::event::EventStatus;
use crate::model::job::{Job, JobKind, JobState};
use crate::model::transition::{JobStep, Transition};
use crate::model::{Instant, Result};

/// Jobs one call rescues at most: a bounded transaction, and the next call takes the rest.
const RESCUED: i64 = 1_000;
/// Rescues of one job before it is set aside: whatever it does, it does not survive it.
const MOST_RESCUES: i32 = 3;

/// Whose jobs nobody works on.
#[derive(Clone, Debug)]
pub enum Orphans {
    /// Those of workers that have not been heard of for so long, and of those that have signed off. The database's
    /// clock decides, not a hub's. A worker that is late all the same loses nothing but its try: what it says about a
    /// job it no longer holds is not believed.
    OfTheDead {
        /// How long a worker may be silent.
        silence: Duration,
    },
    /// Those of a living worker that has lost sight of them.
    Forgotten {
        /// The worker.
        worker_id: Uuid,
        /// The jobs, with their leases.
        leases: Vec<(Uuid, i64)>,
    },
}

/// What a rescue found.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Jobs that can be claimed again.
    pub ready: u64,
    /// Jobs a newer one of their unique key stands for.
    pub merged: u64,
    /// Jobs that took their workers with them once too often. They are left as they are, for [`set_aside`].
    pub poison: Vec<Job>,
}

/// Ends the leases of jobs that nobody works on.
pub async fn rescue(tx: &mut WriteTx, orphans: &Orphans) -> Result<Rescued> {
    let orphans = find_orphans(tx, orphans).await?;
    let mut rescued = Rescued::default();
    let mut again = Vec::with_capacity(orphans.len());
    let mut keys: HashSet<(JobKind, String)> = HashSet::new();
    let mut freed = BTreeSet::new();
    for job in orphans {
        if job.rescues >= MOST_RESCUES {
            rescued.poison.push(job);
        } else if merge_into_waiting(tx, &job).await? {
            freed.insert((job.kind, job.key.clone()));
            rescued.merged += 1;
        } else if job.unique_key.clone().is_none_or(|key| keys.insert((job.kind, key))) {
            again.push(job);
        }
        // Of two that ran under one unique key, the second is left to the next call, which merges it into the first.
    }
    rescued.ready = make_ready(tx, &again).await?;
    if rescued.ready > 0 {
        tx.wake_workers();
    }
    free_held(tx, &freed).await?;
    Ok(rescued)
}

async fn find_orphans(tx: &mut WriteTx, orphans: &Orphans) -> Result<Vec<Job>> {
    let dialect = tx.dialect();
    let skip = dialect.skip_locked();
    let rows = match orphans {
        Orphans::OfTheDead { silence } => {
            // What is poison is left where it is, so it comes last: it must not stand in the way of the others.
            let sql = format!(
                "SELECT {JOB} FROM jobs WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM workers \
                 WHERE workers.id = jobs.worker_id AND workers.beat_at > {since}) ORDER BY rescues LIMIT {RESCUED} {skip}",
                since = dialect.ago(*silence),
            );
            asked(tx.connection().query_all_raw(dialect.statement(sql, []))).await?
        }
        Orphans::Forgotten { worker_id, leases } => {
            let mut rows = Rows::new(&["id", "lease", "worker_id"], leases.len());
            for (id, lease) in leases {
                rows.uuid(*id).bigint(*lease).uuid(*worker_id);
            }
            let sql = format!(
                "SELECT {JOB} FROM jobs WHERE (id, lease, worker_id) IN (SELECT id, lease, worker_id FROM mine) \
                 AND state = 'running' {skip}"
            );
            asked(rows.query(tx.connection(), dialect, "mine", &sql)).await?
        }
    };
    rows.iter().map(read_job).collect()
}

async fn make_ready(tx: &mut WriteTx, jobs: &[Job]) -> Result<u64> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let mut rows = Rows::new(&["id", "lease"], jobs.len());
    for job in jobs {
        rows.uuid(job.id).bigint(job.lease);
    }
    let ready = "UPDATE jobs SET state = 'ready', worker_id = NULL, started_at = NULL, rescues = jobs.rescues + 1 \
                 FROM orphan WHERE jobs.id = orphan.id AND jobs.lease = orphan.lease AND jobs.state = 'running' \
                 RETURNING jobs.kind";
    let dialect = tx.dialect();
    let rows = asked(rows.query(tx.connection(), dialect, "orphan", ready)).await?;
    count_moves(tx, read_kinds(&rows)?, JobState::Running, JobState::Ready);
    tell_jobs(tx, jobs, JobStep::Ready);
    Ok(rows.len() as u64)
}

/// Sets a job aside as a dead letter, without its worker's word; `whole` fails its event too. Says whether it still was
/// under the lease that is meant.
pub async fn set_aside(tx: &mut WriteTx, job: &Job, why: &str, whole: bool, now: Instant) -> Result<bool> {
    let finished = Finished { job, state: JobState::Dead, attempts: job.attempts, error: Some(why), started_at: None };
    if !bury(tx, finished, now).await? {
        return Ok(false);
    }
    if whole {
        fail_events(tx, std::slice::from_ref(job), why, now).await?;
    }
    Ok(true)
}

/// Moves a job on, as a failed try, whose end cannot be recorded in full: its own row and nothing that goes with it.
pub async fn put_back(tx: &mut WriteTx, settlement: &Settlement, now: Instant) -> Result<Settled> {
    let job = &settlement.job;
    let error = error_of(&settlement.outcome).unwrap_or_default();
    if job.is_last_try() {
        let (attempts, state) = (job.attempts + 1, JobState::Dead);
        let finished = Finished { job, state, attempts, error: Some(error), started_at: None };
        let is_over = bury(tx, finished, now).await?;
        return Ok(if is_over { Settled::Now(JobState::Dead) } else { Settled::Stale });
    }
    let settled = retry(tx, settlement, error, now).await?;
    if job.kind.rule().per_key.is_some() {
        free_held(tx, &BTreeSet::from([(job.kind, job.key.clone())])).await?;
    }
    Ok(settled)
}

/// Makes a running job a dead letter; says whether it still was under that lease.
async fn bury(tx: &mut WriteTx, finished: Finished<'_>, now: Instant) -> Result<bool> {
    let (job, error) = (finished.job, finished.error.unwrap_or_default());
    let delete = tx.dialect().statement(
        "DELETE FROM jobs WHERE id = $1 AND lease = $2 AND state = 'running'",
        [job.id.into(), job.lease.into()],
    );
    if asked(tx.connection().execute_raw(delete)).await?.rows_affected() == 0 {
        return Ok(false);
    }
    count_moves(tx, [job.kind], JobState::Running, JobState::Dead);
    let told =
        Transition { attempts: finished.attempts, error: Some(error.to_owned()), ..Transition::of(job, JobStep::Dead) };
    tell(tx, || vec![told]);
    insert_finished(tx, [finished].into_iter(), now).await?;
    if job.kind.rule().per_key.is_some() {
        free_held(tx, &BTreeSet::from([(job.kind, job.key.clone())])).await?;
    }
    Ok(true)
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
