//! Batches: created, counted by the hub, listed, called off.

use chrono::TimeDelta;
use serde_json::json;
use upbridge_service::model::page::{Page, Paged, Place};
use uuid::Uuid;

use super::{CreatorUp, report};
use crate::model::batch::{Batch, BatchStatus};
use crate::model::decision::Caller;
use crate::model::media::MediaPath;
use crate::model::outbox::Webhook;
use crate::model::usage::UsageRecord;
use crate::model::{Error, Instant, Json, Month, Result};
use crate::storage::{self, WriteTx};

/// A batch as it is asked for.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// Name.
    pub name: String,
    /// Kind of batch.
    pub batch_type: String,
    /// The feature used.
    pub usage_type: String,
    /// The videos, as they were named.
    pub inputs: Vec<String>,
    /// Anything.
    pub metadata: Option<Json>,
    /// The request's key.
    pub key: Option<String>,
}

/// A batch with what it counts for; without a record it counts for nothing, because the hub refused it.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The batch.
    pub batch: Batch,
    /// What it counts for.
    pub usage: Option<UsageRecord>,
}

impl CreatorUp {
    /// Creates a batch and has the hub count it; answers whether there was one of the same key already.
    pub async fn create_batch(&self, caller: Caller, asked: NewBatch) -> Result<(Standing, bool)> {
        let inputs = inputs(&asked.inputs)?;
        // Whoever repeats a request gets what the first made, wherever its inputs are by now.
        let known = match &asked.key {
            Some(key) => storage::batch::find_by_key(self.store.read(), caller.user_id, key).await?,
            None => None,
        };
        if known.is_none() {
            self.look(&inputs).await?;
        }
        let now = self.now();
        let batch = Batch {
            id: Uuid::now_v7(),
            user_id: caller.user_id,
            digiup_user_id: caller.digiup_user_id,
            name: asked.name,
            batch_type: asked.batch_type,
            usage_type: asked.usage_type,
            status: BatchStatus::Pending,
            progress: 0,
            inputs,
            metadata: asked.metadata,
            videos: Vec::new(),
            error: None,
            key: asked.key,
            job_id: None,
            created_at: now,
            started_at: None,
            finished_at: None,
        };
        let (batch, record, job_id) = self.keep(batch, now).await?;
        let duplicate = job_id.is_none();
        if record.as_ref().is_none_or(|record| record.accepted_at.is_some()) || batch.status.is_over() {
            return Ok((Standing { batch, usage: record }, duplicate));
        }
        match self.count(&batch).await {
            Ok(record) => Ok((Standing { batch, usage: Some(record) }, duplicate)),
            Err(refused) if report::is_refusal(&refused) => {
                // What was there already may have been answered with success: it stays, and says what became of it.
                match duplicate {
                    true => self.refuse(&batch, &refused).await?,
                    false => self.withdraw(&batch).await?,
                }
                Err(refused)
            }
            Err(later) => {
                tracing::warn!(batch = %batch.id, error = ?later, "a batch is kept, and counted by the hub later");
                if let Some(job_id) = job_id {
                    let soon = (job_id, self.now());
                    let hurry = self
                        .store
                        .write(soon, |tx, (job_id, now)| Box::pin(storage::job::retry_now(tx, *job_id, *now)));
                    hurry.await?;
                }
                Ok((Standing { batch, usage: record }, duplicate))
            }
        }
    }

    /// Stores a batch, what it counts for, and that the hub has to be told; or finds the one of the same key.
    async fn keep(&self, batch: Batch, now: Instant) -> Result<(Batch, Option<UsageRecord>, Option<Uuid>)> {
        let delay = TimeDelta::from_std(self.rules.report_delay).unwrap_or_default();
        self.store
            .write((batch, now, now + delay), |tx, (batch, now, at)| {
                Box::pin(async move {
                    if !storage::batch::insert(tx, batch).await? {
                        let key = batch.key.as_deref().unwrap_or_default();
                        let known = storage::batch::find_by_key(tx.reader(), batch.user_id, key).await?;
                        let known = known.filter(|known| is_same(known, batch));
                        let known = known.ok_or(Error::Taken { field: "idempotency_key" })?;
                        let record = storage::usage::find(tx.reader(), known.id).await?;
                        return Ok((known, record, None));
                    }
                    let record = UsageRecord {
                        id: Uuid::now_v7(),
                        user_id: batch.user_id,
                        batch_id: batch.id,
                        batch_type: batch.batch_type.clone(),
                        usage_type: batch.usage_type.clone(),
                        amount: batch.amount(),
                        month: Month::of(batch.created_at),
                        accepted_at: None,
                        reported_at: None,
                        created_at: *now,
                    };
                    storage::usage::insert(tx, &record).await?;
                    let job_id = report::remember(tx, batch, *at, *now);
                    Ok((batch.clone(), Some(record), Some(job_id)))
                })
            })
            .await
    }

