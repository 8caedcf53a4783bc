//! Whatever sends mail for an SMTP integration. There is no common form of such callbacks, so this one is ours:
//! `{"event": "sent" | "delivered" | "bounced", "message_id": "…", "recipient": "…", "at": "2026-03-15T12:00:00Z"}`, of
//! which the first two are needed. The secret is the end of the path.

use super::{Facts, Outcome, Reading, Unreadable, instant, key_of_parts, needed, object, text};

/// Reads a callback. Whom the mail is for tells callbacks of one mail apart, and is not kept.
pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let members = object(body)?;
    let (event, message) = (needed(&members, "event")?, needed(&members, "message_id")?);
    let outcome =
        outcome(event).ok_or(Unreadable { field: "event", description: "must be sent, delivered or bounced" })?;
    let (recipient, said) = (text(&members, "recipient"), text(&members, "at"));
    let at = instant(said);
    if said.is_some() && at.is_none() {
        return Err(Unreadable { field: "at", description: "must be a time such as 2026-03-15T12:00:00Z" });
    }
    let key = key_of_parts(&[event, message, recipient.unwrap_or(""), said.unwrap_or("")]);
    let mut facts = Facts::default();
    facts.add("messageId", Some(message));
    facts.add("status", outcome.status());
    facts.add("providerStatus", Some(event));
    facts.add("providerTime", said);
    Ok(Reading { key, outcome, doubt: None, facts, at, claim: None })
}

/// What an event means.
pub fn outcome(event: &str) -> Option<Outcome> {
    match event {
        "sent" => Some(Outcome::EmailSent),
        "delivered" => Some(Outcome::EmailDelivered),
        "bounced" => Some(Outcome::EmailBounced),
        _ => None,
    }
}
