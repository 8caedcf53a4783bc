//! The transaction a write is made in, and the only key to events, jobs and running counts.

use std::sync::{Arc, Mutex, PoisonError};

use sea_orm::{DatabaseTransaction, DbErr};
use uuid::Uuid;

use super::dialect::Dialect;
use super::job::{Feed, turn::Turns};
use super::{job, sync_event, tally};
use crate::model::Instant;
use crate::model::event::NewEvent;
use crate::model::job::{JobKind, JobState, NewJob};
use crate::model::tally::Metric;

/// What all writes of this hub share.
pub(super) struct Common {
    pub dialect: Dialect,
    /// Where this hub counts.
    pub shard: i32,
    /// Tries after the first of a job that does not say.
    pub max_retries: i32,
    /// Whose turn it is.
    pub turns: Turns,
    /// Told when a job may have become ready.
    pub ready: tokio::sync::Notify,
    /// Told when other hubs should hear of it.
    pub announce: tokio::sync::Notify,
    /// Told when an event or an alert was made or moved.
    pub changed: tokio::sync::watch::Sender<()>,
    /// Jobs that were called off and may be running here.
    pub cancelled: Mutex<Vec<Uuid>>,
    /// Told what happens to jobs.
    pub feed: Feed,
}

/// A write in progress. It may share its transaction with the writes of other callers.
pub struct WriteTx {
    transaction: DatabaseTransaction,
    common: Arc<Common>,
    wrote: bool,
    changed: bool,
    /// Whether it has locks on keys of jobs.
    holds_keys: bool,
    events: Vec<(Uuid, NewEvent)>,
    jobs: Vec<NewJob>,
    counts: tally::Counts,
    shard: i32,
    effects: Vec<Box<dyn FnOnce() + Send + Sync>>,
}

impl WriteTx {
    pub(super) fn new(transaction: DatabaseTransaction, common: Arc<Common>, place: u32) -> WriteTx {
        WriteTx {
            shard: (common.shard + place as i32) % tally::SHARDS,
            transaction,
            common,
            wrote: false,
            changed: false,
            holds_keys: false,
            events: Vec::new(),
            jobs: Vec::new(),
            counts: tally::Counts::new(),
            effects: Vec::new(),
        }
    }

    /// The connection, for statements that read.
    pub fn reader(&self) -> &DatabaseTransaction {
        &self.transaction
    }

    /// Which database it is.
    pub fn dialect(&self) -> Dialect {
        self.common.dialect
    }

    pub(super) fn common(&self) -> &Arc<Common> {
        &self.common
    }

    /// The connection, for statements that write. From here on an error must undo the whole transaction.
    pub(super) fn connection(&mut self) -> &DatabaseTransaction {
        self.wrote = true;
        &self.transaction
    }

    /// Records what happened, in this transaction: there is no other way to, so a write and its event commit
    /// together or not at all. Answers with the event's id.
    pub fn emit(&mut self, event: NewEvent) -> Uuid {
        let id = Uuid::now_v7();
        self.emit_as(id, event);
        id
    }

    /// Records what happened under an id that something else in this transaction has too.
    pub fn emit_as(&mut self, id: Uuid, event: NewEvent) {
        self.wrote = true;
        self.tally(Metric::Events, &event.label(event.status), event.at, 1, 0);
        self.events.push((id, event));
        self.changed();
    }

    /// Remembers work for later, in this transaction: there is no other way to.
    pub fn enqueue(&mut self, job: NewJob) {
        self.wrote = true;
        self.jobs.push(job);
    }

    /// Counts, in this transaction: the running counts are what analytics answers from.
    pub fn tally(&mut self, metric: Metric, label: &str, at: Instant, count: i64, amount: i64) {
        self.wrote = true;
        tally::add(&mut self.counts, metric, label, at, count, amount);
    }

    /// Counts jobs that come to a state, or with a negative number leave it.
    pub(super) fn count_jobs(&mut self, kind: JobKind, state: JobState, count: i64) {
        self.tally(Metric::Jobs, &format!("{}.{}", kind.as_str(), state.as_str()), Instant::default(), count, 0);
    }

    /// Runs `effect` after COMMIT and before the caller is answered. It must be quick and cannot fail: forgetting
    /// what a cache held is what it is for.
    pub fn after_commit(&mut self, effect: impl FnOnce() + Send + Sync + 'static) {
        self.effects.push(Box::new(effect));
    }

    /// Wakes the workers after COMMIT: this hub's at once, those of others by a hint.
    pub(super) fn wake_workers(&mut self) {
        let common = self.common.clone();
        self.after_commit(move || {
            common.ready.notify_one();
            common.announce.notify_one();
        });
    }

    /// Stops the handler of a job that was called off, if it runs here, after COMMIT.
    pub(super) fn stop_handler(&mut self, id: Uuid) {
        let common = self.common.clone();
        self.after_commit(move || {
            common.cancelled.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            common.ready.notify_one();
        });
    }

    /// Notes that it takes locks on keys of jobs; says whether it had some.
    pub(super) fn take_keys(&mut self) -> bool {
        std::mem::replace(&mut self.holds_keys, true)
    }

    /// Tells those who watch, after COMMIT, that an event or an alert was made or moved.
    pub(super) fn changed(&mut self) {
        if !std::mem::replace(&mut self.changed, true) {
            let common = self.common.clone();
            self.after_commit(move || common.changed.send_modify(|()| {}));
        }
    }

    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    pub(super) fn forget_wrote(&mut self) {
        self.wrote = false;
    }

    /// Writes the events, the jobs and the counts, and commits; answers with what is to be done next.
    pub(super) async fn commit(mut self) -> Result<Vec<Box<dyn FnOnce() + Send + Sync>>, DbErr> {
        let events = std::mem::take(&mut self.events);
        sync_event::insert(&mut self, events).await?;
        let jobs = std::mem::take(&mut self.jobs);
        if !jobs.is_empty() {
            job::insert(&mut self, jobs).await?;
            self.wake_workers();
        }
        let counts = std::mem::take(&mut self.counts);
        let shard = self.shard;
        tally::write(&mut self, counts, shard).await?;
        self.transaction.commit().await?;
        Ok(self.effects)
    }

    pub(super) async fn rollback(self) -> Result<(), DbErr> {
        self.transaction.rollback().await
    }
}
