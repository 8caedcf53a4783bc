//! The transaction a write is made in, and the only key to jobs, running counts and what a server records with them.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sea_orm::{DatabaseTransaction, DbErr};
use uuid::Uuid;

use super::dialect::Dialect;
use super::job::{Feed, Listeners, turn::Turns};
use super::{Companion, job, tally};
use crate::model::Instant;
use crate::model::job::{JobState, Kind, Kinds, NewJob};
use crate::model::tally::{Counter, Span};

/// What all writes of this server share.
pub(super) struct Common {
    pub dialect: Dialect,
    /// The kinds of job there are.
    pub kinds: Kinds,
    /// Told what becomes of the records that stand and fall with jobs.
    pub companion: Arc<dyn Companion>,
    /// The statement that asks what may be claimed next.
    pub candidates: String,
    /// Where this server counts.
    pub shard: i32,
    /// Tries after the first of a job that does not say.
    pub max_retries: i32,
    /// How long a transaction may take; `None` where no network is in between.
    pub patience: Option<Duration>,
    /// Whose turn it is.
    pub turns: Turns,
    /// Told when a job may have become ready.
    pub ready: tokio::sync::Notify,
    /// Told when other servers on the database should hear of it.
    pub announce: tokio::sync::Notify,
    /// Told when something was made or moved that people watch.
    pub changed: tokio::sync::watch::Sender<()>,
    /// Jobs that were called off and may be running here.
    pub cancelled: Mutex<Vec<Uuid>>,
    /// Told what happens to jobs.
    pub feed: Feed,
    /// Told what is enqueued for the keys they work on.
    pub listeners: Listeners,
}

/// A write in progress. It may share its transaction with the writes of other callers.
pub struct WriteTx {
    transaction: DatabaseTransaction,
    common: Arc<Common>,
    wrote: bool,
    changed: bool,
    /// Whether it has locks on keys of jobs.
    holds_keys: bool,
    extra: Option<Box<dyn Any + Send + Sync>>,
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
            extra: None,
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
    pub fn connection(&mut self) -> &DatabaseTransaction {
        self.wrote = true;
        &self.transaction
    }

    /// The shard of running counts this transaction adds to: those of transactions at work at once differ mostly.
    pub fn shard(&self) -> i32 {
        self.shard
    }

    /// The kinds of job there are.
    pub fn kinds(&self) -> Kinds {
        self.common.kinds
    }

    /// Tries after the first of a job, and of what stands and falls with it, when nobody says how many.
    pub fn max_retries(&self) -> i32 {
        self.common.max_retries
    }

    pub(super) fn companion(&self) -> Arc<dyn Companion> {
        self.common.companion.clone()
    }

    /// What the server collects in this transaction for its [`Companion`] to write before COMMIT: so what is recorded
    /// commits with the write that causes it or not at all, and as a set however many callers share the transaction.
    ///
    /// A server has one such type.
    ///
    /// # Panics
    /// When the transaction holds another type already.
    pub fn extra<T: Default + Send + Sync + 'static>(&mut self) -> &mut T {
        self.wrote = true;
        let extra = self.extra.get_or_insert_with(|| Box::new(T::default()));
        extra.downcast_mut().expect("a server collects one type")
    }

    /// Takes out what was collected; the default when nothing was.
    pub fn take_extra<T: Default + Send + Sync + 'static>(&mut self) -> T {
        let extra = self.extra.take().and_then(|extra| extra.downcast().ok());
        extra.map_or_else(T::default, |extra| *extra)
    }

    /// Remembers work for later, in this transaction: there is no other way to.
    pub fn enqueue(&mut self, job: NewJob) {
        self.wrote = true;
        self.jobs.push(job);
    }

    /// Counts, in this transaction: the running counts are what analytics answers from.
    pub fn tally(&mut self, counter: impl Into<Counter>, label: &str, at: Instant, count: i64, amount: i64) {
        self.wrote = true;
        tally::add(&mut self.counts, counter.into(), label, at, count, amount);
    }

    /// Counts each of a set, by what names it for `label` and when. Those of one name and minute are counted as one: no
    /// bucket is shorter, and a label is made once for all of them.
    pub fn tally_each<N: Ord>(
        &mut self,
        counter: impl Into<Counter>,
        set: impl IntoIterator<Item = (N, Instant)>,
        label: impl Fn(&N) -> String,
    ) {
        let mut counts: BTreeMap<(N, i64), (Instant, i64)> = BTreeMap::new();
        for (name, at) in set {
            counts.entry((name, Span::Minute.start(at))).or_insert((at, 0)).1 += 1;
        }
        let counter = counter.into();
        for ((name, _), (at, count)) in counts {
            self.tally(counter, &label(&name), at, count, 0);
        }
    }

    /// Counts jobs that come to a state, or with a negative number leave it.
    pub(super) fn count_jobs(&mut self, kind: Kind, state: JobState, count: i64) {
        self.tally(Counter::JOBS, &format!("{}.{}", kind.as_str(), state.as_str()), Instant::default(), count, 0);
    }

    /// Runs `effect` after COMMIT and before the caller is answered. It must be quick and cannot fail: forgetting
    /// what a cache held is what it is for.
    pub fn after_commit(&mut self, effect: impl FnOnce() + Send + Sync + 'static) {
        self.effects.push(Box::new(effect));
    }

    /// Wakes the workers after COMMIT: this server's at once, those of others by a hint.
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

    /// Notes that it takes locks on keys of jobs; says whether it had some. For whoever takes other locks that are
    /// waited for.
    pub fn take_keys(&mut self) -> bool {
        std::mem::replace(&mut self.holds_keys, true)
    }

    /// Tells those who watch ([`Store::activity`](super::Store::activity)), after COMMIT, that something they are shown
    /// was made or moved.
    pub fn changed(&mut self) {
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

    /// Writes what was collected, the jobs and the counts, and commits; answers with what is to be done next.
    pub(super) async fn commit(mut self) -> Result<Vec<Box<dyn FnOnce() + Send + Sync>>, DbErr> {
        if self.extra.is_some() {
            let companion = self.companion();
            companion.write(&mut self).await?;
        }
        let jobs = std::mem::take(&mut self.jobs);
        if !jobs.is_empty() {
            let heard = self.common.listeners.heard(&jobs);
            self.after_commit(move || heard.iter().for_each(|listener| listener.send_modify(|()| {})));
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
