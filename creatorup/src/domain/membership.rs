//! What a member may do, which the hub decides, and what it is told about memberships.

use serde_json::json;
use uuid::Uuid;

use super::CreatorUp;
use crate::model::decision::Decision;
use crate::model::outbox::{Event, Webhook};
use crate::model::{Error, Instant, Result};
use crate::storage;

/// What a subscription is now.
#[derive(Clone, Debug)]
pub struct SubscriptionReport {
    /// Whose, by the id at DigiUp.
    pub digiup_user_id: Uuid,
    /// The plan's name.
    pub plan: String,
    /// `active`, `canceled` or `expired`.
    pub status: String,
    /// When it ends.
    pub end_date: Option<Instant>,
    /// When it changed.
    pub occurred_at: Option<Instant>,
    /// Under which a repetition is known.
    pub event_id: Option<String>,
}

impl CreatorUp {
    /// Asks the hub.
    pub async fn check_membership(&self, token: &str, feature: &str) -> Result<Decision> {
        self.hub.check(token, feature).await
    }

    /// Remembers to tell the hub; answers with the event's id, and whether it was remembered before.
    pub async fn report_subscription(&self, report: SubscriptionReport) -> Result<(String, bool)> {
        self.store
            .write((report, self.now()), |tx, (report, now)| {
                Box::pin(async move {
                    if storage::user::find(tx.reader(), report.digiup_user_id).await?.is_none() {
                        return Err(Error::NotFound { what: "user" });
                    }
                    let event_id = report.event_id.clone();
                    let event_id = event_id.unwrap_or_else(|| format!("subscription-{}", Uuid::now_v7()));
                    let known = storage::outbox::find_by_event(tx.reader(), &event_id).await?;
                    // A repetition that does not say when means the same time as the first.
                    let at = report.occurred_at.or(known.as_ref().map(|known| known.created_at)).unwrap_or(*now);
                    let mut subscription = json!({"plan": report.plan, "status": report.status});
                    if let Some(end_date) = report.end_date {
                        subscription["end_date"] = json!(end_date);
                    }
                    let body = json!({
                        "digiup_user_id": report.digiup_user_id,
                        "subscription_data": subscription,
                        "occurred_at": at,
                        "event_id": event_id,
                    });
                    let text = body.to_string();
                    match known {
                        Some(known) if known.body == text => Ok((event_id, true)),
                        Some(_) => Err(Error::Taken { field: "event_id" }),
                        None => {
                            let event = Event::SubscriptionUpdate;
                            let told = Webhook::new(event, event_id.clone(), report.digiup_user_id, None, &body, *now);
                            super::report::tell(tx, &told).await?;
                            Ok((event_id, false))
                        }
                    }
                })
            })
            .await
    }
}
