//! Fonnte signs nothing: the secret is the end of the path. Its callbacks are messages that came in, states of those
//! that were sent, and devices that come and go.

use super::{Facts, Outcome, Reading, Unreadable, key_of_content, object, text, word};
use crate::model::Instant;
use crate::model::failure::FailureClass;

/// Reads a callback.
pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let members = object(body)?;
    let message = word(&members, "id");
    let state_id = word(&members, "stateid");
    let (status, state) = (text(&members, "status"), text(&members, "state"));
    let is_message = message.is_some() || state_id.is_some();
    let outcome = if is_message { outcome(status, state) } else { Some(Outcome::Other) };
    let mut facts = Facts::default();
    // Later callbacks of a message name it only by its state.
    facts.add("messageId", message.as_deref().or(state_id.as_deref()));
    facts.add("stateId", state_id.as_deref());
    facts.add("status", outcome.and_then(Outcome::status));
    facts.add("providerStatus", status);
    facts.add("providerState", state);
    facts.add("deviceId", word(&members, "device"));
    facts.add("providerTime", word(&members, "timestamp"));
    let doubt = outcome.is_none().then_some((FailureClass::Garbage, "status and state are none the hub knows"));
    let at = members.get("timestamp").and_then(|at| at.as_i64()).and_then(|at| Instant::from_timestamp(at, 0));
    let key = key_of_content(body);
    Ok(Reading { key, outcome: outcome.unwrap_or(Outcome::Other), doubt, facts, at, claim: None })
}

/// What the states of a message mean; the one of WhatsApp says more than the one of Fonnte.
pub fn outcome(status: Option<&str>, state: Option<&str>) -> Option<Outcome> {
    match state.map(str::to_ascii_lowercase).as_deref() {
        Some("sent") => return Some(Outcome::MessageSent),
        Some("delivered") => return Some(Outcome::MessageDelivered),
        Some("read") => return Some(Outcome::MessageRead),
        _ => {}
    }
    match status?.to_ascii_lowercase().as_str() {
        "pending" | "waiting" | "processing" => Some(Outcome::MessageQueued),
        "sent" => Some(Outcome::MessageSent),
        "invalid" | "expired" | "url unreachable" => Some(Outcome::MessageFailed),
        _ => None,
    }
}
