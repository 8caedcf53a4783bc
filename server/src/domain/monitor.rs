//! Watching the queue: what happens to jobs, for as long as somebody looks.
//!
//! A view for people. What this hub does is told after each commit and in order; what other hubs on the same database
//! do is looked at once a second, at the ends of the queue, and told a second later. So a job that is through in less
//! than a second, or one of a few hundred at once, may not be seen. The truth is in the jobs and the running counts.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};
use uuid::Uuid;

use super::Hub;
use crate::model::transition::{JobStep, Transition, TransitionFilter};
use crate::model::{Ctx, Error, Instant, Reason, Result};
use crate::storage;
use crate::storage::job::Watch;

/// Callers who watch one hub at most.
const MOST_WATCHERS: usize = 32;
/// How often other hubs' jobs are looked at, and whether the caller may still look.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Transitions remembered so that none is told twice.
const REMEMBERED: usize = 20_000;

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What happened, and when it was seen; absent in the first, which says that the watch has begun.
    pub transition: Option<(Instant, Transition)>,
    /// Transitions before it that were left out because the caller was too slow.
    pub missed: u64,
}

/// Somebody who watches the queue.
pub struct Monitor {
    hub: Arc<Hub>,
    ctx: Ctx,
    filter: TransitionFilter,
    watch: Watch,
    tick: Interval,
    waiting: VecDeque<Sighting>,
    missed: u64,
    /// Told by this hub.
    told: Memory,
    /// Seen by looking, and told.
    looked: Memory,
    /// Seen by the last look, and not told yet.
    suspects: Vec<Transition>,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    New,
    Watching,
    Over,
}

impl Hub {
    /// Watches the queue from the first [`Monitor::next`] on.
    ///
    /// Errors: too many are watching.
    pub fn monitor_queue(self: &Arc<Self>, ctx: Ctx, filter: TransitionFilter) -> Result<Monitor> {
        let feed = self.store.job_feed();
        if feed.watchers() >= MOST_WATCHERS {
            return Err(Error::Exhausted {
                reason: Reason::RateLimited,
                message: format!("{MOST_WATCHERS} callers are watching this hub"),
                retry_after: None,
                metadata: Default::default(),
            });
        }
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Monitor {
            watch: feed.watch(),
            hub: self.clone(),
            ctx,
            filter,
            tick,
            waiting: VecDeque::new(),
            missed: 0,
            told: Memory::default(),
            looked: Memory::default(),
            suspects: Vec::new(),
            stage: Stage::New,
        })
    }
}

impl Monitor {
    /// The next sighting. `None` when the hub stops; an error is the last.
    pub async fn next(&mut self) -> Option<Result<Sighting>> {
        let next = match self.stage {
            Stage::New => self.begin().await.map(Some),
            Stage::Watching => self.watched().await,
            Stage::Over => Ok(None),
        };
        self.stage = if matches!(next, Ok(Some(_))) { Stage::Watching } else { Stage::Over };
        next.transpose()
    }

    async fn begin(&mut self) -> Result<Sighting> {
        // What stands as the watch begins is not news.
        for transition in self.snapshot().await? {
            self.looked.remember(&transition);
        }
        Ok(Sighting { transition: None, missed: 0 })
    }

    async fn watched(&mut self) -> Result<Option<Sighting>> {
        let hub = self.hub.clone();
        loop {
            if let Some(sighting) = self.waiting.pop_front() {
                return Ok(Some(sighting));
            }
            tokio::select! {
                biased;
                () = hub.stopping().cancelled() => return Ok(None),
                told = self.watch.next() => {
                    let Some((missed, transitions)) = told else { return Ok(None) };
                    self.missed += missed;
                    self.hear(transitions);
                }
                _ = self.tick.tick() => {
                    hub.admit_still(&self.ctx).await?;
                    // A database that is away for a moment is no reason to stop watching.
                    if let Err(error) = self.look().await {
                        tracing::debug!(%error, "the queue could not be looked at");
                    }
                }
            }
        }
    }

    fn hear(&mut self, transitions: Vec<Transition>) {
        let shared = self.hub.store.dialect().is_shared();
        for transition in transitions {
            if shared {
                if self.looked.has(&transition) {
                    continue;
                }
                self.told.remember(&transition);
            }
            self.add(transition);
        }
    }

    /// Looks at what other hubs did. What this hub did may be seen before it is told, so whatever is seen waits for
    /// the next look, and is told then if this hub has not told it: nothing overtakes what came before it.
    async fn look(&mut self) -> Result<()> {
        let seen = self.snapshot().await?;
        for transition in std::mem::take(&mut self.suspects) {
            if !self.told.has(&transition) && self.looked.remember(&transition) {
                self.add(transition);
            }
        }
        let is_new = |transition: &Transition| !self.told.has(transition) && !self.looked.has(transition);
        self.suspects = seen.into_iter().filter(is_new).collect();
        Ok(())
    }

    /// The ends of the queue, where other hubs can be at it.
    async fn snapshot(&self) -> Result<Vec<Transition>> {
        let store = &self.hub.store;
        match store.dialect().is_shared() {
            true => storage::job::snapshot(store.read(), store.dialect()).await,
            false => Ok(Vec::new()),
        }
    }

    fn add(&mut self, transition: Transition) {
        if self.filter.admits(&transition) {
            let missed = std::mem::take(&mut self.missed);
            self.waiting.push_back(Sighting { transition: Some((self.hub.now(), transition)), missed });
        }
    }
}

/// The transitions seen last.
#[derive(Default)]
struct Memory {
    known: HashSet<(Uuid, JobStep, i64)>,
    order: VecDeque<(Uuid, JobStep, i64)>,
}

impl Memory {
    fn has(&self, transition: &Transition) -> bool {
        self.known.contains(&key(transition))
    }

    /// False when it was known.
    fn remember(&mut self, transition: &Transition) -> bool {
        if !self.known.insert(key(transition)) {
            return false;
        }
        self.order.push_back(key(transition));
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn key(transition: &Transition) -> (Uuid, JobStep, i64) {
    (transition.id, transition.step, transition.lease)
}
