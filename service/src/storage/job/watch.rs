//! Who watches the queue, and what they are told.
//!
//! What this hub does is told after COMMIT, batch by batch, and only when somebody listens: nobody watching costs a
//! load of one number. What other hubs do is seen by looking ([`snapshot`]) at the ends of the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sea_orm::{ConnectionTrait, DbErr, QueryResult};
use tokio::sync::broadcast::{self, error::RecvError};
use uuid::Uuid;

use super::super::dialect::Dialect;
use super::super::{WriteTx, asked};
use super::{quoted, read_kind};
use crate::model::job::{Job, JobState, Kinds};
use crate::model::transition::{JobStep, Transition};
use crate::model::{Error, Json, Result};

/// Batches kept for a watcher who is slow; beyond, the oldest are left out for them.
const KEPT: usize = 256;
/// Jobs one look takes in at most, of each kind of place.
const LOOKED_AT: u64 = 200;

/// Tells watchers.
pub struct Feed {
    batches: broadcast::Sender<Arc<Told>>,
    told: AtomicU64,
}

/// What one transaction did.
struct Told {
    /// Transitions told before these.
    before: u64,
    transitions: Vec<Transition>,
}

impl Default for Feed {
    fn default() -> Feed {
        Feed { batches: broadcast::Sender::new(KEPT), told: AtomicU64::new(0) }
    }
}

impl Feed {
    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.batches.receiver_count()
    }

    /// Watches from now on.
    pub fn watch(&self) -> Watch {
        let batches = self.batches.subscribe();
        Watch { batches, seen: self.told.load(Ordering::Relaxed) }
    }

    fn tell(&self, transitions: Vec<Transition>) {
        let before = self.told.fetch_add(transitions.len() as u64, Ordering::Relaxed);
        // An error means that nobody listens any more.
        drop(self.batches.send(Arc::new(Told { before, transitions })));
    }
}

/// Somebody's place in the feed.
pub struct Watch {
    batches: broadcast::Receiver<Arc<Told>>,
    /// How many transitions had been told, seen or not.
    seen: u64,
}

