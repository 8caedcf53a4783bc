//! The push of a user: what the queue's jobs do, and what becomes of it.

use chrono::TimeDelta;
use uuid::Uuid;

use super::change::times_overtaken;
use crate::domain::Hub;
use crate::model::creatorup::{Confirmation, Failure, Push, Snapshot};
use crate::model::event::EventStatus;
use crate::model::job::{Job, JobKind, NewJob, Outcome};
use crate::model::membership::Membership;
use crate::model::{Error, Json, Result};
use crate::storage::sync_event::Fate;
use crate::storage::{self, WriteTx};

/// Events one push settles at most; the sweep finds the rest.
const SETTLED: u64 = 1_000;
/// How long a push waits while no CreatorUp is configured.
const POSTPONED: TimeDelta = TimeDelta::minutes(5);

impl Hub {
    /// Pushes a user as they are now to CreatorUp.
    pub(in crate::domain) async fn push_user(&self, job: &Job) -> Outcome {
        match self.try_push(job).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(job = %job.id, %error, context = ?error, "a user could not be read or noted");
                Outcome::retry(error)
            }
        }
    }

    async fn try_push(&self, job: &Job) -> Result<Outcome> {
        let Some(creatorup) = &self.creatorup else { return self.postpone(job).await };
        let named = job.payload.get("creatorup_api_url").and_then(Json::as_str);
        let Some(target) = creatorup.target(named) else {
            return Ok(Outcome::dead("the address is no longer one that may be pushed to"));
        };
        let user_id = user_of(job)?;
        // The events first: whatever the snapshot misses happened after them, and has an event and a job of its own.
        let events = storage::sync_event::pending(self.store.read(), user_id, SETTLED).await?;
        let snapshot = self.snapshot(user_id).await?;
        if snapshot.user.is_none() && events.is_empty() {
            return Ok(Outcome::Done(None));
        }
        let push = Push { job_id: job.id, snapshot };
        match creatorup.push(&target, &push).await {
            Ok(said) => {
                let response = self.confirm(job, push.snapshot, events, said).await?;
                Ok(Outcome::Done(Some(response)))
            }
            Err(failure) => {
                self.note_failure(job, events, &failure).await?;
                let error = failure.to_string();
                Ok(match failure.is_permanent {
                    true => Outcome::Dead { error },
                    false => Outcome::Retry { error, after: failure.retry_after },
                })
            }
        }
    }

    /// Puts a job off without spending a try: a copy of it waits, into which this one is merged when it is handed back.
    async fn postpone(&self, job: &Job) -> Result<Outcome> {
        let now = self.now();
        let later = NewJob {
            unique_key: job.unique_key.clone(),
            run_at: Some(now + POSTPONED),
            event_id: job.event_id,
            max_retries: Some(job.max_retries),
            ..NewJob::new(job.kind, &job.key, job.payload.clone(), now)
        };
        self.store
            .write(later, |tx, later| {
                Box::pin(async move {
                    tx.enqueue(later.clone());
                    Ok(())
                })
            })
            .await?;
        Ok(Outcome::Released)
    }

    async fn snapshot(&self, user_id: Uuid) -> Result<Snapshot> {
        // Not from what is kept at hand: another hub may have changed it a moment ago.
        let store = self.store.read();
        let as_of = self.now();
        let user = storage::user::find(store, user_id).await?;
        let subscription = storage::subscription::current(store, &[user_id]).await?.remove(&user_id);
        let membership = match subscription {
            None => None,
            Some(subscription) => {
                let plans = storage::plan::list(store).await?;
                let plan = plans.into_iter().find(|plan| plan.id == subscription.plan_id);
                let plan = plan.ok_or_else(|| Error::internal("a subscription has no plan"))?;
                Some(Membership { subscription, plan })
            }
        };
        let courses = storage::user_sync::courses(store, user_id).await?;
        Ok(Snapshot { user_id, user, courses, membership, as_of })
    }

    /// Notes that CreatorUp has the user, with every event that the snapshot held. Its retries are those of the push.
    ///
    /// A change that CreatorUp told of meanwhile asked for no push, as CreatorUp has it already; but what this push
    /// carried from before it may have come after it. So if the subscription is another by now, it is told.
    async fn confirm(&self, job: &Job, snapshot: Snapshot, events: Vec<Uuid>, said: Confirmation) -> Result<Json> {
        let response = response(&said);
        let settled = |id| Fate {
            id,
            status: EventStatus::Completed,
            retries: job.attempts,
            response: Some(response.clone()),
            error: None,
        };
        let fates: Vec<Fate> = events.into_iter().map(settled).collect();
        let forget = self.forgetting(snapshot.user_id);
        let input = (snapshot, fates, said, self.now(), (self.line(), times_overtaken(job)), forget);
        self.store
            .write(input, |tx, (snapshot, fates, said, now, (line, times), forget)| {
                Box::pin(async move {
                    let user_id = snapshot.user_id;
                    storage::user::hold(tx, &[user_id]).await?;
                    storage::sync_event::settle(tx, fates, *now).await?;
                    let is_newest = storage::sync_event::pending(tx.reader(), user_id, 1).await?.is_empty();
                    storage::user_sync::confirm(tx, user_id, said, is_newest, *now).await?;
                    if is_newest && snapshot.user.is_some() {
                        let carried = snapshot.membership.as_ref().map(|held| &held.subscription);
                        let stored = storage::subscription::current(tx.reader(), &[user_id]).await?.remove(&user_id);
                        if let Some(stored) = stored.filter(|stored| carried.is_none_or(|one| !one.says_as(stored))) {
                            line.tell_overtaken(tx, &stored, *times).await?;
                        }
                    }
                    tx.after_commit(forget.clone().into_effect());
                    Ok(())
                })
            })
            .await?;
        Ok(response)
    }

    /// Notes a failed try at every event that waits for the push; the queue notes it at the job's own.
    async fn note_failure(&self, job: &Job, mut events: Vec<Uuid>, failure: &Failure) -> Result<()> {
        events.retain(|id| Some(*id) != job.event_id);
        if events.is_empty() || failure.is_permanent || job.is_last_try() {
            return Ok(());
        }
        let fates = fates(events, EventStatus::Pending, job.attempts + 1, &failure.to_string());
        let input = (fates, self.now());
        self.store.write(input, |tx, (fates, now)| Box::pin(storage::sync_event::settle(tx, fates, *now))).await
    }

    /// Gives a push up: the user's copy is wrong until a later push succeeds.
    pub(in crate::domain) async fn push_died(&self, tx: &mut WriteTx, job: &Job, error: &str) -> Result<()> {
        let user_id = user_of(job)?;
        storage::user::hold(tx, &[user_id]).await?;
        // A newer push that waits has the events that are still pending.
        if !storage::job::busy_keys(tx, JobKind::UserSync, std::slice::from_ref(&job.key)).await?.is_empty() {
            return Ok(());
        }
        let events = storage::sync_event::pending(tx.reader(), user_id, SETTLED).await?;
        storage::sync_event::settle(tx, &fates(events, EventStatus::Failed, job.attempts, error), self.now()).await?;
        storage::user_sync::fail(tx, user_id).await?;
        tx.after_commit(self.forgetting(user_id).into_effect());
        Ok(())
    }
}

/// What an event keeps of CreatorUp's answer.
fn response(said: &Confirmation) -> Json {
    serde_json::json!({ "creatorup_user_id": said.creatorup_user_id, "metadata": said.metadata })
}

fn fates(events: Vec<Uuid>, status: EventStatus, retries: i32, error: &str) -> Vec<Fate> {
    let fate = |id| Fate { id, status, retries, response: None, error: Some(error.to_owned()) };
    events.into_iter().map(fate).collect()
}

fn user_of(job: &Job) -> Result<Uuid> {
    Uuid::parse_str(&job.key).map_err(|_| Error::internal("the key of a push is no user"))
}
