//! Webhooks that come in: what they are about, what tells one from another, and when an event is too old to matter.

use uuid::Uuid;

use super::membership::SubscriptionStatus;
use super::signature::Proof;
use super::words::words;
use super::{Instant, Json, JsonText};

/// Who sends the webhooks of the contract.
pub const CREATORUP: &str = "creatorup";
/// What the contract calls a callback of a provider, whose format is the provider's own.
pub const PROVIDER_CALLBACK: &str = "provider-callback";

words! {
    /// What a webhook tells.
    WebhookEvent {
        /// Something was used.
        UsageUpdate = "usage-update",
        /// A subscription changed.
        SubscriptionUpdate = "subscription-update",
    }
}

words! {
    /// Where a webhook stands.
    WebhookStatus {
        /// Stored, and to be applied.
        Received = "received",
        /// Applied.
        Processed = "processed",
        /// Refused, or given up.
        Failed = "failed",
    }
}

impl WebhookEvent {
    /// What it is counted as in a status.
    pub fn label(self, status: WebhookStatus) -> String {
        format!("{}.{}", self.as_str(), status.as_str())
    }
}

/// A webhook whose signature is good, before anything of it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What it tells.
    pub event: WebhookEvent,
    /// What its signature proves.
    pub proof: Proof,
    /// The body, byte for byte.
    pub body: bytes::Bytes,
}

/// What tells a webhook from every other of its source: the id its sender gave it, or else its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryKey {
    /// The key, 255 characters at most.
    pub key: String,
    /// Digest of the content in hex. An id that comes again with another content is a mistake of its sender.
    pub digest: String,
}

impl DeliveryKey {
    /// The key of an event by its signed id, by the id in its body, or by its content.
    pub fn of(event: WebhookEvent, signed_id: Option<&str>, event_id: Option<&str>, content: [u8; 32]) -> DeliveryKey {
        let digest = hex::encode(content);
        let id = match (signed_id, event_id) {
            (Some(id), _) => format!("id:{id}"),
            (None, Some(id)) => format!("event:{id}"),
            (None, None) => format!("sha256:{digest}"),
        };
        DeliveryKey { key: format!("{}/{id}", event.as_str()), digest }
    }
}

/// A webhook to be stored, with what is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// What it tells.
    pub event: WebhookEvent,
    /// What tells it from others.
    pub key: DeliveryKey,
    /// The user it is about.
    pub user_id: Uuid,
    /// The body as it was read.
    pub payload: Option<JsonText>,
    /// The signature, cut to 255 characters.
    pub signature: Option<String>,
    /// Where it came from; may be empty.
    pub ip: String,
    /// What is to be done about it.
    pub task: Task,
    /// When it came.
    pub at: Instant,
}

/// What a webhook asks to be done.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// What the job needs.
    pub work: JsonText,
    /// What is told in the sync event, with what the job needs: the event is kept much longer than the job, and can be
    /// tried again as long as it is.
    pub told: JsonText,
}

/// A webhook that was refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    /// What it would have told.
    pub event: WebhookEvent,
    /// The user it names, when that could be read.
    pub user_id: Option<Uuid>,
    /// The body as it was read; nothing is kept of one that proved nothing.
    pub payload: Option<JsonText>,
    /// The signature, cut to 255 characters.
    pub signature: Option<String>,
    /// Where it came from; may be empty.
    pub ip: String,
    /// Why, for people; holds no secret.
    pub error: String,
    /// When it came.
    pub at: Instant,
}

/// What a sender is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The event, which is also the log's id.
    pub event_id: Uuid,
    /// Whether it was received before.
    pub is_duplicate: bool,
}

/// A webhook as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookLog {
    /// UUID, version 7; that of the sync event when there is one.
    pub id: Uuid,
    /// Who sent it.
    pub source: String,
    /// What it tells.
    pub event_type: String,
    /// The user it is about.
    pub user_id: Option<Uuid>,
    /// The body as it was read.
    pub payload: Option<Json>,
    /// The signature.
    pub signature: Option<String>,
    /// Where it stands.
    pub status: WebhookStatus,
    /// What applying it did.
    pub response: Option<Json>,
    /// Why it failed.
    pub error_message: Option<String>,
    /// Where it came from.
    pub ip_address: String,
    /// When it was applied, refused or given up.
    pub processed_at: Option<Instant>,
    /// When it came.
    pub created_at: Instant,
}