impl Watch {
    /// The next transitions, and how many before them were left out. `None` when the hub is gone.
    pub async fn next(&mut self) -> Option<(u64, Vec<Transition>)> {
        loop {
            match self.batches.recv().await {
                Ok(told) => {
                    // A batch may be counted before the watch began and told after.
                    let missed = told.before.saturating_sub(self.seen);
                    self.seen = told.before + told.transitions.len() as u64;
                    return Some((missed, told.transitions.clone()));
                }
                // The next batch says how much that was.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Tells those who watch, after COMMIT.
pub(super) fn tell(tx: &mut WriteTx, transitions: impl FnOnce() -> Vec<Transition>) {
    if tx.common().feed.watchers() == 0 {
        return;
    }
    let (common, transitions) = (tx.common().clone(), transitions());
    if !transitions.is_empty() {
        tx.after_commit(move || common.feed.tell(transitions));
    }
}

/// Tells that jobs came to a step.
pub(super) fn tell_jobs<'a>(tx: &mut WriteTx, jobs: impl IntoIterator<Item = &'a Job>, step: JobStep) {
    tell(tx, || jobs.into_iter().map(|job| Transition::of(job, step)).collect());
}

/// What a statement returns of the jobs it moves, for [`tell_moved`] and the counts.
pub(super) const MOVED: &str = "id, kind, queue_key, attempts, lease";

/// Tells that the jobs of rows of [`MOVED`] came to a step.
pub(super) fn tell_moved(tx: &mut WriteTx, rows: &[QueryResult], step: JobStep) -> Result<()> {
    if tx.common().feed.watchers() == 0 {
        return Ok(());
    }
    let moved = rows.iter().map(|row| read_moved(row, tx.kinds(), step)).collect::<Result<Vec<_>>>()?;
    tell(tx, || moved);
    Ok(())
}

fn read_moved(row: &QueryResult, kinds: Kinds, step: JobStep) -> Result<Transition> {
    let kind: String = row.try_get("", "kind").map_err(super::fault)?;
    let kind = read_kind(&kind, kinds)?;
    let read = || -> Result<Transition, DbErr> {
        Ok(Transition {
            id: row.try_get("", "id")?,
            kind,
            key: row.try_get("", "queue_key")?,
            step,
            attempts: row.try_get("", "attempts")?,
            lease: row.try_get("", "lease")?,
            worker_id: None,
            error: None,
        })
    };
    read().map_err(super::fault)
}

/// The ends of the queue as they stand: the newest jobs, those that run, those that wait for their next try, and the
/// newest that are over, as the transitions that brought them there.
pub async fn snapshot<C: ConnectionTrait>(connection: &C, dialect: Dialect, kinds: Kinds) -> Result<Vec<Transition>> {
    let live =
        |place: &str| format!("SELECT {MOVED}, state, worker_id, errors FROM jobs WHERE {place} LIMIT {LOOKED_AT}");
    let over = |state: JobState| {
        format!(
            "SELECT {MOVED}, state, NULL AS worker_id, errors FROM finished_jobs WHERE state IN ({state}) \
             ORDER BY state DESC, finished_at DESC, id DESC LIMIT {LOOKED_AT}",
            state = quoted([state.as_str()])
        )
    };
    let mut found = Vec::new();
    for sql in [
        live("id IS NOT NULL ORDER BY id DESC"),
        live("state = 'running'"),
        live("state = 'scheduled' ORDER BY run_at"),
        over(JobState::Done),
        over(JobState::Dead),
        over(JobState::Cancelled),
    ] {
        let rows = asked(connection.query_all_raw(dialect.statement(sql, []))).await?;
        for row in &rows {
            found.push(read_standing(row, kinds)?);
        }
    }
    Ok(found)
}

fn read_standing(row: &QueryResult, kinds: Kinds) -> Result<Transition> {
    let state: String = row.try_get("", "state").map_err(super::fault)?;
    let state =
        JobState::parse(&state).ok_or_else(|| Error::internal(format!("a job in the unknown state {state:?}")))?;
    let moved = read_moved(row, kinds, JobStep::Enqueued)?;
    let errors: Option<Json> = row.try_get("", "errors").map_err(super::fault)?;
    let worker_id: Option<Uuid> = row.try_get("", "worker_id").map_err(super::fault)?;
    let last = errors.as_ref().and_then(|errors| errors.as_array()?.last()?.get("error")?.as_str().map(str::to_owned));
    let step = match state {
        JobState::Scheduled | JobState::Ready if moved.lease == 0 => JobStep::Enqueued,
        JobState::Scheduled => JobStep::Scheduled,
        JobState::Ready => JobStep::Ready,
        JobState::Held => JobStep::Held,
        JobState::Running => JobStep::Running,
        JobState::Done => JobStep::Done,
        JobState::Dead => JobStep::Dead,
        JobState::Cancelled => JobStep::Cancelled,
    };
    let error = last.filter(|_| matches!(step, JobStep::Scheduled | JobStep::Dead));
    Ok(Transition { step, worker_id, error, ..moved })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::NewJob;
    use crate::model::job::tests::PROBE;

    fn transitions(count: usize) -> Vec<Transition> {
        let job = NewJob::new(PROBE, "key", Json::Null, crate::model::Instant::default());
        vec![Transition::enqueued(&job); count]
    }

    #[tokio::test]
    async fn a_watcher_who_is_too_slow_is_told_how_much_was_left_out() {
        let feed = Feed::default();
        feed.tell(transitions(7));
        let mut watch = feed.watch();
        assert_eq!(feed.watchers(), 1);
        feed.tell(transitions(2));
        assert_eq!(watch.next().await.map(|(missed, told)| (missed, told.len())), Some((0, 2)));
        for _ in 0..KEPT + 5 {
            feed.tell(transitions(3));
        }
        assert_eq!(watch.next().await.map(|(missed, told)| (missed, told.len())), Some((15, 3)));
        assert_eq!(watch.next().await.map(|(missed, told)| (missed, told.len())), Some((0, 3)));
    }
}
