//! Processing: a batch's inputs are rendered one after the other, by a job.
//!
//! What was rendered is noted input by input, so a run that is cut off is gone on with and not begun anew. An input
//! that cannot be rendered does not stop the others; the batch has failed then, and counts for those.

use std::pin::pin;

use serde_json::json;
use tokio::sync::watch;
use upbridge_service::model::job::{Job, NewJob, Outcome};
use uuid::Uuid;

use super::batch::{Standing, end};
use super::{CreatorUp, report, work};
use crate::model::batch::{Batch, BatchStatus};
use crate::model::decision::Caller;
use crate::model::media::MediaPath;
use crate::model::{Error, Json, Reason, Result};
use crate::storage::{self, WriteTx};
use crate::video::Trouble;
use crate::video::tools::INSTALL;

/// Progress is noted in steps of so many hundredths.
const STEP: i32 = 5;

/// What became of one input.
enum Tried {
    /// It is noted in the batch.
    Noted(Json),
    /// The batch is no longer processed: it was called off.
    CalledOff,
}

impl CreatorUp {
    /// Begins to process a batch of the caller.
    pub async fn process_video(&self, caller: Caller, token: &str, id: Uuid) -> Result<Standing> {
        let standing = self.get_batch(caller, id).await?;
        let batch = &standing.batch;
        match batch.status {
            BatchStatus::Processing | BatchStatus::Completed => return Ok(standing),
            BatchStatus::Pending => {}
            BatchStatus::Failed | BatchStatus::Cancelled => {
                batch.turn(BatchStatus::Processing, self.now())?;
            }
        }
        if batch.inputs.is_empty() {
            return Err(Error::State { message: "the batch has no inputs; create one with inputs" });
        }
        let is_counted = standing.usage.as_ref().is_some_and(|usage| usage.accepted_at.is_some());
        match self.hub.check(token, &batch.usage_type).await {
            Ok(decision) if !decision.lets_process() => {
                let mut metadata = std::collections::BTreeMap::new();
                metadata.insert("access_reason", decision.reason.clone());
                let message = format!("the hub says that {} is not included: {}", batch.usage_type, decision.reason);
                return Err(Error::Denied { reason: Reason::MembershipRequired, message, metadata });
            }
            // The hub has counted it, so it was allowed; that the hub is away now is not the user's fault.
            Err(Error::Away { .. }) if is_counted => {}
            answer => drop(answer?),
        }
        if let Err(missing) = self.studio.version().await {
            tracing::warn!(missing, "a video cannot be processed");
            return Err(Error::State { message: INSTALL });
        }
        if !is_counted {
            match self.count(batch).await {
                Err(refused) if report::is_refusal(&refused) => {
                    self.refuse(batch, &refused).await?;
                    return Err(refused);
                }
                answer => drop(answer?),
            }
        }
        self.store
            .write((id, self.now()), |tx, (id, now)| {
                Box::pin(async move {
                    let gone = || Error::NotFound { what: "batch" };
                    let mut batch = storage::batch::held(tx, *id).await?.ok_or_else(gone)?;
                    if batch.status != BatchStatus::Processing && batch.status != BatchStatus::Completed {
                        let key = batch.digiup_user_id.to_string();
                        let job = NewJob::new(work::VIDEO, key, json!({"batch_id": id}), *now);
                        batch = Batch { job_id: Some(job.id), ..batch.turn(BatchStatus::Processing, *now)? };
                        storage::batch::update(tx, &batch).await?;
                        tx.enqueue(job);
                    }
                    let usage = storage::usage::find(tx.reader(), *id).await?;
                    Ok(Standing { batch, usage })
                })
            })
            .await
    }

