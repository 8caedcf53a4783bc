//! A worker's life as the database knows it: it signs on, beats, and rescues what the dead left behind.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::books::Books;
use super::{Handler, Options};
use crate::model::clock::Clock;
use crate::model::job::Job;
use crate::model::{Error, Result};
use crate::storage::job::Orphans;
use crate::storage::{self, Store};

/// What [`Handler::died`](super::Handler::died) is told of a job that is set aside because its workers died under it.
pub const POISON: &str = "given up: its workers died under it too often";

/// One life of a worker. A new one begins with each start of a hub, and after the database did not hear from it for
/// so long that its jobs were taken.
pub(super) struct Lease {
    pub id: Uuid,
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub handler: Arc<dyn Handler>,
    pub options: Options,
    /// What it holds, as it knows itself.
    pub books: Arc<Books>,
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
        self.rescue(Orphans::OfTheDead { silence: self.options.silence() }).await
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
                let sent = Instant::now();
                self.beat().await.map(|is_known| is_known.then_some(sent))
            };
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answer = tokio::time::timeout(patience, beat) => answer,
            };
            match answer {
                Ok(Ok(Some(sent))) => heard = sent,
                Ok(Ok(None)) => return self.lose("was taken for dead"),
                Ok(Err(error)) => tracing::warn!(%error, context = ?error, "a heartbeat failed"),
                Err(_late) => return self.lose("could not make itself heard"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                // No longer than until the next heartbeat is due; what is left is for that one.
                _ = tokio::time::timeout(self.options.heartbeat, self.look_after()) => {}
            }
        }
    }

    /// Takes what is orphaned, and compares the books with the database.
    async fn look_after(&self) {
        if let Err(error) = self.rescue(Orphans::OfTheDead { silence: self.options.silence() }).await {
            tracing::warn!(%error, context = ?error, "a rescue failed; it is tried again");
        }
        if let Err(error) = self.compare_books().await {
            tracing::warn!(%error, context = ?error, "a worker's books could not be compared; it is tried again");
        }
    }

    /// Stops what is no longer this worker's, and lets go of what is its and it does not work on: the end of a job that
    /// could not be recorded, or a claim that was committed though its answer was lost.
    async fn compare_books(&self) -> Result<()> {
        let before = self.books.read();
        let stored = storage::job::leases(self.store.read(), self.store.dialect(), self.id).await?;
        let findings = self.books.compare(&before, &stored);
        for (id, lease) in findings.lost {
            tracing::info!(job = %id, lease, "a lease is over that this worker did not end; its handler is stopped");
            self.books.stop(id, Some(lease));
        }
        if findings.forgotten.is_empty() {
            return Ok(());
        }
        tracing::error!(
            jobs = findings.forgotten.len(),
            "jobs on lease to this worker are not worked on; they are let go"
        );
        self.rescue(Orphans::Forgotten { worker_id: self.id, leases: findings.forgotten }).await
    }

    fn lose(&self, why: &'static str) {
        tracing::warn!(worker = %self.id, why, "a worker lost its lease; its jobs are stopped");
        self.lost.cancel();
    }

    async fn beat(&self) -> Result<bool> {
        self.store.write(self.id, |tx, id| Box::pin(storage::job::beat(tx, *id))).await
    }

    /// Takes jobs that nobody works on, set by set.
    async fn rescue(&self, orphans: Orphans) -> Result<()> {
        let (mut ready, mut merged) = (0, 0);
        let poison = loop {
            let found =
                self.store.write(orphans.clone(), |tx, orphans| Box::pin(storage::job::rescue(tx, orphans))).await?;
            (ready, merged) = (ready + found.ready, merged + found.merged);
            if found.ready + found.merged == 0 {
                break found.poison;
            }
        };
        if ready + merged > 0 {
            tracing::warn!(ready, merged, "jobs that nobody worked on were rescued");
        }
        for job in poison {
            match self.set_aside(&job).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::error!(job = %job.id, kind = job.kind.as_str(), key = job.key, rescues = job.rescues, "a job was set aside: it takes its workers down");
                }
                Err(error @ Error::Unavailable { .. }) => return Err(error),
                // It keeps neither the others of its set nor this worker from going on.
                Err(error) => {
                    tracing::error!(job = %job.id, %error, context = ?error, "a job cannot be set aside; it is tried again");
                }
            }
        }
        Ok(())
    }

    /// Sets a job aside with all that goes with it; or the job alone, when that is what cannot be done.
    async fn set_aside(&self, job: &Job) -> Result<bool> {
        let input = (job.clone(), self.handler.clone(), self.clock.now());
        let whole = self.store.write(input, |tx, (job, handler, now)| {
            Box::pin(async move {
                let is_set_aside = storage::job::set_aside(tx, job, POISON, true, *now).await?;
                if is_set_aside {
                    handler.died(tx, job, POISON).await?;
                }
                Ok(is_set_aside)
            })
        });
        let error = match whole.await {
            Err(error) if !matches!(error, Error::Unavailable { .. }) => error,
            answer => return answer,
        };
        tracing::error!(job = %job.id, %error, context = ?error, "a job cannot be set aside with all that goes with it; it alone is");
        let input = (job.clone(), self.clock.now());
        let alone =
            self.store.write(input, |tx, (job, now)| Box::pin(storage::job::set_aside(tx, job, POISON, false, *now)));
        alone.await
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
