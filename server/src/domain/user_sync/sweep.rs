//! The sweep: finds users whose copy at CreatorUp is missing, wrong or old, batch by batch.
//!
//! Each batch is a job that asks for the pushes of its users and for the next batch, in one transaction. The next batch
//! begins where this one ended, so nobody is passed over however many are behind; and because it is less urgent than
//! the pushes, it waits until they are done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::change::push;
use crate::domain::{Caches, Hub};
use crate::model::event::{EventKind, EventStatus, NewEvent};
use crate::model::job::{Job, JobKind, NewJob, Outcome};
use crate::model::membership::Plan;
use crate::model::user::SyncStatus;
use crate::model::{Instant, Json, Result};
use crate::storage::user_sync::Standings;
use crate::storage::{self, Emit, WriteTx};

/// What the sweep is called where slots are taken, and the key of its jobs.
const SWEEP: &str = "user_sweep";
/// A copy that was not confirmed for so long is pushed again: CreatorUp may have lost it.
const STALE: TimeDelta = TimeDelta::days(7);
/// More urgent than the sweep's next batch, less than every push that somebody's change asked for.
const PRIORITY: i32 = 35;

impl Hub {
    /// Begins a sweep when its time has come, on the one hub that notices first, unless one is under way.
    pub async fn schedule_sweep(&self, interval: Duration) -> Result<()> {
        if self.creatorup.is_none() {
            return Ok(());
        }
        let now = self.now();
        let slot = now.timestamp_millis() / interval.as_millis().max(1) as i64;
        self.store
            .write((slot, now), |tx, (slot, now)| {
                Box::pin(async move {
                    let is_first = storage::job::take_slot(tx, SWEEP, *slot).await?;
                    let key = [SWEEP.to_owned()];
                    if is_first && storage::job::busy_keys(tx, JobKind::UserSweep, &key).await?.is_empty() {
                        tx.enqueue(NewJob::new(JobKind::UserSweep, SWEEP, json!({}), *now).unique(SWEEP));
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Asks for the pushes of one batch of users, and for the next batch.
    pub(in crate::domain) async fn sweep_users(&self, job: &Job) -> Outcome {
        if self.creatorup.is_none() {
            // One that was begun while there was a CreatorUp.
            return Outcome::Done(None);
        }
        match self.sweep_batch(job).await {
            Ok(answer) => Outcome::Done(Some(answer)),
            Err(error) => {
                tracing::warn!(job = %job.id, %error, context = ?error, "a batch of users could not be swept");
                Outcome::retry(error)
            }
        }
    }

    async fn sweep_batch(&self, job: &Job) -> Result<Json> {
        let (store, most) = (self.store.read(), self.sync_batch_size);
        let after = job.payload.get("after").and_then(Json::as_str).and_then(|id| Uuid::parse_str(id).ok());
        let plan_id = job.payload.get("plan_id").and_then(Json::as_i64);
        let mut found = match plan_id {
            Some(plan_id) => storage::user_sync::list_subscribers(store, plan_id as i32, after, most).await?,
            None => storage::user_sync::list_behind(store, after, most).await?,
        };
        let next = found.last().filter(|_| found.len() as u64 == most).map(|(last, _)| next(job, *last, self.now()));
        if plan_id.is_none() {
            let room = most - found.len() as u64;
            found.extend(storage::user_sync::list_stale(store, self.now() - STALE, room).await?);
        }
        let users = found.len();
        let input = (found, plan_id.is_some(), next, self.now(), self.caches.clone());
        let pushes = self
            .store
            .write(input, |tx, (found, changed, next, now, caches)| {
                Box::pin(async move {
                    let ids: Vec<Uuid> = found.iter().map(|(id, _)| *id).collect();
                    storage::user::hold(tx, &ids).await?;
                    let found = match changed {
                        true => {
                            mark_pending(tx, ids, caches.clone()).await?;
                            found.clone()
                        }
                        // A push may have been confirmed since they were found. What is confirmed from here on is of a
                        // push that is seen to be under way.
                        false => storage::user_sync::still_behind(tx.reader(), found, *now - STALE).await?,
                    };
                    let pushes = ask(tx, &found, *changed, *now).await?;
                    next.iter().for_each(|next| tx.enqueue(next.clone()));
                    Ok(pushes)
                })
            })
            .await?;
        Ok(json!({ "users": users, "pushes": pushes }))
    }
}

/// The sweep of everybody whose plan was changed: their copies hold the plan as it was.
pub fn of_plan(plan: &Plan, now: Instant) -> NewJob {
    // A key for each change: one that comes while the last is swept must begin from the start.
    let key = format!("{SWEEP}:plan:{}:{}", plan.id, now.timestamp_micros());
    NewJob::new(JobKind::UserSweep, SWEEP, json!({ "plan_id": plan.id }), now).unique(key)
}

/// The job of the batch after this one.
fn next(job: &Job, last: Uuid, now: Instant) -> NewJob {
    let mut payload = job.payload.clone();
    payload["after"] = json!(last);
    NewJob { unique_key: job.unique_key.clone(), ..NewJob::new(job.kind, &job.key, payload, now) }
}

async fn mark_pending(tx: &mut WriteTx, ids: Vec<Uuid>, caches: Arc<Caches>) -> Result<()> {
    storage::user_sync::mark_pending(tx, &ids).await?;
    tx.after_commit(move || ids.iter().for_each(|id| caches.users.forget(id)));
    Ok(())
}

/// Asks for the pushes of those who have none waiting or under way; says how many. When something of theirs changed, a
/// push under way may be of before, so there another is asked for.
async fn ask(tx: &mut WriteTx, found: &Standings, changed: bool, now: Instant) -> Result<usize> {
    let keys: Vec<String> = found.iter().map(|(id, _)| id.to_string()).collect();
    let busy = match changed {
        true => HashSet::new(),
        false => storage::job::busy_keys(tx, JobKind::UserSync, &keys).await?,
    };
    let ids: Vec<Uuid> = found.iter().map(|(id, _)| *id).collect();
    let unsettled = storage::sync_event::unsettled(tx, &ids).await?;
    let (mut pushes, mut reopened) = (0, Vec::new());
    for (id, standing) in found.iter().filter(|(id, _)| !busy.contains(&id.to_string())) {
        let event_id = match unsettled.get(id) {
            Some((event_id, EventStatus::Pending)) => *event_id,
            // What failed is tried again as the same event, so that a long outage does not fill the record.
            Some((event_id, EventStatus::Failed)) if *standing == SyncStatus::Error => {
                reopened.push(*event_id);
                *event_id
            }
            _ => tx.emit(NewEvent {
                kind: EventKind::UserSync,
                user_id: *id,
                status: EventStatus::Pending,
                payload: json!({ "change": if changed { "plan_updated" } else { "refreshed" }, "user_id": id }).into(),
                at: now,
            }),
        };
        tx.enqueue(NewJob { priority: PRIORITY, ..push(*id, now).for_event(event_id) });
        pushes += 1;
    }
    storage::sync_event::reopen(tx, &reopened, now).await?;
    Ok(pushes)
}
