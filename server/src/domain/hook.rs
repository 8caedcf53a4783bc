//! Webhooks the hub sends.
//!
//! The cast: [`tell`] makes a delivery for each webhook that asks for an event, in the transaction that causes it, and
//! enqueues one job for each of those webhooks; the job is a [`slice`](slice) of one webhook's work: it sends what is
//! due, several at once, and takes up what comes meanwhile; [`record`] notes how tries ended, as sets; [`manage`] and
//! [`deliveries`] are what an administrator does.
//!
//! Guaranteed:
//! - A delivery exists if and only if what it tells is committed. It is tried until it is received or given up, at least
//!   once, whatever happens to this server; its body and its id are the same on every try.
//! - A try is believed only if nobody made one since: of two servers that send at once, one result counts.
//! - One webhook is worked on by one server at a time, with so many calls at once. Jobs of webhooks have places of their
//!   own in the queue (`WEBHOOK_CONCURRENCY`), and those of one integration have a quarter of them at most, however many
//!   of its receivers hang. A place that others may be waiting for is given up after two seconds and the calls that are
//!   under way by then: so even when every place hangs, one is free within two seconds and `WEBHOOK_TIMEOUT`.
//! - What an administrator changes holds for the next call: at once on the server that changed it, within a second on
//!   others. What was sent before says nothing of a webhook that was sent elsewhere or made active since.
//! - A server that dies repeats, of one webhook, no more than twice as many deliveries as it is called with at once.
//! - Nothing is held in a transaction over a call.
//!
//! Not guaranteed: that a delivery is sent only once (it may have been received when its server died), nor an order.

mod deliveries;
mod job;
pub mod manage;
mod record;
mod slice;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant as Moment;
use uuid::Uuid;

use super::Hub;
use crate::model::hook::{DeliveryStatus, HookSender, IntegrationEvent};
use crate::model::job::{JobKind, NewJob};
use crate::model::{Instant, Result};
use crate::storage::hook_delivery::NewDelivery;
use crate::storage::{self, Lane, Store, WriteTx};

/// Tries of a webhook's job: it must never be given up while something waits for it.
const JOB_RETRIES: i32 = 1_000_000;
/// Webhooks that are looked after in one go.
const ROUSED: u64 = 1_000;
/// One integration has one of so many parts of the places at most.
const SHARES: usize = 4;
/// How far ahead of its rate a webhook may be: a timer is no more exact.
const BURST: Duration = Duration::from_millis(10);

/// How webhooks are told.
#[derive(Clone)]
pub struct HookRules {
    /// Makes the calls.
    pub sender: Arc<dyn HookSender>,
    /// `WEBHOOK_CONCURRENCY`: webhooks that are told at once by this hub.
    pub concurrency: usize,
    /// `WEBHOOK_ENDPOINT_CONCURRENCY`: calls to one of them at once.
    pub endpoint_concurrency: usize,
    /// `WEBHOOK_DISABLE_AFTER`: deliveries in a row that fail for good until a webhook is disabled.
    pub disable_after: i32,
}

/// The hub's part for the webhooks it sends.
pub(super) struct Hooks {
    rules: HookRules,
    tries: Lane<record::TryBatch>,
    /// Slices that are under way here.
    running: AtomicUsize,
    /// How many of them are of each integration.
    shares: Mutex<HashMap<Uuid, usize>>,
    /// Webhooks of each integration that wait because it has its share.
    turned_away: Mutex<HashMap<Uuid, BTreeSet<Uuid>>>,
    /// How often webhooks were changed here.
    changes: AtomicU64,
    /// Tries that are over and not recorded yet, by their deliveries, whatever became of the slice that made them.
    unrecorded: Mutex<HashMap<Uuid, Arc<record::Try>>>,
    /// When each webhook with a rate limit may be called next; those that may be at once are not in it.
    paces: Mutex<HashMap<Uuid, Moment>>,
}

