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
    order: Order,
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
            order: Order::default(),
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
        let standing = self.snapshot().await?;
        self.order.begin(&standing);
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
            let told = if shared { self.order.hear(transition) } else { vec![transition] };
            told.into_iter().for_each(|transition| self.add(transition));
        }
    }

    /// Looks at what other hubs did.
    async fn look(&mut self) -> Result<()> {
        let seen = self.snapshot().await?;
        self.order.see(seen).into_iter().for_each(|transition| self.add(transition));
        Ok(())
    }

    /// The ends of the queue, where other hubs can be at it.
    async fn snapshot(&self) -> Result<Vec<Transition>> {
        let store = &self.hub.store;
        match store.dialect().is_shared() {
            true => storage::job::snapshot(store.read(), store.dialect(), store.kinds()).await,
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

/// Puts together what this hub tells and what looking shows, so that each transition is told once and none of a job
/// before one that came earlier.
///
/// What this hub did may be seen before it is told. So whatever is seen waits for the next look, and is told then if
/// this hub has not told it; or sooner, when this hub tells what came after it.
#[derive(Default)]
struct Order {
    /// Told by this hub.
    told: Memory,
    /// Seen by looking, and told.
    looked: Memory,
    /// Seen by the last look, and not told yet.
    suspects: Vec<Transition>,
}

impl Order {
    /// What stands already is not told.
    fn begin(&mut self, standing: &[Transition]) {
        for transition in standing {
            self.looked.remember(transition);
        }
    }

    /// This hub tells; what is to be told now, in order.
    fn hear(&mut self, transition: Transition) -> Vec<Transition> {
        let (before, rest) = std::mem::take(&mut self.suspects).into_iter().partition(|one| precedes(one, &transition));
        self.suspects = rest;
        let mut now = self.release(before);
        if !self.looked.has(&transition) {
            self.told.remember(&transition);
            now.push(transition);
        }
        now
    }

    /// A look has shown this; what is to be told now, in order.
    fn see(&mut self, seen: Vec<Transition>) -> Vec<Transition> {
        let suspects = std::mem::take(&mut self.suspects);
        let now = self.release(suspects);
        let is_new = |transition: &Transition| !self.told.has(transition) && !self.looked.has(transition);
        self.suspects = seen.into_iter().filter(is_new).collect();
        now
    }

    fn release(&mut self, suspects: Vec<Transition>) -> Vec<Transition> {
        let is_news = |transition: &Transition| !self.told.has(transition) && self.looked.remember(transition);
        suspects.into_iter().filter(is_news).collect()
    }
}

/// Whether one transition came before the other of the same job. A claim raises the lease, and whatever happens under
/// a lease comes after it.
fn precedes(one: &Transition, other: &Transition) -> bool {
    let place = |transition: &Transition| {
        let stage = match transition.step {
            JobStep::Enqueued => 0,
            JobStep::Running => 1,
            JobStep::Scheduled => 2,
            JobStep::Ready | JobStep::Held => 3,
            JobStep::Done | JobStep::Dead | JobStep::Cancelled => 4,
        };
        (transition.lease, stage)
    };
    one.id == other.id && place(one) < place(other)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Json;
    use crate::model::job::{JobKind, NewJob};

    fn job() -> impl Fn(JobStep, i64) -> Transition {
        let job = NewJob::new(JobKind::Probe, "key", Json::Null, Instant::default());
        move |step, lease| Transition { step, lease, ..Transition::enqueued(&job) }
    }

    #[test]
    fn what_this_hub_did_is_told_by_it_though_a_look_saw_the_end_first() {
        let (mut order, job) = (Order::default(), job());
        let (enqueued, running, done) = (job(JobStep::Enqueued, 0), job(JobStep::Running, 1), job(JobStep::Done, 1));
        assert_eq!(order.see(vec![done.clone()]), [], "it may be this hub's, which is about to tell");
        for told in [&enqueued, &running, &done] {
            assert_eq!(order.hear(told.clone()), vec![told.clone()]);
        }
        assert_eq!(order.see(vec![done]), [], "it was told");
    }

    #[test]
    fn what_another_hub_did_is_told_at_the_next_look_or_before_what_this_hub_does_next() {
        let (mut order, job, other) = (Order::default(), job(), job());
        let (enqueued, running, done) = (job(JobStep::Enqueued, 0), job(JobStep::Running, 1), job(JobStep::Done, 1));
        assert_eq!(order.see(vec![enqueued.clone(), other(JobStep::Enqueued, 0)]), []);
        assert_eq!(order.hear(running.clone()), [enqueued.clone(), running], "the claim is after the wish");
        assert_eq!(order.see(vec![done.clone()]), [other(JobStep::Enqueued, 0)]);
        assert_eq!(order.see(vec![done.clone()]), vec![done.clone()]);
        assert_eq!((order.see(vec![done.clone()]), order.hear(enqueued)), (vec![], vec![]), "once");
    }

    #[test]
    fn what_stood_before_is_no_news() {
        let (mut order, job) = (Order::default(), job());
        order.begin(&[job(JobStep::Enqueued, 0)]);
        assert_eq!(order.see(vec![job(JobStep::Enqueued, 0)]), []);
        assert_eq!(order.see(vec![]), []);
        assert_eq!(order.hear(job(JobStep::Enqueued, 0)), []);
    }
}