/// Which webhooks to list; absent fields do not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookFilter {
    /// Status.
    pub status: Option<WebhookStatus>,
    /// Event.
    pub event_type: Option<String>,
    /// Source.
    pub source: Option<String>,
    /// User.
    pub user_id: Option<Uuid>,
}

/// What a subscription is now, as CreatorUp says.
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionUpdate {
    /// The plan's name, in any case.
    pub plan: String,
    /// Its status.
    pub status: SubscriptionStatus,
    /// When access ends.
    pub end_date: Option<Instant>,
    /// When it changed.
    pub occurred_at: Instant,
}

/// The status a word of CreatorUp's means, in any case. It knows no status for a subscription that gave way to
/// another plan: the hub makes that one by itself.
pub fn subscription_status(word: &str) -> Option<SubscriptionStatus> {
    match word.to_lowercase().as_str() {
        "active" => Some(SubscriptionStatus::Active),
        "canceled" | "cancelled" | "inactive" => Some(SubscriptionStatus::Canceled),
        "expired" => Some(SubscriptionStatus::Expired),
        _ => None,
    }
}

/// When an event happened: what it says itself, else when it was signed, else when it came. Never later than it came,
/// or a sender whose clock is ahead would keep everyone else's changes out.
///
/// A signed time is known to the second. It stands for the last moment of that second, so that an event is not taken
/// for older than a change of the hub's own in the same second.
pub fn occurred_at(said: Option<Instant>, signed_at: Option<i64>, received_at: Instant) -> Instant {
    let last_moment = |second| chrono::DateTime::from_timestamp(second, 999_999_000);
    said.or(signed_at.and_then(last_moment)).map_or(received_at, |at| at.min(received_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_known_by_its_signed_id_then_its_own_then_its_content() {
        let key = |signed, own| DeliveryKey::of(WebhookEvent::UsageUpdate, signed, own, [7; 32]).key;
        assert_eq!(key(Some("msg_1"), Some("e")), "usage-update/id:msg_1");
        assert_eq!(key(None, Some("e")), "usage-update/event:e");
        assert_eq!(key(None, None), format!("usage-update/sha256:{}", "07".repeat(32)));
        // An id can be as long as it may be, and an event's name as long as ours are.
        let long = DeliveryKey::of(WebhookEvent::SubscriptionUpdate, None, Some(&"x".repeat(200)), [0; 32]);
        assert!(long.key.len() <= 255);
    }

    #[test]
    fn an_event_happened_when_it_says_or_was_signed_and_not_after_it_came() {
        let at = |text: &str| text.parse::<Instant>().unwrap();
        let (came, said) = (at("2026-03-15T12:00:00.500Z"), at("2026-03-15T11:00:00Z"));
        assert_eq!(occurred_at(Some(said), Some(0), came), said);
        assert_eq!(occurred_at(None, Some(came.timestamp() - 60), came), at("2026-03-15T11:59:00.999999Z"));
        assert_eq!(occurred_at(None, Some(came.timestamp()), came), came, "in the same second it is as new as it came");
        assert_eq!(occurred_at(None, None, came), came);
        assert_eq!(occurred_at(Some(at("2027-01-01T00:00:00Z")), None, came), came);
    }

    #[test]
    fn the_words_of_creatorup_mean_the_hubs_statuses() {
        for (word, status) in [
            ("active", Some(SubscriptionStatus::Active)),
            ("Active", Some(SubscriptionStatus::Active)),
            ("cancelled", Some(SubscriptionStatus::Canceled)),
            ("inactive", Some(SubscriptionStatus::Canceled)),
            ("expired", Some(SubscriptionStatus::Expired)),
            ("replaced", None),
            ("", None),
        ] {
            assert_eq!(subscription_status(word), status, "{word}");
        }
    }
}
