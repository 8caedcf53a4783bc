//! Wablas signs nothing: the secret is the end of the path. Its callbacks are messages that came in, and states of those
//! that were sent.

use super::{Facts, Outcome, Reading, Unreadable, instant, key_of_content, object, text, word};
use crate::model::failure::FailureClass;

/// Reads a callback.
pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let members = object(body)?;
    let status = text(&members, "status");
    let outcome = status.map_or(Some(Outcome::Other), outcome);
    let mut facts = Facts::default();
    facts.add("messageId", word(&members, "id"));
    facts.add("status", outcome.and_then(Outcome::status));
    facts.add("providerStatus", status);
    facts.add("messageType", text(&members, "messageType"));
    facts.add("deviceId", word(&members, "deviceId"));
    facts.add("providerTime", text(&members, "timestamp"));
    let doubt = outcome.is_none().then_some((FailureClass::Garbage, "status is none the hub knows"));
    let at = instant(text(&members, "timestamp"));
    let key = key_of_content(body);
    Ok(Reading { key, outcome: outcome.unwrap_or(Outcome::Other), doubt, facts, at, claim: None })
}

/// What the state of a message means.
pub fn outcome(status: &str) -> Option<Outcome> {
    match status.to_ascii_lowercase().as_str() {
        "pending" => Some(Outcome::MessageQueued),
        "sent" => Some(Outcome::MessageSent),
        "delivered" => Some(Outcome::MessageDelivered),
        "read" => Some(Outcome::MessageRead),
        "cancel" | "failed" | "reject" => Some(Outcome::MessageFailed),
        _ => None,
    }
}
