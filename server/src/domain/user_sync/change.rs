//! The one way a change of a user comes to be pushed: the event, the job and the status, in the transaction of the
//! change.

use serde_json::json;
use uuid::Uuid;

use crate::model::event::{EventKind, EventStatus, NewEvent};
use crate::model::job::{Job, JobKind, NewJob};
use crate::model::membership::Subscription;
use crate::model::user::User;
use crate::model::{Instant, Json, Result};
use crate::storage::{self, Emit, WriteTx};

/// Tries after the first of telling about a deletion: no sweep finds a user who is gone.
const DELETION_RETRIES: i32 = 50;

/// How often a push that was overtaken is followed by another at once.
const MOST_OVERTAKEN: u64 = 3;
/// What a push's job says that follows overtaken ones: how many.
const OVERTAKEN: &str = "overtaken";

/// The line to CreatorUp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether there is anybody at its other end. Without, events wait in their table, and the first sweep after
    /// CreatorUp was configured takes them up; no job waits for what may never be.
    pub is_connected: bool,
}

impl Line {
    /// Tells CreatorUp about a change of a user or their subscription. The caller holds the user's row.
    pub async fn tell(self, tx: &mut WriteTx, Change(event): Change) -> Result<()> {
        let (user_id, kind, at) = (event.user_id, event.kind, event.at);
        storage::user_sync::mark_pending(tx, &[user_id]).await?;
        let event_id = tx.emit(event);
        if self.is_connected {
            let mut job = push(user_id, at).for_event(event_id);
            if kind == EventKind::SubscriptionSync {
                // A subscription decides over access.
                job.priority = JobKind::SubscriptionSync.rule().priority;
            }
            tx.enqueue(job);
        }
        Ok(())
    }

    /// Tells CreatorUp about a subscription that it has itself changed, because a push of before may have come to it
    /// after that change and undone it. The caller holds the user's row; `times` is how often that has happened since
    /// the last change that was told without it.
    ///
    /// A CreatorUp that answers each push with a change of its own would be told for ever. So after a few times no job
    /// is made and the user is left to the sweep.
    pub async fn tell_overtaken(self, tx: &mut WriteTx, subscription: &Subscription, times: u64) -> Result<()> {
        storage::user_sync::mark_pending(tx, &[subscription.user_id]).await?;
        if self.is_connected && times < MOST_OVERTAKEN {
            let Change(event) = Change::of_subscription(subscription, "overtaken");
            let job = NewJob { payload: json!({ OVERTAKEN: times + 1 }).into(), ..push(event.user_id, event.at) };
            let priority = JobKind::SubscriptionSync.rule().priority;
            let event_id = tx.emit(event);
            tx.enqueue(NewJob { priority, ..job }.for_event(event_id));
        }
        Ok(())
    }

    /// Tells CreatorUp that a user is no more, if it can have heard of them.
    pub fn tell_deleted(self, tx: &mut WriteTx, user: &User, at: Instant) {
        let event_id = tx.emit(NewEvent { at, ..Change::of_user(user, "deleted").0 });
        if self.is_connected || user.creatorup_synced_at.is_some() {
            let job = push(user.id, at).unique(format!("{}:deleted", user.id)).for_event(event_id);
            tx.enqueue(NewJob { max_retries: Some(DELETION_RETRIES), ..job });
        }
    }
}

/// The job that pushes a user as they are when it runs. However many changes ask for it, one of them waits.
pub fn push(user_id: Uuid, at: Instant) -> NewJob {
    let key = user_id.to_string();
    NewJob::new(JobKind::UserSync, key.clone(), json!({}), at).unique(key)
}

/// How many overtaken pushes this one follows.
pub(super) fn times_overtaken(job: &Job) -> u64 {
    job.payload.get(OVERTAKEN).and_then(Json::as_u64).unwrap_or(0)
}

/// Something that happened to a user and that CreatorUp has to be told about. Only a [`Line`] takes it, so that none is
/// recorded and then not told.
pub struct Change(NewEvent);

impl Change {
    /// A change of the user.
    pub fn of_user(user: &User, change: &str) -> Change {
        let payload = json!({ "change": change, "user_id": user.id, "email": user.email, "name": user.name });
        Change::new(EventKind::UserSync, user.id, payload, user.updated_at)
    }

    /// A change of their subscription.
    pub fn of_subscription(subscription: &Subscription, change: &str) -> Change {
        let payload = json!({
            "change": change,
            "subscription_id": subscription.id,
            "plan_id": subscription.plan_id,
            "status": subscription.status.as_str(),
            "end_date": subscription.end_date,
        });
        Change::new(EventKind::SubscriptionSync, subscription.user_id, payload, subscription.updated_at)
    }

    fn new(kind: EventKind, user_id: Uuid, payload: Json, at: Instant) -> Change {
        Change(NewEvent { kind, user_id, status: EventStatus::Pending, payload: payload.into(), at })
    }
}

/// Asks for a push of a user as they are, under their oldest pending event, or one of its own when nothing is pending.
/// The caller holds the user's row.
pub async fn ask(tx: &mut WriteTx, user: &User, job: NewJob, at: Instant) -> Result<Uuid> {
    let event_id = match storage::sync_event::pending(tx.reader(), user.id, 1).await?.first() {
        Some(event_id) => *event_id,
        None => tx.emit(NewEvent { at, ..Change::of_user(user, "requested").0 }),
    };
    tx.enqueue(job.for_event(event_id));
    Ok(event_id)
}
