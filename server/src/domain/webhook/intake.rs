//! How webhooks are stored: sets of arrivals, refusals and fates, each in a few statements.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use uuid::Uuid;

use crate::model::event::{EventKind, EventStatus, NewEvent};
use crate::model::job::{JobKind, NewJob};
use crate::model::webhook::{Arrival, DeliveryKey, Receipt, Rejection, Task, WebhookEvent};
use crate::model::{Error, Instant, Result};
use crate::storage::webhook::{self as stored, Fate, Known};
use crate::storage::{Batch, Emit, WriteTx};

/// The lane of arrivals: what was answered is in the ledger, in the log, and in the queue.
pub struct ArrivalBatch;

impl Batch for ArrivalBatch {
    type Item = Arc<Arrival>;
    type Answer = Receipt;

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Arc<Arrival>],
    ) -> BoxFuture<'a, Result<Vec<Result<Receipt>>>> {
        Box::pin(async move {
            let mut first: HashMap<&str, usize> = HashMap::with_capacity(items.len());
            for (at, item) in items.iter().enumerate() {
                first.entry(&item.key.key).or_insert(at);
            }
            let mut places: Vec<usize> = first.into_values().collect();
            places.sort_unstable();
            let keys: Vec<(Uuid, &DeliveryKey, Instant)> =
                places.iter().map(|at| (Uuid::now_v7(), &items[*at].key, items[*at].at)).collect();
            let known = stored::enter(tx, &keys).await?;
            let mut new: Vec<(Uuid, &Arrival)> = Vec::with_capacity(places.len());
            let mut standing: HashMap<&str, (Known, Option<usize>)> = HashMap::with_capacity(places.len());
            for ((at, (id, key, _)), known) in places.into_iter().zip(keys).zip(known) {
                let entered_by = known.is_none().then_some(at);
                if entered_by.is_some() {
                    new.push((id, items[at]));
                }
                let known = known.unwrap_or_else(|| Known { id, digest: key.digest.clone() });
                standing.insert(&key.key, (known, entered_by));
            }
            stored::insert(tx, &new).await?;
            new.into_iter().for_each(|(id, arrival)| remember(tx, id, arrival));
            let answer = |(at, item): (usize, &&Arc<Arrival>)| {
                let (known, entered_by) =
                    standing.get(item.key.key.as_str()).ok_or_else(|| Error::internal("no key"))?;
                if known.digest != item.key.digest {
                    return Err(Error::Taken { field: "event_id" });
                }
                Ok(Receipt { event_id: known.id, is_duplicate: *entered_by != Some(at) })
            };
            Ok(items.iter().enumerate().map(answer).collect())
        })
    }
}

fn remember(tx: &mut WriteTx, id: Uuid, arrival: &Arrival) {
    let (event, job) = match arrival.event {
        WebhookEvent::UsageUpdate => (EventKind::UsageSync, JobKind::UsageSync),
        WebhookEvent::SubscriptionUpdate => (EventKind::SubscriptionSync, JobKind::SubscriptionSync),
    };
    let Task { work, told } = &arrival.task;
    let payload = told.clone();
    let event =
        NewEvent { kind: event, user_id: arrival.user_id, status: EventStatus::Pending, payload, at: arrival.at };
    tx.emit_as(id, event);
    tx.enqueue(NewJob::new(job, arrival.user_id.to_string(), work.clone(), arrival.at).for_event(id));
}

/// The lane of refusals.
pub struct RejectionBatch;

impl Batch for RejectionBatch {
    type Item = Rejection;
    type Answer = ();

    fn apply<'a>(&'a self, tx: &'a mut WriteTx, items: &'a [&'a Rejection]) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            stored::insert_rejections(tx, items).await?;
            Ok(items.iter().map(|_| Ok(())).collect())
        })
    }
}

/// The lane of what became of webhooks.
pub struct FateBatch;

impl Batch for FateBatch {
    type Item = (Fate, Instant);
    type Answer = ();

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a (Fate, Instant)],
    ) -> BoxFuture<'a, Result<Vec<Result<()>>>> {
        Box::pin(async move {
            let now = items.iter().map(|(_, at)| *at).max().unwrap_or_default();
            // A job that was run twice at once says the same twice; a set names each row once.
            let fates: HashMap<Uuid, &Fate> = items.iter().map(|(fate, _)| (fate.id, fate)).collect();
            stored::settle(tx, &fates.into_values().collect::<Vec<_>>(), now).await?;
            Ok(items.iter().map(|_| Ok(())).collect())
        })
    }
}
