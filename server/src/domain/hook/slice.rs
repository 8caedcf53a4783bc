//! A slice: what a job does for one webhook. It sends what is due, so many at once, takes up what comes meanwhile, and
//! leaves the next job behind when it ends.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant as Moment, MissedTickBehavior};
use uuid::Uuid;

use super::job_at;
use super::record::{Learnt, Try};
use crate::domain::Hub;
use crate::model::hook::Hook;
use crate::model::hook::secret::{Secret, sign};
use crate::model::job::{Job, JobKind, Outcome};
use crate::model::seal::Unsealable;
use crate::model::{Error, Result};
use crate::storage;
use crate::storage::hook::{PREVIOUS_SECRET, SECRET, SealedSecrets};
use crate::storage::hook_delivery::{Due, Priority};
use crate::storage::job::Listener;

/// Deliveries read at once.
const CHUNK: usize = 256;
/// Tries that wait to be recorded at most: so many are repeated at most, beside those on their way, when a hub dies.
const UNRECORDED: usize = 256;
/// How long a slice goes on while others may wait for its place.
const TURN: Duration = Duration::from_secs(2);
/// How long a slice goes on in any case; with the longest call it is far from its job's deadline.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a slice with nothing to do waits for more: less than it costs to end it and begin another.
const LINGER: Duration = Duration::from_millis(100);
/// How often what other hubs made is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long a result is kept back while the database is away.
const AWAY: Duration = Duration::from_secs(1);
/// How long a webhook waits whose secrets cannot be opened.
const POSTPONED: TimeDelta = TimeDelta::minutes(5);
/// Deliveries one transaction holds.
const HELD: u64 = 1_000;

impl Hub {
    /// Tells a webhook what is due.
    pub(in crate::domain) async fn tell_webhook(&self, job: &Job) -> Outcome {
        match self.try_tell_webhook(job).await {
            Ok(()) => Outcome::Done(None),
            Err(error) => {
                tracing::warn!(job = %job.id, %error, context = ?error, "a webhook could not be read or noted");
                Outcome::retry(error)
            }
        }
    }

    async fn try_tell_webhook(&self, job: &Job) -> Result<()> {
        let id = Uuid::parse_str(&job.key).map_err(|_| Error::internal("the key of a delivery is no webhook"))?;
        let _place = self.hooks.enter();
        if self.stopping.is_cancelled() {
            // Nothing new is begun while the hub stops, and the job is not to come back at once.
            tokio::time::sleep(AWAY).await;
            return self.leave_job(id, false).await;
        }
        let listener = self.store.listen(JobKind::WebhookDelivery, &job.key);
        let Some((hook, sealed)) = storage::hook::find_sealed(self.store.read(), id).await? else { return Ok(()) };
        let secrets = match self.open_secrets(&hook, &sealed) {
            Ok(secrets) => secrets,
            Err(why) => {
                tracing::error!(webhook_id = %id, %why, "a webhook's secret cannot be decrypted; nothing is sent to it");
                return self.leave_job(id, true).await;
            }
        };
        let mut slice = Slice::new(self, hook, sealed, secrets);
        let ended = slice.run(listener).await;
        self.hooks.forget_pace(id);
        ended?;
        self.leave_job(id, false).await
    }

    /// The secrets of a webhook that are good now, the newest first.
    fn open_secrets(&self, hook: &Hook, sealed: &SealedSecrets) -> std::result::Result<Vec<Secret>, Unsealable> {
        let open = |purpose, sealed: &str| {
            let opened = self.sealer.open(purpose, hook.id, sealed)?;
            let text = String::from_utf8(opened).map_err(|_| Unsealable::Damaged)?;
            Secret::parse(&text).map_err(|_| Unsealable::Damaged)
        };
        let mut secrets = vec![open(SECRET, &sealed.current)?];
        let is_good = hook.previous_secret_expires_at.is_some_and(|until| until > self.now());
        if let Some(previous) = sealed.previous.as_deref().filter(|_| is_good) {
            secrets.push(open(PREVIOUS_SECRET, previous)?);
        }
        Ok(secrets)
    }