    /// The job that processes a batch.
    pub(super) async fn run_video(&self, job: &Job) -> Outcome {
        let Some(batch_id) = work::id(job, "batch_id") else { return Outcome::dead("no batch is named") };
        let batch = match storage::batch::find(self.store.read(), batch_id).await {
            Ok(Some(batch)) if batch.status == BatchStatus::Processing => batch,
            Ok(_) => return Outcome::Done(None),
            Err(error) => return work::again(error),
        };
        if let Err(trouble) = self.studio.prepare(batch_id).await {
            return Outcome::retry(trouble);
        }
        let mut videos = batch.videos.clone();
        for (place, input) in batch.inputs.iter().enumerate().skip(batch.videos.len()) {
            match self.try_input(&batch, place, input, job.lease, &mut videos).await {
                Ok(Tried::Noted(video)) => videos.push(video),
                Ok(Tried::CalledOff) => return Outcome::Done(None),
                Err(outcome) => return outcome,
            }
            let done = share(&batch, videos.len(), 0.0);
            match self.mark(batch_id, done, Some(videos.clone())).await {
                Ok(true) => {}
                Ok(false) => return Outcome::Done(None),
                Err(error) => return work::again(error),
            }
        }
        match self.finish(batch_id).await {
            Ok(()) => Outcome::Done(None),
            Err(error) => work::again(error),
        }
    }

    /// Renders one input, and notes how far it is.
    async fn try_input(
        &self,
        batch: &Batch,
        place: usize,
        input: &MediaPath,
        run: i64,
        videos: &mut [Json],
    ) -> Result<Tried, Outcome> {
        let (told, mut heard) = watch::channel(0.0);
        let mut render = pin!(self.studio.render(batch.id, place, input, run, move |done| {
            told.send_replace(done);
        }));
        let mut noted = share(batch, videos.len(), 0.0);
        loop {
            tokio::select! {
                biased;
                rendered = &mut render => return match rendered {
                    Ok(rendered) => Ok(Tried::Noted(rendered.json(input.as_str()))),
                    Err(Trouble::Input(what)) => {
                        Ok(Tried::Noted(json!({"input": input.as_str(), "error": what})))
                    }
                    Err(Trouble::Passing(what)) => Err(Outcome::retry(what)),
                },
                Ok(()) = heard.changed() => {
                    let done = share(batch, videos.len(), *heard.borrow_and_update());
                    if done >= noted + STEP {
                        noted = done;
                        // That it could not be noted is no reason to stop; that it is called off is.
                        if let Ok(false) = self.mark(batch.id, done, None).await {
                            return Ok(Tried::CalledOff);
                        }
                    }
                }
            }
        }
    }

    /// Notes how far a batch is; false when it is no longer processed.
    async fn mark(&self, batch_id: Uuid, done: i32, videos: Option<Vec<Json>>) -> Result<bool> {
        self.store
            .write((batch_id, done, videos), |tx, (batch_id, done, videos)| {
                Box::pin(storage::batch::progress(tx, *batch_id, *done, videos.as_deref()))
            })
            .await
    }

    /// Every input was tried: the batch is completed, or failed when one was not rendered.
    async fn finish(&self, batch_id: Uuid) -> Result<()> {
        self.store
            .write((batch_id, self.now()), |tx, (batch_id, now)| {
                Box::pin(async move {
                    let batch = storage::batch::held(tx, *batch_id).await?;
                    let Some(batch) = batch.filter(|batch| batch.status == BatchStatus::Processing) else {
                        return Ok(());
                    };
                    let over = match batch.trouble() {
                        None => batch.turn(BatchStatus::Completed, *now)?,
                        Some(trouble) => batch.fail(&trouble, *now)?,
                    };
                    end(tx, &over, *now).await
                })
            })
            .await
    }

    /// The job was given up.
    pub(super) async fn video_died(&self, tx: &mut WriteTx, job: &Job, error: &str) -> Result<()> {
        let Some(batch_id) = work::id(job, "batch_id") else { return Ok(()) };
        let now = self.now();
        match storage::batch::held(tx, batch_id).await? {
            Some(batch) if batch.status == BatchStatus::Processing => end(tx, &batch.fail(error, now)?, now).await,
            _ => Ok(()),
        }
    }
}

/// How much of a batch is done, in hundredths: so many inputs, and a share of the next. It is 100 only when it is over.
fn share(batch: &Batch, inputs: usize, next: f64) -> i32 {
    let all = batch.inputs.len().max(1) as f64;
    (((inputs as f64 + next.clamp(0.0, 1.0)) / all * 100.0) as i32).clamp(0, 99)
}
