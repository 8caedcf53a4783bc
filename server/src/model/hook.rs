//! Webhooks the hub sends: what they tell, to whom, and how each delivery stands.

pub mod breaker;
pub mod secret;

use std::net::SocketAddr;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta};
use futures::future::BoxFuture;
use serde_json::json;
use uuid::Uuid;

use super::failure::Failure;
use super::integration::{LogStatus, Provider};
use super::outward::NotCallable;
use super::words::words;
use super::{Instant, Json};
use breaker::Breaker;

/// The longest wait between two tries: ten hours.
pub const LONGEST_WAIT: Duration = Duration::from_secs(36_000);
/// Webhooks of one integration at most.
pub const MOST_HOOKS: u64 = 100;
/// Share of a wait that is added to it at random, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// Something that webhooks of an integration are told.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationEvent {
    /// Whose it is.
    pub integration_id: Uuid,
    /// What happened, such as `payment.success`: one of the events of the provider's spec.
    pub name: &'static str,
    /// What is told of it; holds no secret.
    pub data: Json,
    /// When it happened.
    pub at: Instant,
}

impl IntegrationEvent {
    /// The body of every try of its deliveries, byte for byte.
    pub fn text(&self) -> String {
        text_of(self.name, self.at, &self.data)
    }
}

/// An event as Standard Webhooks have it: its name, when it happened, and what there is to know.
pub fn text_of(name: &str, at: Instant, data: &Json) -> String {
    let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
    format!(r#"{{"type":{},"timestamp":{},"data":{data}}}"#, json!(name), json!(at))
}

/// The event of a provider by its name.
pub fn event_of(provider: Provider, name: &str) -> Option<&'static str> {
    provider.spec().events.iter().find(|event| **event == name).copied()
}

words! {
    /// Where a delivery stands.
    DeliveryStatus {
        /// It waits for a try, or is on its way.
        Pending = "pending",
        /// It was received.
        Success = "success",
        /// It was given up.
        Failed = "failed",
        /// Its webhook is disabled; it waits for a replay.
        Held = "held",
    }
}

/// A webhook, as it may be shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// UUID, version 7.
    pub id: Uuid,
    /// Of whose events it is told.
    pub integration_id: Uuid,
    /// Where it is sent.
    pub url: String,
    /// Its secret, masked.
    pub secret_masked: String,
    /// The events it is told.
    pub events: Vec<String>,
    /// Whether it is told anything.
    pub is_active: bool,
    /// How often a delivery is tried in all.
    pub retry_attempts: i32,
    /// Seconds before the second try.
    pub retry_delay: i32,
    /// Deliveries a second; `None` for as many as there are.
    pub rate_limit: Option<i32>,
    /// When a delivery was tried last.
    pub last_triggered_at: Option<Instant>,
    /// How the last try ended.
    pub last_status: Option<LogStatus>,
    /// Deliveries in a row that failed for good.
    pub failure_count: i32,
    /// When the hub disabled it.
    pub disabled_at: Option<Instant>,
    /// Why the hub disabled it.
    pub disabled_reason: Option<String>,
    /// Until when deliveries are signed with the previous secret too.
    pub previous_secret_expires_at: Option<Instant>,
    /// Whether trying makes sense.
    pub breaker: Breaker,
    /// Raised when it begins anew, under another address or made active: what was tried before counts no more.
    pub generation: i32,
    /// Who added it.
    pub created_by: Option<Uuid>,
    /// When it was added.
    pub created_at: Instant,
    /// When it was last changed.
    pub updated_at: Instant,
}

impl Hook {
    /// How long a delivery waits after so many tries (1 is the first): what is configured, doubled with each, with
    /// `jitter` from 0 to 1 added, and never less than the receiver asked for, as far as ten hours allow.
    pub fn wait(&self, tries: i32, asked: Option<Duration>, jitter: f64) -> TimeDelta {
        let doublings = tries.saturating_sub(1).clamp(0, 16) as u32;
        let configured = Duration::from_secs(u64::from(self.retry_delay.max(1).unsigned_abs()));
        let configured = configured.saturating_mul(1 << doublings).min(LONGEST_WAIT);
        let jittered = configured.mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0));
        let wait = jittered.max(asked.unwrap_or_default().min(LONGEST_WAIT));
        TimeDelta::microseconds(wait.as_micros() as i64)
    }
}

/// Deliveries that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// For a try.
    pub pending: i64,
    /// For a replay, because the webhook is disabled.
    pub held: i64,
}

/// An event on its way to one webhook.
#[derive(Clone, Debug, PartialEq)]
pub struct HookDelivery {
    /// UUID, version 7: the `webhook-id` of every try.
    pub id: Uuid,
    /// Whom it goes to.
    pub webhook_id: Uuid,
    /// The event.
    pub event: String,
    /// The body, byte for byte.
    pub payload: String,
    /// Where it stands.
    pub status: DeliveryStatus,
    /// Tries so far.
    pub attempts: i32,
    /// When it is tried next.
    pub next_attempt_at: Option<Instant>,
    /// The receiver's last HTTP status.
    pub response_status: Option<i32>,
    /// Why the last try failed.
    pub error_class: Option<String>,
    /// Whether the event was made up.
    pub is_test: bool,
    /// When the event happened.
    pub created_at: Instant,
    /// When it was received or given up.
    pub finished_at: Option<Instant>,
}

