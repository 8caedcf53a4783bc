//! Webhooks on their way to the hub.

use serde_json::json;
use upbridge_service::model::words::words;
use uuid::Uuid;

use super::batch::Batch;
use super::{Instant, Json, Month};

words! {
    /// What is told.
    Event {
        /// A batch is over: what it really counts for.
        UsageUpdate = "usage-update",
        /// A subscription changed at CreatorUp.
        SubscriptionUpdate = "subscription-update",
    }
}

words! {
    /// Where a webhook stands.
    Standing {
        /// It is to be sent.
        Pending = "pending",
        /// The hub took it.
        Sent = "sent",
        /// The hub will never take it.
        Failed = "failed",
    }
}

/// A webhook. Its bytes are kept: the hub knows a repetition by its id, and the same id with other bytes is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// UUID, version 7.
    pub id: Uuid,
    /// What is told.
    pub event: Event,
    /// Under which the hub knows a repetition.
    pub event_id: String,
    /// Whom it is about, by the id at DigiUp.
    pub digiup_user_id: Uuid,
    /// The batch, when it is about one.
    pub batch_id: Option<Uuid>,
    /// What is sent.
    pub body: String,
    /// When it was made.
    pub created_at: Instant,
}

/// Bytes of metadata that a webhook carries, at most: the hub takes bodies of 1 MiB.
const LONGEST_METADATA: usize = 512 << 10;

impl Webhook {
    /// Tells what a batch that is over counts for.
    pub fn of_batch(batch: &Batch, month: Month, now: Instant) -> Webhook {
        Webhook::of_batch_again(batch, month, 1, now)
    }

    /// Tells it once more: each time after the first is an event of its own, because the hub knows the others already.
    pub fn of_batch_again(batch: &Batch, month: Month, times: u64, now: Instant) -> Webhook {
        let mut event_id = format!("{}.{}", batch.id, batch.status.as_str());
        if times > 1 {
            event_id += &format!(".{times}");
        }
        let mut usage = json!({
            "usage_id": batch.id,
            "batch_name": batch.name,
            "batch_type": batch.batch_type,
            "usage_type": batch.usage_type,
            "usage_amount": batch.amount(),
            "month_year": month.to_string(),
        });
        // What failed was never completed: it stays where its creation put it.
        if let Some(at) = batch.completed_at() {
            usage["completed_at"] = json!(at);
        }
        // The amount must come through, whatever there is to be said about a hundred inputs.
        if let Some(told) = batch.told().filter(|told| told.to_string().len() <= LONGEST_METADATA) {
            usage["metadata"] = told;
        }
        let body = json!({"digiup_user_id": batch.digiup_user_id, "usage_data": usage, "event_id": event_id});
        Webhook::new(Event::UsageUpdate, event_id, batch.digiup_user_id, Some(batch.id), &body, now)
    }

    /// Makes one.
    pub fn new(
        event: Event,
        event_id: String,
        digiup_user_id: Uuid,
        batch_id: Option<Uuid>,
        body: &Json,
        now: Instant,
    ) -> Webhook {
        Webhook {
            id: Uuid::now_v7(),
            event,
            event_id,
            digiup_user_id,
            batch_id,
            body: body.to_string(),
            created_at: now,
        }
    }
}