impl Hooks {
    pub(super) fn new(store: &Store, rules: HookRules) -> Hooks {
        Hooks {
            tries: store.lane(record::TryBatch { disable_after: rules.disable_after }),
            running: AtomicUsize::new(0),
            shares: Mutex::default(),
            turned_away: Mutex::default(),
            changes: AtomicU64::new(0),
            unrecorded: Mutex::default(),
            paces: Mutex::default(),
            rules,
        }
    }

    /// Counts a slice for as long as what it answers with lives.
    fn enter(&self) -> impl Drop {
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.running.fetch_add(1, Ordering::Relaxed);
        Place(&self.running)
    }

    /// Takes a place for a webhook of an integration, for as long as what it answers with lives; `None` when the
    /// integration has its share: then it is noted that the webhook waits for one.
    fn share(&self, integration_id: Uuid, webhook_id: Uuid) -> Option<impl Drop> {
        struct Share<'a>(&'a Hooks, Uuid);
        impl Drop for Share<'_> {
            fn drop(&mut self) {
                let mut shares = lock(&self.0.shares);
                if let Some(taken) = shares.get_mut(&self.1) {
                    *taken -= 1;
                    if *taken == 0 {
                        shares.remove(&self.1);
                    }
                }
            }
        }
        let most = (self.rules.concurrency / SHARES).max(1);
        let mut shares = lock(&self.shares);
        let taken = shares.entry(integration_id).or_insert(0);
        if *taken >= most {
            // Noted before anybody can give a place up, so that whoever does finds it.
            lock(&self.turned_away).entry(integration_id).or_default().insert(webhook_id);
            return None;
        }
        *taken += 1;
        Some(Share(self, integration_id))
    }

    /// What a slice of a webhook that was dropped has not recorded.
    fn left_unrecorded(&self, webhook_id: Uuid) -> Vec<Arc<record::Try>> {
        lock(&self.unrecorded).values().filter(|done| done.webhook_id() == webhook_id).cloned().collect()
    }

    /// Whether a webhook waits for a place of this integration.
    fn is_awaited(&self, integration_id: Uuid) -> bool {
        lock(&self.turned_away).contains_key(&integration_id)
    }

    /// A webhook that waits for a place of this integration, for whoever has given one up.
    fn next_turned_away(&self, integration_id: Uuid) -> Option<Uuid> {
        let mut turned_away = lock(&self.turned_away);
        let waiting = turned_away.get_mut(&integration_id)?;
        let next = waiting.pop_first();
        if waiting.is_empty() {
            turned_away.remove(&integration_id);
        }
        next
    }

    /// Notes that a webhook was changed: whoever tells one here reads it anew before the next call.
    fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether every place is taken, so that others may be waiting.
    fn is_crowded(&self) -> bool {
        self.running.load(Ordering::Relaxed) >= self.rules.concurrency
    }

    /// Takes the next call of a webhook with a rate limit, or says when there is one.
    fn pace(&self, webhook_id: Uuid, per_second: i32) -> std::result::Result<(), Moment> {
        let now = Moment::now();
        let step = Duration::from_secs(1) / per_second.max(1).unsigned_abs();
        let mut paces = lock(&self.paces);
        let next = paces.get(&webhook_id).copied().unwrap_or(now).max(now);
        if next > now + BURST {
            return Err(next - BURST);
        }
        paces.insert(webhook_id, next + step);
        Ok(())
    }

    /// Forgets the pace of a webhook that is not ahead of it.
    fn forget_pace(&self, webhook_id: Uuid) {
        let now = Moment::now();
        let mut paces = lock(&self.paces);
        if paces.get(&webhook_id).is_some_and(|next| *next <= now) {
            paces.remove(&webhook_id);
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The job that tells a webhook what is due.
fn job_now(webhook_id: Uuid, now: Instant) -> NewJob {
    let key = webhook_id.to_string();
    let job = NewJob::new(JobKind::WebhookDelivery, key.clone(), json!({}), now).unique(key);
    NewJob { max_retries: Some(JOB_RETRIES), ..job }
}

/// The job that tells a webhook what is due then. Of one time there is one: a job that waits cannot be made to come
/// earlier, so that another time needs another.
fn job_at(webhook_id: Uuid, at: Instant, now: Instant) -> NewJob {
    if at <= now {
        return job_now(webhook_id, now);
    }
    let key = format!("{webhook_id}/{}", at.timestamp_micros());
    NewJob { run_at: Some(at), ..job_now(webhook_id, now).unique(key) }
}

/// Tells the webhooks of each event's integration that ask for it, in the transaction of what caused it. Those that are
/// disabled have theirs held for a replay.
///
/// It makes as many deliveries as events times [`MOST_HOOKS`](crate::model::hook::MOST_HOOKS) at most: whoever collects
/// events into a transaction bounds them by that.
pub async fn tell(tx: &mut WriteTx, events: &[IntegrationEvent], now: Instant) -> Result<()> {
    let integrations: BTreeSet<Uuid> = events.iter().map(|event| event.integration_id).collect();
    if integrations.is_empty() {
        return Ok(());
    }
    let listeners = storage::hook::listeners(tx, &integrations).await?;
    let mut deliveries = Vec::new();
    let mut jobs: BTreeMap<Uuid, NewJob> = BTreeMap::new();
    for event in events {
        let mut text = None;
        let asks = |name: &&storage::hook::Listener| {
            name.integration_id == event.integration_id && name.events.iter().any(|asked| asked == event.name)
        };
        for listener in listeners.iter().filter(asks) {
            let status = if listener.is_active { DeliveryStatus::Pending } else { DeliveryStatus::Held };
            if listener.is_active {
                // While the breaker is open there is nothing to be done before it closes.
                jobs.entry(listener.id).or_insert_with(|| job_at(listener.id, listener.open_until.unwrap_or(now), now));
            }
            deliveries.push(NewDelivery {
                id: Uuid::now_v7(),
                webhook_id: listener.id,
                integration_id: event.integration_id,
                event: event.name.to_owned(),
                payload: text.get_or_insert_with(|| event.text()).clone(),
                status,
                is_test: false,
                created_at: event.at,
                due_at: now,
            });
        }
    }
    storage::hook_delivery::insert(tx, &deliveries).await?;
    jobs.into_values().for_each(|job| tx.enqueue(job));
    Ok(())
}

impl Hub {
    /// Sees to it that whatever is due has a job, also when somebody has called one off.
    pub(super) async fn rouse_webhooks(&self) -> Result<()> {
        let (store, now) = (&self.store, self.now());
        let overdue = storage::hook::overdue(store.read(), store.dialect(), now, ROUSED).await?;
        if overdue.is_empty() {
            return Ok(());
        }
        let rouse = store.write((overdue, now), |tx, (overdue, now)| {
            Box::pin(async move {
                let keys: Vec<String> = overdue.iter().map(Uuid::to_string).collect();
                let busy = storage::job::busy_keys(tx, JobKind::WebhookDelivery, &keys).await?;
                let idle = overdue.iter().zip(keys).filter(|(_, key)| !busy.contains(key));
                idle.for_each(|(id, _)| tx.enqueue(job_now(*id, *now)));
                Ok(())
            })
        });
        rouse.await
    }

    /// What becomes of a webhook whose job was set aside: another takes its place a little later, because what waits
    /// for it must not wait for ever.
    pub(super) fn webhook_job_died(&self, tx: &mut WriteTx, webhook_id: &str) {
        const PAUSE: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
        let now = self.now();
        if let Ok(id) = Uuid::parse_str(webhook_id) {
            tx.enqueue(job_at(id, now + PAUSE, now));
        }
    }
}
