//! A worker's life as the database knows it: it signs on, beats, and rescues what the dead left behind.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Handler, Options};
use crate::model::Result;
use crate::model::clock::Clock;
use crate::storage::job::Rescued;
use crate::storage::{self, Store};

/// Why a job that was set aside was.
const POISON: &str = "given up: its workers died under it too often";

/// One life of a worker. A new one begins with each start of a hub, and after the database did not hear from it for
/// so long that its jobs were taken.
pub(super) struct Lease {
    pub id: Uuid,
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub handler: Arc<dyn Handler>,
    pub options: Options,
    /// Cancelled when the worker no longer holds what it holds.
    pub lost: CancellationToken,
}

impl Lease {
    /// Makes the worker known, and takes at once what is certain to be orphaned.
    pub async fn sign_on(&self) -> Result<()> {
        let name = format!("{}@{}", std::process::id(), hostname());
        // Where one process has the database for itself, whoever else is listed is gone.
        let alone = !self.store.dialect().is_shared();
        let input = (self.id, name, alone);
        self.store.write(input, |tx, (id, name, alone)| Box::pin(storage::job::sign_on(tx, *id, name, *alone))).await?;
        self.rescue().await
    }

    /// Beats until the lease is lost or `stop`. A worker that cannot make itself heard gives its jobs up before others
    /// take them: a late answer of a handler could otherwise meet its successor's.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(self.options.heartbeat);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let patience = (self.options.silence() - self.options.heartbeat / 4).saturating_sub(heard.elapsed());
            let beat = async {
                tick.tick().await;
                self.beat().await
            };
            let sent = Instant::now();
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = tokio::time::timeout(patience, beat) => answer,
            };
            match answer {
                Ok(Ok(true)) => heard = sent,
                Ok(Ok(false)) => return self.lose("was taken for dead"),
                Ok(Err(error)) => tracing::warn!(%error, context = ?error, "a heartbeat failed"),
                Err(_late) => return self.lose("could not make itself heard"),
            }
            if let Err(error) = self.rescue().await {
                tracing::warn!(%error, context = ?error, "a rescue failed; it is tried again");
            }
        }
    }

    fn lose(&self, why: &'static str) {
        tracing::warn!(worker = %self.id, why, "a worker lost its lease; its jobs are stopped");
        self.lost.cancel();
    }

    async fn beat(&self) -> Result<bool> {
        self.store.write(self.id, |tx, id| Box::pin(storage::job::beat(tx, *id))).await
    }

    /// Takes the jobs of the dead, set by set.
    async fn rescue(&self) -> Result<()> {
        let mut total = Rescued::default();
        loop {
            let input = (self.options.silence(), self.clock.now(), self.handler.clone());
            let found = self
                .store
                .write(input, |tx, (silence, now, handler)| {
                    Box::pin(async move {
                        let rescued = storage::job::rescue(tx, *silence, *now).await?;
                        for job in &rescued.dead {
                            handler.died(tx, job, POISON).await?;
                        }
                        Ok(rescued)
                    })
                })
                .await?;
            if found.total() == 0 {
                break;
            }
            for job in &found.dead {
                tracing::error!(job = %job.id, kind = job.kind.as_str(), key = job.key, rescues = job.rescues, "a job was set aside: it takes its workers down");
            }
            total.ready += found.ready;
            total.merged += found.merged;
            total.dead.extend(found.dead);
        }
        if total.total() > 0 {
            tracing::warn!(
                ready = total.ready,
                merged = total.merged,
                dead = total.dead.len(),
                "jobs of dead workers were rescued"
            );
        }
        Ok(())
    }

    /// Takes the worker off the list.
    pub async fn leave(&self) {
        let left = self.store.write(self.id, |tx, id| Box::pin(storage::job::leave(tx, *id))).await;
        if let Err(error) = left {
            tracing::warn!(%error, context = ?error, "a worker could not sign off; its silence will tell");
        }
    }
}

/// The machine's name, for people who look for a worker.
fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "hub".to_owned(), |name| name.trim().to_owned())
}
