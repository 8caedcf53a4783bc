//! A slice: what a job does for one webhook. It sends what is due, so many at once, and takes up what comes meanwhile.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant as Moment, MissedTickBehavior};
use uuid::Uuid;

use super::record::{Learnt, Try};
use crate::domain::Hub;
use crate::model::hook::Hook;
use crate::model::hook::secret::{Secret, sign};
use crate::model::{Error, Instant, Result};
use crate::storage;
use crate::storage::hook::SealedSecrets;
use crate::storage::hook_delivery::{Due, Priority};
use crate::storage::job::Listener;

/// Deliveries read at once.
const CHUNK: usize = 256;
/// How long a slice goes on while others may wait for its place.
const TURN: Duration = Duration::from_secs(2);
/// How long a slice goes on in any case; with the longest call it is far from its job's deadline.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a slice with nothing to do waits for more: less than it costs to end it and begin another.
const LINGER: Duration = Duration::from_millis(100);
/// How often what other hubs made is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a result is kept back while the database is away.
pub(super) const AWAY: Duration = Duration::from_secs(1);

type Sending<'a> = FuturesUnordered<BoxFuture<'a, Try>>;
type Recording<'a> = FuturesUnordered<BoxFuture<'a, (Uuid, Result<Option<Learnt>>)>>;

/// One webhook's work.
pub(super) struct Slice<'a> {
    hub: &'a Hub,
    hook: Arc<Hook>,
    sealed: SealedSecrets,
    secrets: Arc<[Secret]>,
    /// Read, and not begun.
    waiting: VecDeque<Due>,
    /// Begun, and not recorded.
    outstanding: HashSet<Uuid>,
    sending: Sending<'a>,
    recording: Recording<'a>,
    /// Whether something may be due that is not read.
    looks: bool,
    /// Whether the webhook may be another than it was read.
    is_stale: bool,
    /// How often webhooks had been changed here before it was read.
    changes: u64,
    begun: Moment,
}

/// What keeps a slice from the next try.
enum Next {
    /// It was begun.
    Begun,
    /// Another must end first.
    Full,
    /// The rate does not allow it before.
    Paced(Moment),
    /// Nothing that is known of is due.
    Nothing,
}

