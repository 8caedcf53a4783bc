//! Failed sync events are tried again: each becomes pending and has a job, in one transaction per batch.

use uuid::Uuid;

use super::Hub;
use super::user_sync::change::push;
use crate::model::analytics::{EventRecord, Retried, RetryFilter};
use crate::model::event::EventKind;
use crate::model::job::{JobKind, NewJob};
use crate::model::{Instant, Result};
use crate::storage::{self, WriteTx};

/// Events of one transaction.
const BATCH: u64 = 200;

impl Hub {
    /// Makes failed events pending again, oldest first, `most` at most.
    pub async fn retry_failed_sync(&self, filter: RetryFilter, most: u64) -> Result<Retried> {
        let (mut retried, mut after) = (Retried::default(), None);
        loop {
            let wanted = BATCH.min(most - retried.events);
            if wanted == 0 {
                let left = storage::sync_event::failed(self.store.read(), self.store.dialect(), &filter, after, 1);
                retried.more = !left.await?.is_empty();
                break;
            }
            let is_connected = self.creatorup.is_some();
            let input = (filter, after, wanted, is_connected, self.now());
            let (batch, last) = self
                .store
                .write(input, |tx, (filter, after, wanted, is_connected, now)| {
                    Box::pin(retry(tx, filter, *after, *wanted, *is_connected, *now))
                })
                .await?;
            retried.events += batch.events;
            retried.from_dead_letters += batch.from_dead_letters;
            retried.skipped += batch.skipped;
            match last {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        if retried != Retried::default() {
            tracing::info!(events = retried.events, skipped = retried.skipped, "failed sync events are tried again");
        }
        Ok(retried)
    }
}

/// Tries a batch again; answers with the last event that was looked at.
async fn retry(
    tx: &mut WriteTx,
    filter: &RetryFilter,
    after: Option<Uuid>,
    most: u64,
    is_connected: bool,
    now: Instant,
) -> Result<(Retried, Option<Uuid>)> {
    let failed = storage::sync_event::hold_failed(tx, filter, after, most).await?;
    let Some(last) = failed.last().map(|event| event.id) else { return Ok((Retried::default(), None)) };
    let ids: Vec<Uuid> = failed.iter().map(|event| event.id).collect();
    let letters = storage::job::take_letters(tx, &ids).await?;
    let mut again: Vec<Uuid> = Vec::with_capacity(failed.len());
    let mut users: Vec<Uuid> = Vec::new();
    for letter in &letters {
        tx.enqueue(NewJob {
            unique_key: letter.unique_key.clone(),
            event_id: letter.event_id,
            max_retries: Some(letter.max_retries),
            ..NewJob::new(letter.kind, letter.key.clone(), letter.payload.clone(), now)
        });
        again.extend(letter.event_id);
    }
    let from_dead_letters = again.len() as u64;
    let mut skipped = 0;
    for event in failed.iter().filter(|event| !letters.iter().any(|letter| letter.event_id == Some(event.id))) {
        match remade(event, now) {
            None => skipped += 1,
            Some(job) => {
                // Without a CreatorUp no job waits for what may never be: the first sweep after it takes the event up.
                if is_connected || job.kind != JobKind::UserSync {
                    tx.enqueue(job);
                }
                again.push(event.id);
            }
        }
    }
    for event in failed.iter().filter(|event| again.contains(&event.id) && is_push(event)) {
        users.extend(event.user_id);
    }
    storage::sync_event::reopen(tx, &again, now).await?;
    users.sort_unstable();
    users.dedup();
    storage::user_sync::mark_pending(tx, &users).await?;
    Ok((Retried { events: again.len() as u64, from_dead_letters, skipped, more: false }, Some(last)))
}

/// Whether the event is about a push to CreatorUp, and not about a webhook that came from there.
fn is_push(event: &EventRecord) -> bool {
    work(event).is_none() && event.kind != EventKind::UsageSync.as_str()
}

/// What a webhook's event says is to be done.
fn work(event: &EventRecord) -> Option<&crate::model::Json> {
    event.payload.as_ref()?.get("work").filter(|work| work.is_object())
}

/// A job for an event whose dead letter is gone.
fn remade(event: &EventRecord, now: Instant) -> Option<NewJob> {
    let user_id = event.user_id?;
    if let Some(work) = work(event) {
        let kind = match EventKind::parse(&event.kind)? {
            EventKind::UsageSync => JobKind::UsageSync,
            EventKind::SubscriptionSync => JobKind::SubscriptionSync,
            EventKind::UserSync => return None,
        };
        return Some(NewJob::new(kind, user_id.to_string(), work.clone(), now).for_event(event.id));
    }
    is_push(event).then(|| push(user_id, now).for_event(event.id))
}
