//! The job of a webhook: a slice of its work, and the next job that is left behind when it ends.

use chrono::TimeDelta;
use uuid::Uuid;

use super::slice::{AWAY, Slice};
use super::{job_at, job_now};
use crate::domain::Hub;
use crate::model::hook::Hook;
use crate::model::hook::secret::Secret;
use crate::model::job::{Job, JobKind, Outcome};
use crate::model::seal::Unsealable;
use crate::model::{Error, Result};
use crate::storage;
use crate::storage::hook::{PREVIOUS_SECRET, SECRET, SealedSecrets};
use crate::storage::hook_delivery::Priority;

/// How long a webhook waits whose integration has its share of the places, when no other gives it its own before.
const TURNED_AWAY: TimeDelta = TimeDelta::seconds(5);
/// How long a webhook waits whose secrets cannot be opened.
const POSTPONED: TimeDelta = TimeDelta::minutes(5);
/// Deliveries one transaction holds.
const HELD: u64 = 1_000;

impl Hub {
    /// Tells a webhook what is due.
    pub(in crate::domain) async fn tell_webhook(&self, job: &Job) -> Outcome {
        match self.try_tell_webhook(job).await {
            Ok(()) => Outcome::Done(None),
            Err(error) => {
                tracing::warn!(job = %job.id, %error, context = ?error, "a webhook could not be read or noted");
                Outcome::retry(error)
            }
        }
    }

    async fn try_tell_webhook(&self, job: &Job) -> Result<()> {
        let id = Uuid::parse_str(&job.key).map_err(|_| Error::internal("the key of a delivery is no webhook"))?;
        let _place = self.hooks.enter();
        if self.stopping.is_cancelled() {
            // Nothing new is begun while the hub stops, and the job is not to come back at once.
            tokio::time::sleep(AWAY).await;
            return self.leave_job(id, None, None).await;
        }
        let changes = self.hooks.changes();
        let listener = self.store.listen(JobKind::WebhookDelivery, &job.key);
        let Some((hook, sealed)) = storage::hook::find_sealed(self.store.read(), id).await? else { return Ok(()) };
        let secrets = match self.open_secrets(&hook, &sealed) {
            Ok(secrets) => secrets,
            Err(why) => {
                tracing::error!(webhook_id = %id, %why, "a webhook's secret cannot be decrypted; nothing is sent to it");
                return self.leave_job(id, Some(POSTPONED), None).await;
            }
        };
        let integration_id = hook.integration_id;
        let Some(share) = self.hooks.share(integration_id, id) else {
            return self.leave_job(id, Some(TURNED_AWAY), None).await;
        };
        let mut slice = Slice::new(self, hook, sealed, secrets, changes);
        let ended = slice.run(listener).await;
        self.hooks.forget_pace(id);
        drop(share);
        ended?;
        self.leave_job(id, None, self.hooks.next_turned_away(integration_id)).await
    }

    /// The secrets of a webhook that are good now, the newest first.
    pub(super) fn open_secrets(
        &self,
        hook: &Hook,
        sealed: &SealedSecrets,
    ) -> std::result::Result<Vec<Secret>, Unsealable> {
        let open = |purpose, sealed: &str| {
            let opened = self.sealer.open(purpose, hook.id, sealed)?;
            let text = String::from_utf8(opened).map_err(|_| Unsealable::Damaged)?;
            Secret::parse(&text).map_err(|_| Unsealable::Damaged)
        };
        let mut secrets = vec![open(SECRET, &sealed.current)?];
        let is_good = hook.previous_secret_expires_at.is_some_and(|until| until > self.now());
        if let Some(previous) = sealed.previous.as_deref().filter(|_| is_good) {
            secrets.push(open(PREVIOUS_SECRET, previous)?);
        }
        Ok(secrets)
    }

    /// Leaves the job that goes on: now, when the next delivery is due, or when the breaker closes. What waits for a
    /// webhook that is disabled is held instead. And it calls the next one of its integration that waits for a place.
    async fn leave_job(&self, id: Uuid, postponed: Option<TimeDelta>, called: Option<Uuid>) -> Result<()> {
        loop {
            let input = (id, self.now(), postponed, called);
            let is_over = self.store.write(input, |tx, (id, now, postponed, called)| {
                Box::pin(async move {
                    if let Some(called) = called {
                        tx.enqueue(job_now(*called, *now));
                    }
                    let mut found = storage::hook::find(tx.reader(), *id).await?;
                    if found.as_ref().is_some_and(|hook| !hook.is_active) {
                        // Whoever makes it active waits, or what is told it from then on would be held here.
                        storage::hook::standings(tx, &[*id].into()).await?;
                        found = storage::hook::find(tx.reader(), *id).await?;
                    }
                    let Some(hook) = found else { return Ok(true) };
                    let open_until = hook.breaker.open(*now);
                    let last = if hook.is_active && open_until.is_none() { Priority::Replay } else { Priority::Test };
                    let dialect = tx.dialect();
                    let next = storage::hook_delivery::next_due(tx.reader(), dialect, *id, last).await?;
                    if let Some(next) = next {
                        let next = postponed.map_or(next, |postponed| next.max(*now + postponed));
                        tx.enqueue(job_at(*id, next, *now));
                    }
                    if let Some(open_until) = open_until.filter(|_| hook.is_active) {
                        let waits =
                            storage::hook_delivery::next_due(tx.reader(), dialect, *id, Priority::Replay).await?;
                        if let Some(next) = waits {
                            tx.enqueue(job_at(*id, next.max(open_until), *now));
                        }
                    }
                    let is_over = hook.is_active || storage::hook_delivery::hold(tx, *id, HELD).await? < HELD;
                    Ok(is_over)
                })
            });
            if is_over.await? {
                return Ok(());
            }
        }
    }
}