    /// Takes a batch back that the hub refused at once, as if it had never been: its key is free again.
    async fn withdraw(&self, batch: &Batch) -> Result<()> {
        self.store
            .write(batch.id, |tx, id| {
                Box::pin(async move {
                    let batch = storage::batch::held(tx, *id).await?;
                    let counted = storage::usage::find(tx.reader(), *id).await?;
                    let is_counted = counted.is_some_and(|record| record.accepted_at.is_some());
                    if batch.is_some_and(|batch| batch.status == BatchStatus::Pending) && !is_counted {
                        storage::batch::delete(tx, *id).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn look(&self, inputs: &[MediaPath]) -> Result<()> {
        for (place, input) in inputs.iter().enumerate() {
            self.studio.look(input).await.map_err(|what| invalid(place, what))?;
        }
        Ok(())
    }

    /// A batch of the caller.
    pub async fn get_batch(&self, caller: Caller, id: Uuid) -> Result<Standing> {
        let batch = storage::batch::find_of(self.store.read(), caller.user_id, id).await?;
        let batch = batch.ok_or(Error::NotFound { what: "batch" })?;
        let usage = storage::usage::find(self.store.read(), id).await?;
        Ok(Standing { batch, usage })
    }

    /// The caller's batches.
    pub async fn list_batches(
        &self,
        caller: Caller,
        status: Option<BatchStatus>,
        page: &Page,
    ) -> Result<Paged<Standing>> {
        let found = storage::batch::list(self.store.read(), caller.user_id, status, page).await?;
        let page = page.cut(found, |batch| Place { group: String::new(), id: batch.id });
        let ids: Vec<Uuid> = page.items.iter().map(|batch| batch.id).collect();
        let mut records = storage::usage::find_all(self.store.read(), &ids).await?;
        let mut usage = |id| {
            let place = records.iter().position(|record| record.batch_id == id)?;
            Some(records.swap_remove(place))
        };
        let standing = |batch: Batch| Standing { usage: usage(batch.id), batch };
        Ok(Paged { items: page.items.into_iter().map(standing).collect(), next: page.next })
    }

    /// Calls a batch off; what runs is stopped.
    pub async fn cancel_batch(&self, caller: Caller, id: Uuid) -> Result<Standing> {
        self.store
            .write((caller, id, self.now()), |tx, (caller, id, now)| {
                Box::pin(async move {
                    let batch = storage::batch::held(tx, *id).await?;
                    let batch = batch.filter(|batch| batch.user_id == caller.user_id);
                    let mut batch = batch.ok_or(Error::NotFound { what: "batch" })?;
                    if batch.status != BatchStatus::Cancelled {
                        batch = batch.turn(BatchStatus::Cancelled, *now)?;
                        end(tx, &batch, *now).await?;
                    }
                    let usage = storage::usage::find(tx.reader(), batch.id).await?;
                    Ok(Standing { batch, usage })
                })
            })
            .await
    }
}

fn inputs(names: &[String]) -> Result<Vec<MediaPath>> {
    let parse = |(place, name): (usize, &String)| MediaPath::parse(name).map_err(|what| invalid(place, what));
    names.iter().enumerate().map(parse).collect()
}

fn invalid(place: usize, what: &'static str) -> Error {
    Error::invalid(format!("inputs[{place}]"), what)
}

/// Writes a batch that is over, what it counts for now, and that the hub has to be told; stops its job.
pub(super) async fn end(tx: &mut WriteTx, batch: &Batch, now: Instant) -> Result<()> {
    let Some(mut record) = close(tx, batch, now).await? else { return Ok(()) };
    if record.accepted_at.is_some() {
        record.reported_at = None;
        report::tell(tx, &Webhook::of_batch(batch, record.month, now)).await?;
    }
    storage::usage::update(tx, &record).await
}

/// Writes a batch that is over, and stops its job; answers with what it counts for now, which is yet to be written.
pub(super) async fn close(tx: &mut WriteTx, batch: &Batch, now: Instant) -> Result<Option<UsageRecord>> {
    storage::batch::update(tx, batch).await?;
    if batch.status == BatchStatus::Cancelled
        && let Some(job_id) = batch.job_id
    {
        storage::job::cancel(tx, job_id, now).await?;
    }
    let record = storage::usage::find(tx.reader(), batch.id).await?;
    Ok(record.map(|record| {
        let month = batch.completed_at().map_or(record.month, Month::of);
        UsageRecord { amount: batch.amount(), month, ..record }
    }))
}

/// Whether a request says what the first of its key said.
fn is_same(known: &Batch, asked: &Batch) -> bool {
    let of = |batch: &Batch| {
        let inputs: Vec<_> = batch.inputs.iter().map(|input| input.as_str().to_owned()).collect();
        json!([batch.name, batch.batch_type, batch.usage_type, inputs, batch.metadata])
    };
    of(known) == of(asked)
}
