//! Settlements: how tries ended, recorded as a set however many end together.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::lease::Lease;
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
///
/// An end that cannot be recorded, because of what it says or of what goes with it, counts as a failed try instead. If
/// not even that can be written with all that goes with it, the job's row alone is moved on; and if that fails too the
/// job is left to the next heartbeat, which finds that nobody works on it.
pub(super) async fn record(lane: &Lane<SettleBatch>, lease: &Lease, job: Job, outcome: Outcome, took: Duration) {
    let options = &lease.options;
    let after = if let Outcome::Retry { after, .. } = &outcome { *after } else { None };
    let wait = options.backoff.wait(job.attempts + 1, after);
    let mut settlement = Settlement { next: lease.clock.now() + wait, job, outcome, took };
    let error = match insist(options, || Box::pin(lane.submit(settlement.clone()))).await {
        Ok(settled) => return told(&settlement, settled),
        Err(error) => error,
    };
    tracing::error!(job = %settlement.job.id, %error, context = ?error, "a job's end cannot be recorded; it counts as a failed try");
    settlement.outcome = Outcome::retry(format!("its end could not be recorded: {error}"));
    let error = match insist(options, || Box::pin(lane.submit(settlement.clone()))).await {
        Ok(settled) => return told(&settlement, settled),
        Err(error) => error,
    };
    tracing::error!(job = %settlement.job.id, %error, context = ?error, "a failed try cannot be recorded with all that goes with it; its job alone is moved on");
    match insist(options, || Box::pin(put_back(lease, settlement.clone()))).await {
        Ok(settled) => told(&settlement, settled),
        Err(error) => {
            tracing::error!(job = %settlement.job.id, %error, context = ?error, "a job cannot be moved on; a heartbeat will find it");
        }
    }
}

async fn put_back(lease: &Lease, settlement: Settlement) -> Result<Settled> {
    let input = (settlement, lease.clock.now());
    let write =
        lease.store.write(input, |tx, (settlement, now)| Box::pin(storage::job::put_back(tx, settlement, *now)));
    write.await
}

/// Asks again while the database is away.
async fn insist<'a, T>(options: &Options, write: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    loop {
        match write().await {
            Err(Error::Unavailable { context }) => {
                tracing::warn!(context, "a job's end could not be recorded; it is tried again");
                tokio::time::sleep(options.poll).await;
            }
            answer => return answer,
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