    /// Leaves the job that goes on: now, when the next delivery is due, or when the breaker closes. What waits for a
    /// webhook that is disabled is held instead.
    async fn leave_job(&self, id: Uuid, is_postponed: bool) -> Result<()> {
        loop {
            let input = (id, self.now(), is_postponed);
            let is_over = self.store.write(input, |tx, (id, now, is_postponed)| {
                Box::pin(async move {
                    let Some(hook) = storage::hook::find(tx.reader(), *id).await? else { return Ok(true) };
                    let open_until = hook.breaker.open(*now);
                    let last = if hook.is_active && open_until.is_none() { Priority::Replay } else { Priority::Test };
                    let dialect = tx.dialect();
                    let next = storage::hook_delivery::next_due(tx.reader(), dialect, *id, last).await?;
                    if let Some(next) = next {
                        let next = if *is_postponed { next.max(*now + POSTPONED) } else { next };
                        tx.enqueue(job_at(*id, next, *now));
                    }
                    if let Some(open_until) = open_until.filter(|_| hook.is_active) {
                        let waits =
                            storage::hook_delivery::next_due(tx.reader(), dialect, *id, Priority::Replay).await?;
                        if let Some(next) = waits {
                            tx.enqueue(job_at(*id, next.max(open_until), *now));
                        }
                    }
                    let is_over = hook.is_active || storage::hook_delivery::hold(tx, *id, HELD).await? < HELD;
                    Ok(is_over)
                })
            });
            if is_over.await? {
                return Ok(());
            }
        }
    }
}

type Sending<'a> = FuturesUnordered<BoxFuture<'a, Try>>;
type Recording<'a> = FuturesUnordered<BoxFuture<'a, (Uuid, Result<Option<Learnt>>)>>;

struct Slice<'a> {
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
    fn new(hub: &'a Hub, hook: Hook, sealed: SealedSecrets, secrets: Vec<Secret>) -> Slice<'a> {
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
            begun: Moment::now(),
        }
    }

    async fn run(&mut self, mut listener: Listener) -> Result<()> {
        let hub = self.hub;
        let mut look = tokio::time::interval_at(self.begun + LOOK, LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle_since = None;
        loop {
            let mut paced = None;
            let takes = !hub.stopping.is_cancelled() && !self.is_over();
            if takes {
                paced = self.begin().await?;
            }
            let is_idle = self.sending.is_empty() && self.recording.is_empty();
            if is_idle && !takes {
                return Ok(());
            }
            let until = match (is_idle, paced) {
                (true, None) => Some(*idle_since.get_or_insert_with(Moment::now) + LINGER),
                _ => {
                    idle_since = None;
                    paced
                }
            };
            tokio::select! {
                biased;
                () = hub.stopping.cancelled(), if takes => {}
                Some((id, learnt)) = self.recording.next(), if !self.recording.is_empty() => self.recorded(id, learnt?),
                Some(done) = self.sending.next(), if !self.sending.is_empty() => self.record(done),
                () = listener.heard() => self.heard(),
                _ = look.tick() => self.heard(),
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
        age >= LONGEST || (age >= TURN && self.hub.hooks.is_crowded())
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
        if self.sending.len() >= most || self.recording.len() >= UNRECORDED || !is_judged {
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
        let Some((hook, sealed)) = storage::hook::find_sealed(store.read(), id).await? else {
            self.waiting.clear();
            return Ok(());
        };
        let has_expired = self.secrets.len() > 1 && hook.previous_secret_expires_at.is_none_or(|until| until <= now);
        if sealed != self.sealed || has_expired {
            let opened = hub.open_secrets(&hook, &sealed);
            self.secrets = opened.map_err(|why| Error::internal(format!("a webhook's secret: {why}")))?.into();
            self.sealed = sealed;
        }
        let was_closed = is_closed;
        self.hook = Arc::new(hook);
        let is_closed = !self.hook.is_active || self.hook.breaker.open(now).is_some();
        // It was opened or made active meanwhile.
        self.looks |= was_closed && !is_closed;
        Ok(())
    }

    fn record(&mut self, done: Try) {
        let (hub, done) = (self.hub, Arc::new(done));
        self.recording.push(Box::pin(async move {
            loop {
                match hub.hooks.tries.submit(done.clone()).await {
                    // It is known how it ended: that is not given up for a database that is away.
                    Err(error @ Error::Unavailable { .. }) => {
                        tracing::warn!(%error, context = ?error, "a try of a delivery could not be recorded; it is tried again");
                        tokio::time::sleep(AWAY).await;
                    }
                    answer => return (done.id(), answer),
                }
            }
        }));
    }

    fn recorded(&mut self, id: Uuid, learnt: Option<Learnt>) {
        self.outstanding.remove(&id);
        let Some(Learnt { is_active, breaker }) = learnt else { return };
        if (self.hook.is_active, self.hook.breaker) != (is_active, breaker) {
            let hook = Arc::make_mut(&mut self.hook);
            (hook.is_active, hook.breaker) = (is_active, breaker);
        }
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
