//! The worker: one dispatcher for all kinds of job. It claims what its free slots can take, runs it, and records how
//! it ended; it wakes for a commit of this hub, a hint of another, the next retry that is due, and once a second.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::{Books, Line};
use super::lease::Lease;
use super::settle::{SettleBatch, record};
use super::{Handler, Options};
use crate::model::clock::Clock;
use crate::model::job::{Job, Outcome};
use crate::model::{Error, Result};
use crate::storage::job::Claim;
use crate::storage::{self, Lane, Store};

/// How long handing back may take.
const HAND_BACK: Duration = Duration::from_secs(5);
/// How soon jobs are claimed that were passed by.
const PASSED_BY: Duration = Duration::from_millis(10);
/// How long a look at the queue may take at most.
const LOOK: Duration = Duration::from_secs(10);
/// Passes of trimming in one go, of a thousand rows in each state.
const TRIMS: usize = 20;

/// Works the queue until `stop`; what runs then may finish within the drain time and is handed back afterwards.
pub async fn run(
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    handler: Arc<dyn Handler>,
    options: Options,
    stop: CancellationToken,
) {
    let settling = SettleBatch { handler: handler.clone(), clock: clock.clone(), options };
    let lane = Arc::new(store.lane(settling));
    // A worker that is dropped must let go of the connection its hints come over.
    let heard = stop.child_token();
    let _deaf = heard.clone().drop_guard();
    let hints = tokio::spawn(store.clone().exchange_hints(heard));
    while !stop.is_cancelled() {
        let lease = Arc::new(Lease {
            id: Uuid::new_v4(),
            store: store.clone(),
            clock: clock.clone(),
            handler: handler.clone(),
            options,
            books: Arc::default(),
            lost: CancellationToken::new(),
        });
        if let Err(error) = lease.sign_on().await {
            tracing::warn!(%error, context = ?error, "the queue cannot be worked; it is tried again");
            tokio::select! {
                () = tokio::time::sleep(options.poll) => continue,
                () = stop.cancelled() => break,
            }
        }
        let heart = CancellationToken::new();
        // A worker that is dropped must fall silent, or nobody would take its jobs.
        let _silence = heart.clone().drop_guard();
        let keeping = tokio::spawn({
            let (lease, heart) = (lease.clone(), heart.clone());
            async move { lease.keep(heart).await }
        });
        Dispatcher::new(lease.clone(), lane.clone()).run(&stop).await;
        heart.cancel();
        drop(keeping.await);
        if !lease.lost.is_cancelled() {
            lease.leave().await;
        }
    }
    drop(hints.await);
}

/// Whether there may be something to claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hunger {
    /// The last claim took all there was.
    No,
    /// Nobody said so, but it is time to look.
    Curious,
    /// A hint came, or the last claim took as much as it could.
    Sure,
}

/// One life of the worker.
struct Dispatcher {
    lease: Arc<Lease>,
    lane: Arc<Lane<SettleBatch>>,
    options: Options,
    /// Each answers whether it waited for somebody else's server.
    tasks: JoinSet<bool>,
    books: Arc<Books>,
    /// Cancelled when running jobs are to be handed back.
    hand_back: CancellationToken,
    hungry: Hunger,
    finished: u64,
}

impl Dispatcher {
    fn new(lease: Arc<Lease>, lane: Arc<Lane<SettleBatch>>) -> Dispatcher {
        let (options, books) = (lease.options, lease.books.clone());
        Dispatcher {
            lease,
            lane,
            options,
            tasks: JoinSet::new(),
            books,
            hand_back: CancellationToken::new(),
            hungry: Hunger::Curious,
            finished: 0,
        }
    }

