//! Rescue: the jobs of workers that are gone become claimable again, and poison is set aside.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::super::rows::Rows;
use super::super::{WriteTx, asked};
use super::claim::{lock_keys, read_key, try_keys};
use super::settle::{Finished, Settled, Settlement, error_of, insert_finished, merge_into_waiting, retry};
use super::{JOB, MOVED, count_moves, read_jobs, read_kinds, tell, tell_jobs, tell_moved, unique_locks};
use crate::model::job::{EventStatus, Fate, Job, JobState, Kind};
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
    let mut orphans = find_orphans(tx, orphans).await?;
    // The rows are held by now, so nothing more is waited for; those of keys that another hub is at come next time.
    let wanted: BTreeSet<(Kind, String)> =
        limited_keys(&orphans).into_iter().chain(unique_locks(orphans.iter())).collect();
    let locked = try_keys(tx, &wanted).await?;
    let key = |job: &Job| (job.kind, job.key.clone());
    let is_mine = |key| !wanted.contains(&key) || locked.contains(&key);
    orphans.retain(|job| is_mine(key(job)) && unique_locks([job].into_iter()).all(is_mine));
    let mut rescued = Rescued::default();
    let mut again = Vec::with_capacity(orphans.len());
    let mut keys: HashSet<(Kind, String)> = HashSet::new();
    let mut freed = BTreeSet::new();
    for job in orphans {
        if job.rescues >= MOST_RESCUES {
            rescued.poison.push(job);
        } else if merge_into_waiting(tx, &job).await? {
            freed.insert(key(&job));
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

/// The keys of these jobs of which only so many may run.
fn limited_keys<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> BTreeSet<(Kind, String)> {
    let limited = jobs.into_iter().filter(|job| job.kind.rule().per_key.is_some());
    limited.map(|job| (job.kind, job.key.clone())).collect()
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
    read_jobs(&rows, tx.kinds())
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
    count_moves(tx, read_kinds(&rows, tx.kinds())?, JobState::Running, JobState::Ready);
    tell_jobs(tx, jobs, JobStep::Ready);
    Ok(rows.len() as u64)
}

/// Sets a job aside as a dead letter, without its worker's word; `whole` fails its event too. Says whether it still was
/// under the lease that is meant.
pub async fn set_aside(tx: &mut WriteTx, job: &Job, why: &str, whole: bool, now: Instant) -> Result<bool> {
    lock_keys(tx, &limited_keys([job])).await?;
    let finished = Finished { job, state: JobState::Dead, attempts: job.attempts, error: Some(why), started_at: None };
    if !bury(tx, finished, now).await? {
        return Ok(false);
    }
    if whole {
        fail_records(tx, std::slice::from_ref(job), why, now).await?;
    }
    Ok(true)
}

/// Moves a job on, as a failed try, whose end cannot be recorded in full: its own row and nothing that goes with it.
pub async fn put_back(tx: &mut WriteTx, settlement: &Settlement, now: Instant) -> Result<Settled> {
    let job = &settlement.job;
    let error = error_of(&settlement.outcome).unwrap_or_default();
    let key = limited_keys([job]);
    lock_keys(tx, &key.iter().cloned().chain(unique_locks([job].into_iter())).collect()).await?;
    if job.is_last_try() {
        let (attempts, state) = (job.attempts + 1, JobState::Dead);
        let finished = Finished { job, state, attempts, error: Some(error), started_at: None };
        let is_over = bury(tx, finished, now).await?;
        return Ok(if is_over { Settled::Now(JobState::Dead) } else { Settled::Stale });
    }
    let settled = retry(tx, settlement, error, now).await?;
    free_held(tx, &key).await?;
    Ok(settled)
}

/// Makes a running job a dead letter; says whether it still was under that lease. The caller has the lock of its key.
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
    free_held(tx, &limited_keys([job])).await?;
    Ok(true)
}

/// Fails the records of jobs that are over without their worker's word.
pub(super) async fn fail_records(tx: &mut WriteTx, jobs: &[Job], why: &str, now: Instant) -> Result<()> {
    let fate = |job: &Job| {
        let (status, error) = (EventStatus::Failed, Some(why.to_owned()));
        Some(Fate { id: job.event_id?, status, retries: job.attempts, response: None, error })
    };
    let fates: Vec<Fate> = jobs.iter().filter_map(fate).collect();
    let companion = tx.companion();
    companion.settle(tx, &fates, now).await
}

/// Makes as many held jobs of these keys ready as may run, now that jobs of them have ended.
///
/// Under the lock a claim takes, which the caller has: a claim that found the key busy, and so held a job, is over and
/// its job is freed here; a claim that comes later finds the key free. What is ready already is not counted: it may come
/// after what is held, and whatever is too much the next claim holds again.
pub async fn free_held(tx: &mut WriteTx, keys: &BTreeSet<(Kind, String)>) -> Result<()> {
    free_held_of(tx, keys, |kind| kind.rule().per_key).await
}

async fn free_held_of(
    tx: &mut WriteTx,
    keys: &BTreeSet<(Kind, String)>,
    per_key: impl Fn(Kind) -> Option<u32>,
) -> Result<()> {
    let free = format!(
        "UPDATE jobs SET state = 'ready' WHERE state = 'held' AND id IN (SELECT (SELECT id FROM jobs AS waiting \
         WHERE waiting.state = 'held' AND waiting.kind = freed.kind AND waiting.queue_key = freed.queue_key \
         ORDER BY waiting.priority, waiting.turn LIMIT 1) FROM freed WHERE (SELECT COUNT(*) FROM jobs AS busy \
         WHERE busy.state = 'running' AND busy.kind = freed.kind AND busy.queue_key = freed.queue_key) < freed.room) \
         RETURNING {MOVED}"
    );
    let dialect = tx.dialect();
    let (mut keys, mut given) = (keys.clone(), 0);
    loop {
        // One of each key at a time: a key of which one may run needs a single look at the first that waits.
        keys.retain(|(kind, _)| per_key(*kind).is_some_and(|limit| given < limit));
        if keys.is_empty() {
            return Ok(());
        }
        let mut rows = Rows::new(&["kind", "queue_key", "room"], keys.len());
        for (kind, key) in &keys {
            rows.text(kind.as_str()).text(key).bigint(i64::from(per_key(*kind).unwrap_or(0) - given));
        }
        let freed = asked(rows.query(tx.connection(), dialect, "freed", &free)).await?;
        if freed.is_empty() {
            return Ok(());
        }
        count_moves(tx, read_kinds(&freed, tx.kinds())?, JobState::Held, JobState::Ready);
        tell_moved(tx, &freed, JobStep::Ready)?;
        tx.wake_workers();
        keys = freed.iter().map(|row| read_key(row, tx.kinds())).collect::<Result<_>>()?;
        given += 1;
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::super::super::{Options, Setup, Store};
    use super::*;
    use crate::model::job::{KindRule, KindSpec, NewJob};

    const ANY: Kind = Kind::new(&KindSpec {
        word: "any",
        rule: KindRule {
            priority: 1,
            deadline: Duration::from_secs(60),
            per_key: Some(1),
            leaves_a_slot: false,
            is_apart: false,
        },
    });

    #[tokio::test(flavor = "multi_thread")]
    async fn as_many_are_freed_as_their_kind_lets_run_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", directory.path().join("hub.db").display());
        let options = Options {
            url,
            read_connections: 2,
            wait: Duration::from_secs(5),
            max_retries: 3,
            patience: Duration::from_secs(30),
        };
        let stop = CancellationToken::new();
        let migrations = upbridge_migrations::Migrations::of::<upbridge_migrations::Migrator>();
        let setup = Setup { migrations, kinds: &[ANY], companion: std::sync::Arc::new(()) };
        let store = Store::open(&options, setup, stop.clone()).await.unwrap();
        let at = Instant::default();
        let jobs: Vec<NewJob> = (0..7).map(|_| NewJob::new(ANY, "u", crate::model::Json::Null, at)).collect();
        let add = store.write(jobs, |tx, jobs| {
            jobs.iter().for_each(|job| tx.enqueue(job.clone()));
            Box::pin(async { Ok(()) })
        });
        add.await.unwrap();
        let free = async |limit: u32| {
            let free = store.write(limit, |tx, limit| {
                Box::pin(async move {
                    let all = "UPDATE jobs SET state = CASE WHEN turn <= 2 THEN 'running' ELSE 'held' END";
                    asked(tx.connection().execute_unprepared(all)).await?;
                    let keys = BTreeSet::from([(ANY, "u".to_owned())]);
                    free_held_of(tx, &keys, |_| Some(*limit)).await?;
                    let ready = "SELECT turn FROM jobs WHERE state = 'ready' ORDER BY turn";
                    let rows = asked(tx.reader().query_all_raw(tx.dialect().statement(ready, []))).await?;
                    rows.iter()
                        .map(|row| row.try_get("", "turn").map_err(super::super::fault))
                        .collect::<Result<Vec<i64>>>()
                })
            });
            free.await.unwrap()
        };
        assert_eq!(free(2).await, [0_i64; 0], "two run");
        assert_eq!(free(3).await, [3]);
        assert_eq!(free(5).await, [3, 4, 5]);
        assert_eq!(free(99).await, [3, 4, 5, 6, 7]);
        stop.cancel();
        store.close().await;
    }
}
