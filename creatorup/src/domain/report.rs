//! What the hub is told of batches.
//!
//! A batch is told of twice. When it is created the hub is asked to count it, by an rpc, because the answer may be no.
//! When it is over the hub is told what it really counts for, by a signed webhook, because that work is done whatever
//! the plan allows. Both carry the batch's id as their key, so the hub's ledger knows them for one record and the
//! second amends the first.
//!
//! The order of the two holds: nothing is processed before the hub has counted it, and a batch that is over before (it
//! was called off) is told of only once, as what it counts for now.

use serde_json::json;

use super::{CreatorUp, work};
use crate::model::batch::{Batch, BatchStatus};
use crate::model::outbox::Webhook;
use crate::model::usage::UsageRecord;
use crate::model::{Error, Instant, Month, Result};
use crate::storage::{self, WriteTx};
use upbridge_service::model::job::{Job, NewJob, Outcome};
use upbridge_service::queue::POISON;

/// Tries after the first: as good as no end. The hub comes back, and what it was not told would be missing for ever.
const PATIENCE: i32 = 1_000_000;

impl CreatorUp {
    /// Has the hub count a batch; answers with what it counts for now.
    pub(super) async fn count(&self, batch: &Batch) -> Result<UsageRecord> {
        let created = Month::of(batch.created_at);
        // Without a month the hub counts it in the current one, which is the same but for what is told late.
        let month = (created != Month::of(self.now())).then_some(created);
        let counted = self.hub.count(batch, month).await?;
        let input = (batch.id, batch.amount(), counted.month, self.now());
        self.store
            .write(input, |tx, (batch_id, told, month, now)| {
                Box::pin(async move {
                    let gone = || Error::NotFound { what: "batch" };
                    let batch = storage::batch::held(tx, *batch_id).await?.ok_or_else(gone)?;
                    let record = storage::usage::find(tx.reader(), *batch_id).await?.ok_or_else(gone)?;
                    if record.accepted_at.is_none() && record.reported_at.is_some() {
                        // The user is gone meanwhile.
                        return Ok(record);
                    }
                    if record.accepted_at.is_some() {
                        return match batch.status.is_over() {
                            true => tell_again(tx, &batch, record, *now).await,
                            false => Ok(record),
                        };
                    }
                    let mut record = UsageRecord { accepted_at: Some(*now), ..record };
                    record.month = month.unwrap_or(record.month);
                    if batch.status.is_over() && batch.amount() != *told {
                        // It was called off while the hub counted what was planned.
                        record.amount = batch.amount();
                        tell(tx, &Webhook::of_batch(&batch, record.month, *now)).await?;
                    } else {
                        record.reported_at = Some(*now);
                    }
                    storage::usage::update(tx, &record).await?;
                    Ok(record)
                })
            })
            .await
    }

    /// The job that has a batch counted which could not be when it was created.
    pub(super) async fn run_report(&self, job: &Job) -> Outcome {
        let done = async {
            let Some(batch_id) = work::id(job, "batch_id") else { return Ok(Outcome::dead("no batch is named")) };
            let record = storage::usage::find(self.store.read(), batch_id).await?;
            let batch = storage::batch::find(self.store.read(), batch_id).await?;
            let (Some(record), Some(batch)) = (record, batch) else { return Ok(Outcome::Done(None)) };
            if record.accepted_at.is_some() || record.reported_at.is_some() {
                return Ok(Outcome::Done(None));
            }
            match self.count(&batch).await {
                Ok(_) => Ok(Outcome::Done(None)),
                Err(refused) if is_refusal(&refused) => {
                    tracing::warn!(batch = %batch.id, error = %refused, "the hub does not count a batch it is told of late");
                    self.refuse(&batch, &refused).await?;
                    Ok(Outcome::Done(Some(json!({"refused": refused.to_string()}))))
                }
                Err(error) => Err(error),
            }
        };
        done.await.unwrap_or_else(work::again)
    }