    async fn run(mut self, stop: &CancellationToken) {
        let mut look = tokio::time::interval(self.options.poll);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut due = None;
        loop {
            let lease = self.lease.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = lease.lost.cancelled() => break,
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => self.ended(done),
                () = lease.store.job_ready() => self.hungry = Hunger::Sure,
                () = until(due) => {
                    due = None;
                    self.hungry = Hunger::Curious;
                }
                _ = look.tick() => {
                    self.hungry = Hunger::Curious;
                    self.learn_turns().await;
                    self.tidy().await;
                }
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.ended(done);
            }
            self.stop_cancelled();
            while self.hungry != Hunger::No && self.has_slots().await {
                match self.claim().await {
                    Ok(next) => due = next.or(due),
                    Err(error) => {
                        self.hungry = Hunger::No;
                        tracing::warn!(%error, context = ?error, "a claim failed; it is tried again");
                    }
                }
            }
        }
        self.drain().await;
    }

    /// Whether there is a slot for what there may be. While those that are shared are all taken, those apart are no
    /// reason to claim unless somebody waits for them.
    async fn has_slots(&self) -> bool {
        let (held, options) = (self.books.count(), self.options);
        if held.shared < options.concurrency || held.apart >= options.apart {
            return held.shared < options.concurrency;
        }
        let store = &self.lease.store;
        let is_ready = in_time(store, storage::job::look_apart(store.read(), store.dialect(), store.kinds())).await;
        is_ready.unwrap_or_else(|error| {
            tracing::debug!(%error, "the queue could not be looked at; it is tried again");
            false
        })
    }

    fn ended(&mut self, done: std::result::Result<bool, tokio::task::JoinError>) {
        if let Err(error) = &done {
            // A task catches its handler's panic; one that is gone all the same has left its job on lease.
            tracing::error!(%error, "a worker's task ended by itself");
        }
        if done.unwrap_or(true) {
            // Others of its sort may have been left waiting while slots were free.
            self.hungry = Hunger::Sure;
        }
        self.finished += 1;
    }

    /// Stops the handlers of jobs that were called off.
    fn stop_cancelled(&mut self) {
        self.lease.store.take_cancelled().into_iter().for_each(|id| self.books.stop(id, None));
    }

    /// Claims what the free slots can take and runs it; answers with how long it is to the next that is due.
    async fn claim(&mut self) -> Result<Option<tokio::time::Instant>> {
        self.books.turn_claim();
        let claimed = self.claim_now().await;
        self.books.turn_claim();
        claimed
    }

    async fn claim_now(&mut self) -> Result<Option<tokio::time::Instant>> {
        let (store, now) = (&self.lease.store, self.lease.clock.now());
        let mut next = None;
        let mut due = false;
        if self.hungry == Hunger::Curious {
            // A look costs no transaction; only when something is there to be claimed is one begun.
            let standing = in_time(store, storage::job::look(store.read(), store.dialect())).await?;
            due = standing.next.is_some_and(|next| next <= now);
            next = standing.next.filter(|_| !due).map(|next| deadline(next, now));
            if !standing.ready && !due {
                self.hungry = Hunger::No;
                return Ok(next);
            }
        }
        let (held, concurrency) = (self.books.count(), self.options.concurrency);
        let claim = Claim {
            worker_id: self.lease.id,
            most: concurrency.saturating_sub(held.shared),
            // A slot is left to jobs that take moments, however many of the others there are.
            most_leaving: (concurrency - 1).max(1).saturating_sub(held.leaving),
            most_apart: self.options.apart.saturating_sub(held.apart),
        };
        let claimed = store
            .write_last((claim, due, now), |tx, (claim, due, now)| {
                Box::pin(async move {
                    if *due {
                        storage::job::promote(tx, *now).await?;
                    }
                    storage::job::claim(tx, claim).await
                })
            })
            .await?;
        self.hungry = match claimed.jobs.len() {
            _ if claimed.fills(&claim) => Hunger::Sure,
            _ if claimed.passed_by => {
                // Whoever is at their keys is done in a moment.
                next = Some(tokio::time::Instant::now() + PASSED_BY);
                Hunger::No
            }
            0 if self.hungry == Hunger::Sure => Hunger::Curious,
            _ if due => Hunger::Curious,
            // Fewer than the slots could take: nothing more is ready.
            _ => Hunger::No,
        };
        claimed.jobs.into_iter().for_each(|job| self.start(job));
        Ok(next)
    }

    fn start(&mut self, job: Job) {
        let (lease, lane) = (self.lease.clone(), self.lane.clone());
        let (line, called_off) = self.books.enter(&job);
        let hand_back = self.hand_back.clone();
        self.tasks.spawn(async move {
            let _line: Line = line;
            // Others of such a sort may be waiting though slots of the rest are free.
            let leaves_a_slot = job.kind.rule().leaves_a_slot || job.kind.rule().is_apart;
            let begun = Instant::now();
            let outcome = tokio::select! {
                biased;
                outcome = handle(&*lease.handler, &job) => outcome,
                // The lease is over: whatever is said now would not be believed.
                () = lease.lost.cancelled() => return leaves_a_slot,
                () = called_off.cancelled() => return leaves_a_slot,
                () = hand_back.cancelled() => Outcome::Released,
            };
            tokio::select! {
                () = record(&lane, &lease, job, outcome, begun.elapsed()) => {}
                () = lease.lost.cancelled() => {}
            }
            leaves_a_slot
        });
    }

    /// Learns how far other hubs have come, where there can be others; also while every slot is taken and nothing is
    /// claimed here.
    async fn learn_turns(&self) {
        let store = &self.lease.store;
        if store.dialect().is_shared()
            && let Err(error) = in_time(store, store.learn_turns()).await
        {
            tracing::debug!(%error, "the turns of other hubs could not be learnt");
        }
    }

    /// Removes finished jobs beyond those that are kept, in transactions small enough to let others in between. What is
    /// left after so many is for the next look, whether more end by then or not.
    async fn tidy(&mut self) {
        if self.finished == 0 {
            return;
        }
        let keep = self.options.keep;
        for _ in 0..TRIMS {
            match self.lease.store.write(keep, |tx, keep| Box::pin(storage::job::trim(tx, *keep))).await {
                Ok(0) => {
                    self.finished = 0;
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, context = ?error, "finished jobs could not be trimmed; it is tried again");
                    return;
                }
            }
        }
    }

    /// Lets running jobs finish, and hands back those that do not within the drain time.
    async fn drain(mut self) {
        if tokio::time::timeout(self.options.drain, all_ended(&mut self.tasks)).await.is_err() {
            tracing::info!(jobs = self.tasks.len(), "running jobs are handed back");
            self.hand_back.cancel();
            if tokio::time::timeout(HAND_BACK, all_ended(&mut self.tasks)).await.is_err() {
                tracing::warn!(jobs = self.tasks.len(), "jobs could not be handed back; their lease will end");
            }
        }
    }
}

/// Bounds a look: a worker that waits for an answer that never comes would claim nothing ever again.
async fn in_time<T>(store: &Store, look: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Err(Error::unavailable("the database did not answer a look at the queue"));
    let longest = store.patience().map_or(LOOK, |patience| patience.min(LOOK));
    tokio::time::timeout(longest, look).await.unwrap_or_else(late)
}

async fn all_ended(tasks: &mut JoinSet<bool>) {
    while tasks.join_next().await.is_some() {}
}

/// Runs a handler within its kind's deadline; a panic is a failure like another.
async fn handle(handler: &dyn Handler, job: &Job) -> Outcome {
    let deadline = job.kind.rule().deadline;
    let run = AssertUnwindSafe(handler.run(job)).catch_unwind();
    match tokio::time::timeout(deadline, run).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Outcome::retry("the handler panicked"),
        Err(_late) => Outcome::retry(format!("not done within {} s", deadline.as_secs())),
    }
}

fn deadline(next: crate::model::Instant, now: crate::model::Instant) -> tokio::time::Instant {
    tokio::time::Instant::now() + (next - now).to_std().unwrap_or_default()
}

async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