impl<'a> Slice<'a> {
    /// Of a webhook as it was read when so many had been changed here.
    pub fn new(hub: &'a Hub, hook: Hook, sealed: SealedSecrets, secrets: Vec<Secret>, changes: u64) -> Slice<'a> {
        Slice {
            hub,
            hook: Arc::new(hook),
            sealed,
            secrets: secrets.into(),
            waiting: VecDeque::new(),
            outstanding: HashSet::new(),
            sending: FuturesUnordered::new(),
            recording: FuturesUnordered::new(),
            looks: true,
            is_stale: false,
            changes,
            begun: Moment::now(),
        }
    }

    /// Tells it what is due until nothing is, or its turn is over.
    pub async fn run(&mut self, mut listener: Listener) -> Result<()> {
        let hub = self.hub;
        let mut look = tokio::time::interval_at(self.begun + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for done in hub.hooks.left_unrecorded(self.hook.id) {
            self.record(done);
        }
        let mut idle_since = None;
        let mut failure = None;
        loop {
            let mut paced = None;
            let takes = failure.is_none() && !hub.stopping.is_cancelled() && !self.is_over();
            if takes {
                match self.begin().await {
                    Ok(until) => paced = until,
                    // What is on its way is waited for and recorded all the same.
                    Err(error) => {
                        failure = Some(error);
                        continue;
                    }
                }
            }
            let is_idle = self.sending.is_empty() && self.recording.is_empty();
            if is_idle && !takes {
                return failure.map_or(Ok(()), Err);
            }
            let until = match (is_idle, paced) {
                // Whoever else needs the place does not wait for what may come.
                (true, None) if hub.hooks.is_awaited(self.hook.integration_id) => return failure.map_or(Ok(()), Err),
                (true, None) => Some(*idle_since.get_or_insert_with(Moment::now) + LINGER),
                _ => {
                    idle_since = None;
                    paced
                }
            };
            tokio::select! {
                biased;
                () = hub.stopping.cancelled(), if takes => {}
                Some((id, learnt)) = self.recording.next(), if !self.recording.is_empty() => {
                    if let Err(error) = self.recorded(id, learnt) {
                        failure.get_or_insert(error);
                    }
                }
                Some(done) = self.sending.next(), if !self.sending.is_empty() => self.record(Arc::new(done)),
                () = listener.heard() => self.heard(),
                _ = look.tick() => {
                    self.is_stale = true;
                    self.heard();
                }
                () = reached(until) => {
                    if paced.is_none() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Whether its turn is over.
    fn is_over(&self) -> bool {
        let age = self.begun.elapsed();
        let hooks = &self.hub.hooks;
        age >= LONGEST || (age >= TURN && (hooks.is_crowded() || hooks.is_awaited(self.hook.integration_id)))
    }

    /// Something may have come: what was missed before does not go before it.
    fn heard(&mut self) {
        self.looks = true;
        if self.waiting.front().is_some_and(|due| due.priority > Priority::New as i32) {
            self.waiting.clear();
        }
    }

    /// Begins as many tries as may be; answers with when there may be another, if only the rate stands against it.
    async fn begin(&mut self) -> Result<Option<Moment>> {
        loop {
            // What was read may be of another address, deleted, or no longer to be sent.
            if !self.waiting.is_empty() && (self.is_stale || self.changes != self.hub.hooks.changes()) {
                self.refresh().await?;
            }
            match self.try_next() {
                Next::Begun => {}
                Next::Full => return Ok(None),
                Next::Paced(at) => return Ok(Some(at)),
                Next::Nothing if !self.looks => return Ok(None),
                Next::Nothing => self.look().await?,
            }
        }
    }

    fn try_next(&mut self) -> Next {
        let Some(due) = self.waiting.front() else { return Next::Nothing };
        let rules = &self.hub.hooks.rules;
        let now = self.hub.now();
        let is_closed = !self.hook.is_active || self.hook.breaker.open(now).is_some();
        if is_closed && !due.is_test {
            // What may still go out is read anew.
            self.waiting.clear();
            self.looks = true;
            return Next::Nothing;
        }
        // One alone shows whether the receiver is back.
        let most = if self.hook.breaker.is_half_open(now) && !due.is_test { 1 } else { rules.endpoint_concurrency };
        let is_judged = most > 1 || self.recording.is_empty();
        // What is received and not recorded is repeated when the hub dies, so it is no more than what is on its way.
        if self.sending.len() >= most || self.recording.len() >= rules.endpoint_concurrency || !is_judged {
            return Next::Full;
        }
        if let Some(per_second) = self.hook.rate_limit
            && let Err(at) = self.hub.hooks.pace(self.hook.id, per_second)
        {
            return Next::Paced(at);
        }
        let Some(due) = self.waiting.pop_front() else { return Next::Nothing };
        self.outstanding.insert(due.id);
        self.sending.push(send(self.hub, self.hook.clone(), self.secrets.clone(), due));
        Next::Begun
    }

    /// Reads what is due, and then the webhook, so that it is as new as what is read for it.
    async fn look(&mut self) -> Result<()> {
        let hub = self.hub;
        let (now, id) = (hub.now(), self.hook.id);
        let is_closed = !self.hook.is_active || self.hook.breaker.open(now).is_some();
        let last = if is_closed { Priority::Test } else { Priority::Replay };
        let most = CHUNK + self.outstanding.len();
        self.looks = false;
        let store = &hub.store;
        let found = storage::hook_delivery::due(store.read(), store.dialect(), id, now, last, most).await?;
        // A full chunk may not be all there is.
        self.looks = found.len() == most;
        self.waiting = found.into_iter().filter(|due| !self.outstanding.contains(&due.id)).collect();
        if self.waiting.is_empty() {
            self.looks = false;
            return Ok(());
        }
        self.read_hook(now).await?;
        let was_closed = is_closed;
        let is_closed = !self.hook.is_active || self.hook.breaker.open(now).is_some();
        // It was opened or made active meanwhile.
        self.looks |= was_closed && !is_closed;
        Ok(())
    }

    /// Reads the webhook anew; what waits is read anew too when it is another.
    async fn refresh(&mut self) -> Result<()> {
        let before = self.hook.generation;
        let was_active = self.hook.is_active;
        self.read_hook(self.hub.now()).await?;
        if self.hook.generation != before || self.hook.is_active != was_active {
            self.waiting.clear();
            self.looks = true;
        }
        Ok(())
    }

    async fn read_hook(&mut self, now: Instant) -> Result<()> {
        let (hub, id) = (self.hub, self.hook.id);
        let changes = hub.hooks.changes();
        let Some((hook, sealed)) = storage::hook::find_sealed(hub.store.read(), id).await? else {
            self.waiting.clear();
            (self.is_stale, self.changes) = (false, changes);
            return Ok(());
        };
        let has_expired = self.secrets.len() > 1 && hook.previous_secret_expires_at.is_none_or(|until| until <= now);
        if sealed != self.sealed || has_expired {
            let opened = hub.open_secrets(&hook, &sealed);
            self.secrets = opened.map_err(|why| Error::internal(format!("a webhook's secret: {why}")))?.into();
            self.sealed = sealed;
        }
        self.hook = Arc::new(hook);
        (self.is_stale, self.changes) = (false, changes);
        Ok(())
    }

    /// Has a try recorded. A slice that is dropped meanwhile, as it is when the hub loses its lease while the database is
    /// away, leaves that to the next one of its webhook.
    fn record(&mut self, done: Arc<Try>) {
        let (hooks, id) = (&self.hub.hooks, done.id());
        super::lock(&hooks.unrecorded).insert(id, done.clone());
        self.outstanding.insert(id);
        self.recording.push(Box::pin(async move {
            loop {
                match hooks.tries.submit(done.clone()).await {
                    // It is known how it ended: that is not given up for a database that is away.
                    Err(error @ Error::Unavailable { .. }) => {
                        tracing::warn!(%error, context = ?error, "a try of a delivery could not be recorded; it is tried again");
                        tokio::time::sleep(AWAY).await;
                    }
                    answer => {
                        super::lock(&hooks.unrecorded).remove(&id);
                        return (id, answer);
                    }
                }
            }
        }));
    }

    fn recorded(&mut self, id: Uuid, learnt: Result<Option<Learnt>>) -> Result<()> {
        self.outstanding.remove(&id);
        let Some(Learnt { is_active, breaker, generation }) = learnt? else {
            // It was made up, or not believed: then another had it, or it is gone.
            self.is_stale = true;
            return Ok(());
        };
        if generation != self.hook.generation {
            self.is_stale = true;
        } else if (self.hook.is_active, self.hook.breaker) != (is_active, breaker) {
            let hook = Arc::make_mut(&mut self.hook);
            (hook.is_active, hook.breaker) = (is_active, breaker);
        }
        Ok(())
    }
}

fn send(hub: &Hub, hook: Arc<Hook>, secrets: Arc<[Secret]>, mut due: Due) -> BoxFuture<'_, Try> {
    Box::pin(async move {
        let (began_at, begun) = (hub.now(), Moment::now());
        let body = std::mem::take(&mut due.payload);
        let post = sign(&secrets, &hook.url, due.id, began_at.timestamp(), body);
        let answer = hub.hooks.rules.sender.send(post).await;
        Try::new(&hook, &due, answer, began_at, begun.elapsed(), hub.now())
    })
}

async fn reached(moment: Option<Moment>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