/// One try of a delivery, as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct HookTry {
    /// The log entry.
    pub id: Uuid,
    /// How it ended.
    pub status: LogStatus,
    /// What happened, for people.
    pub message: String,
    /// What was asked.
    pub request: Json,
    /// What was answered.
    pub response: Json,
    /// Milliseconds it took.
    pub duration: i32,
    /// When it ended.
    pub at: Instant,
}

/// Which deliveries are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// Only with this status.
    pub status: Option<DeliveryStatus>,
    /// Only of this event.
    pub event: Option<String>,
}

/// Which deliveries are sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// `Held` or `Failed`; both when absent.
    pub status: Option<DeliveryStatus>,
    /// Only of this event.
    pub event: Option<String>,
    /// Only from this time on.
    pub since: Option<Instant>,
    /// Only before this time.
    pub until: Option<Instant>,
    /// How many at most, oldest first.
    pub most: u64,
}

/// What is to change about a webhook; absent parts stay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookChange {
    /// Where it is sent.
    pub url: Option<String>,
    /// The events it is told.
    pub events: Option<Vec<String>>,
    /// Whether it is told anything.
    pub is_active: Option<bool>,
    /// How often a delivery is tried in all.
    pub retry_attempts: Option<i32>,
    /// Seconds before the second try.
    pub retry_delay: Option<i32>,
    /// Deliveries a second.
    pub rate_limit: Option<Option<i32>>,
}

impl HookChange {
    /// The names of what it changes about a webhook.
    pub fn keys(&self, hook: &Hook) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let mut note = |key, changes| keys.extend(Some(key).filter(|_| changes));
        note("webhookUrl", self.url.as_ref().is_some_and(|url| *url != hook.url));
        note("events", self.events.as_ref().is_some_and(|events| *events != hook.events));
        note("isActive", self.is_active.is_some_and(|is_active| is_active != hook.is_active));
        note("retryAttempts", self.retry_attempts.is_some_and(|attempts| attempts != hook.retry_attempts));
        note("retryDelay", self.retry_delay.is_some_and(|delay| delay != hook.retry_delay));
        note("rateLimit", self.rate_limit.is_some_and(|limit| limit != hook.rate_limit));
        keys
    }
}

/// Sends what webhooks are told. How is `delivery`'s.
pub trait HookSender: Send + Sync + 'static {
    /// Judges where somebody wants to be told, as it is judged again when it is sent; answers with the one spelling it
    /// is kept in.
    fn judge(&self, url: &str) -> Result<String, NotCallable>;

    /// Makes one try.
    fn send(&self, post: Post) -> BoxFuture<'_, Answer>;
}

/// One try of a delivery, signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where to.
    pub url: String,
    /// The delivery.
    pub id: Uuid,
    /// Unix seconds of this try.
    pub timestamp: i64,
    /// What `webhook-signature` holds.
    pub signatures: String,
    /// What `X-Webhook-Signature` holds.
    pub body_signature: String,
    /// What is told.
    pub body: String,
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The receiver's HTTP status.
    pub status: Option<u16>,
    /// The first 4 KiB of what it said, when that is text.
    pub body: Option<String>,
    /// The address that was called.
    pub remote: Option<SocketAddr>,
    /// Why it is no success; `None` when it is one.
    pub failure: Option<Failure>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(retry_delay: i32) -> Hook {
        Hook {
            id: Uuid::nil(),
            integration_id: Uuid::nil(),
            url: String::new(),
            secret_masked: String::new(),
            events: vec![],
            is_active: true,
            retry_attempts: 3,
            retry_delay,
            rate_limit: None,
            last_triggered_at: None,
            last_status: None,
            failure_count: 0,
            disabled_at: None,
            disabled_reason: None,
            previous_secret_expires_at: None,
            breaker: Breaker::default(),
            generation: 0,
            created_by: None,
            created_at: Instant::default(),
            updated_at: Instant::default(),
        }
    }

    #[test]
    fn waits_double_up_to_ten_hours_and_jitter_only_adds() {
        let waits: Vec<i64> = [1, 2, 3, 10, 20].map(|tries| hook(60).wait(tries, None, 0.0).num_seconds()).into();
        assert_eq!(waits, [60, 120, 240, 30_720, 36_000]);
        assert_eq!(hook(60).wait(1, None, 1.0).num_seconds(), 72);
        assert_eq!(hook(36_000).wait(i32::MAX, None, 0.0).num_seconds(), 36_000);
    }

    #[test]
    fn what_the_receiver_asks_for_is_honoured_up_to_ten_hours_and_never_shortens_a_wait() {
        let asked = |seconds| hook(60).wait(1, Some(Duration::from_secs(seconds)), 0.0).num_seconds();
        assert_eq!((asked(0), asked(59), asked(61), asked(36_000), asked(u64::MAX)), (60, 60, 61, 36_000, 36_000));
    }

    #[test]
    fn the_body_of_a_delivery_has_what_standard_webhooks_ask_for_in_their_order() {
        let at = chrono::DateTime::parse_from_rfc3339("2026-03-15T12:00:00.120034Z").unwrap().to_utc();
        let data = json!({ "orderId": "A-1 \u{e9}" });
        let event = IntegrationEvent { integration_id: Uuid::nil(), name: "payment.success", data, at };
        let text = r#"{"type":"payment.success","timestamp":"2026-03-15T12:00:00.120Z","data":{"orderId":"A-1 é"}}"#;
        assert_eq!(event.text(), text);
    }
}
