//! Settlements: how tries ended, recorded as a set however many end together.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Handler, Options};
use crate::model::clock::Clock;
use crate::model::job::{Job, JobState, Outcome};
use crate::model::{Error, Result};
use crate::storage::job::{Settled, Settlement};
use crate::storage::{self, Batch, Lane, WriteTx};

/// The lane of settlements.
pub(super) struct SettleBatch {
    pub handler: Arc<dyn Handler>,
    pub clock: Arc<dyn Clock>,
    pub options: Options,
}

impl Batch for SettleBatch {
    type Item = Settlement;
    type Answer = Settled;

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Settlement],
    ) -> BoxFuture<'a, Result<Vec<Result<Settled>>>> {
        Box::pin(async move {
            let settled = storage::job::settle(tx, items, self.options.keep, self.clock.now()).await?;
            for (item, settled) in items.iter().zip(&settled) {
                if *settled == Settled::Now(JobState::Dead)
                    && let Outcome::Retry { error, .. } | Outcome::Dead { error } = &item.outcome
                {
                    self.handler.died(tx, &item.job, error).await?;
                }
            }
            Ok(settled.into_iter().map(Ok).collect())
        })
    }
}

/// Records how a try ended, and goes on trying while the database is away: the work is done, and only the record of
/// it is missing. Without one the job would be done again.
pub(super) async fn record(
    lane: &Lane<SettleBatch>,
    clock: &dyn Clock,
    options: &Options,
    job: Job,
    outcome: Outcome,
    took: Duration,
) {
    let wait = match &outcome {
        Outcome::Retry { after, .. } => options.backoff.wait(job.attempts + 1, *after),
        _ => Duration::ZERO,
    };
    let settlement = Settlement { next: clock.now() + wait, job, outcome, took };
    loop {
        match lane.submit(settlement.clone()).await {
            Ok(settled) => return told(&settlement, settled),
            Err(Error::Unavailable { context }) => {
                tracing::warn!(job = %settlement.job.id, context, "a job's end could not be recorded; it is tried again");
                tokio::time::sleep(options.poll).await;
            }
            Err(error) => {
                // The job stays leased to this worker; it is tried again when the worker's life ends.
                tracing::error!(job = %settlement.job.id, %error, context = ?error, "a job's end cannot be recorded");
                return;
            }
        }
    }
}

fn told(settlement: &Settlement, settled: Settled) {
    let Settlement { job, outcome, took, .. } = settlement;
    let kind = job.kind.as_str();
    match (settled, outcome) {
        (Settled::Now(JobState::Dead), Outcome::Retry { error, .. } | Outcome::Dead { error }) => {
            tracing::error!(job = %job.id, kind, key = job.key, attempts = job.attempts + 1, error, "a job was given up");
        }
        (Settled::Now(_), Outcome::Retry { error, .. }) => {
            tracing::warn!(job = %job.id, kind, key = job.key, attempt = job.attempts + 1, error, "a job failed; it is tried again");
        }
        (Settled::Now(state), _) => {
            tracing::debug!(job = %job.id, kind, key = job.key, state = state.as_str(), ?took, "a job ended");
        }
        (Settled::Stale, _) => {
            tracing::warn!(job = %job.id, kind, lease = job.lease, "a job ended after its lease; its end was not recorded");
        }
    }
}