    /// A batch the hub will not count fails and counts for nothing here either.
    pub(super) async fn refuse(&self, batch: &Batch, refused: &Error) -> Result<()> {
        let input = (batch.id, format!("the hub refused it: {refused}"), self.now());
        self.store
            .write(input, |tx, (batch_id, error, now)| {
                Box::pin(async move {
                    let Some(batch) = storage::batch::held(tx, *batch_id).await? else { return Ok(()) };
                    let counted = storage::usage::find(tx.reader(), *batch_id).await?;
                    if counted.is_none_or(|record| record.accepted_at.is_some()) {
                        return Ok(());
                    }
                    storage::usage::delete(tx, *batch_id).await?;
                    if batch.status == BatchStatus::Pending {
                        storage::batch::update(tx, &batch.fail(error, *now)?).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The job that has a batch counted was given up: as long as the hub has not answered, it is remembered anew.
    pub(super) async fn report_died(&self, tx: &mut WriteTx, job: &Job) -> Result<()> {
        let Some(batch_id) = work::id(job, "batch_id") else { return Ok(()) };
        let record = storage::usage::find(tx.reader(), batch_id).await?;
        let batch = storage::batch::find(tx.reader(), batch_id).await?;
        if let (Some(record), Some(batch)) = (record, batch)
            && record.accepted_at.is_none()
            && record.reported_at.is_none()
        {
            let now = self.now();
            remember(tx, &batch, now, now);
        }
        Ok(())
    }

    /// The job that sends a webhook was given up. When that is because of what became of its workers, the hub has not
    /// answered, and the webhook is sent all the same. Any other reason stands in the outbox.
    pub(super) async fn webhook_died(&self, tx: &mut WriteTx, job: &Job, error: &str) -> Result<()> {
        let Some(id) = job.event_id.filter(|_| error == POISON) else { return Ok(()) };
        storage::outbox::reopen(tx, &[id]).await?;
        if let Some(webhook) = storage::outbox::find_unsent(tx.reader(), id).await? {
            send_later(tx, &webhook, self.now());
        }
        Ok(())
    }

    /// The job that sends a webhook.
    pub(super) async fn run_webhook(&self, job: &Job) -> Outcome {
        let done = async {
            let Some(id) = job.event_id else { return Ok(Outcome::dead("no webhook is named")) };
            let Some(webhook) = storage::outbox::find_unsent(self.store.read(), id).await? else {
                return Ok(Outcome::Done(None));
            };
            Ok(match self.hub.send(&webhook).await {
                Ok(receipt) => {
                    tracing::debug!(
                        event_id = webhook.event_id,
                        duplicate = receipt.duplicate,
                        "the hub took a webhook"
                    );
                    Outcome::Done(Some(json!({"event_id": receipt.event_id, "duplicate": receipt.duplicate})))
                }
                Err(refused) if refused.is_final => Outcome::dead(refused.message),
                Err(passing) => Outcome::Retry { error: passing.message, after: passing.after },
            })
        };
        done.await.unwrap_or_else(work::again)
    }
}

/// Whether the hub understood, and said no.
pub(super) fn is_refusal(error: &Error) -> bool {
    match error {
        Error::Denied { .. } | Error::NotFound { .. } | Error::Invalid { .. } | Error::State { .. } => true,
        // A limit of calls passes; a limit of the plan does not.
        Error::Exhausted { reason, .. } => *reason == crate::model::Reason::QuotaExceeded,
        _ => false,
    }
}

/// Remembers to have a batch counted, not before `at`.
pub(super) fn remember(tx: &mut WriteTx, batch: &Batch, at: Instant, now: Instant) -> uuid::Uuid {
    let key = batch.digiup_user_id.to_string();
    let job = NewJob::new(work::USAGE_REPORT, key, json!({"batch_id": batch.id}), now);
    let job = NewJob { run_at: Some(at), max_retries: Some(PATIENCE), ..job };
    let id = job.id;
    tx.enqueue(job);
    id
}

/// Remembers to send a webhook. One of the same event is not sent twice.
pub(super) async fn tell(tx: &mut WriteTx, webhook: &Webhook) -> Result<()> {
    if storage::outbox::insert(tx, webhook).await? {
        send_later(tx, webhook, webhook.created_at);
    }
    Ok(())
}

fn send_later(tx: &mut WriteTx, webhook: &Webhook, now: Instant) {
    let key = webhook.digiup_user_id.to_string();
    let job = NewJob::new(work::WEBHOOK, key, json!({"event_id": webhook.event_id}), now);
    tx.enqueue(NewJob { max_retries: Some(PATIENCE), ..job.for_event(webhook.id) });
}

/// Tells anew what a batch that is over counts for, as another event: a second call to count it may have reached the hub
/// after it was told, and has undone that with what was planned.
async fn tell_again(tx: &mut WriteTx, batch: &Batch, record: UsageRecord, now: Instant) -> Result<UsageRecord> {
    let times = storage::outbox::count_of(tx.reader(), batch.id).await?.max(1) + 1;
    tell(tx, &Webhook::of_batch_again(batch, record.month, times, now)).await?;
    let record = UsageRecord { reported_at: None, ..record };
    storage::usage::update(tx, &record).await?;
    Ok(record)
}
