//! Twilio: an HMAC-SHA1 over the address it called and the fields of the form; of a body that is no form, the address
//! has the digest. The address is the one Twilio was given, so the hub must know where it is for those outside.

use std::collections::BTreeSet;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::{Callback, Facts, Outcome, Reading, Refused, Unreadable, equal, form, key_of_content, object};
use crate::model::failure::FailureClass;

/// The parameter that has the digest of a body that is no form.
const BODY_DIGEST: &str = "bodySHA256=";
const UNREADABLE: Unreadable = Unreadable { field: "body", description: "must be a form in UTF-8" };

/// Proves a callback to `url` with the primary token of the account.
pub fn prove(token: &str, url: &str, callback: &Callback) -> Result<(), Refused> {
    let given = callback.header("x-twilio-signature").ok_or("x-twilio-signature is not there once")?;
    let content = match body_digest(url) {
        Some(digest) => {
            let made = hex::encode(Sha256::digest(&callback.body));
            equal(made.as_bytes(), digest.as_bytes(), "bodySHA256 is not the body's")?;
            Vec::new()
        }
        None if is_form(callback) || callback.body.is_empty() => signed_content(&callback.body)?,
        None => return Err("the body is no form, and the address has no bodySHA256"),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.as_bytes());
    // Whether its port belongs to an address is something the sender is of two minds about.
    let matches = spellings(url).iter().fold(Choice::from(0), |found, url| {
        let mut signing = hmac::Context::with_key(&key);
        signing.update(url.as_bytes());
        signing.update(&content);
        found | STANDARD.encode(signing.sign()).as_bytes().ct_eq(given)
    });
    if bool::from(matches) { Ok(()) } else { Err("x-twilio-signature is wrong") }
}

/// The address as it is, without its port, and with the port it would have by default.
fn spellings(url: &str) -> Vec<String> {
    let mut out = vec![url.to_owned()];
    let Some((scheme, rest)) = url.split_once("://") else { return out };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    out.push(match port {
        Some((host, _)) => format!("{scheme}://{host}{target}"),
        None => format!("{scheme}://{authority}:{}{target}", if scheme == "https" { 443 } else { 80 }),
    });
    out
}

fn body_digest(url: &str) -> Option<&str> {
    let (_, query) = url.split_once('?')?;
    query.split('&').find_map(|parameter| parameter.strip_prefix(BODY_DIGEST))
}

fn is_form(callback: &Callback) -> bool {
    let kind = callback.header("content-type").unwrap_or_default();
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// What is signed of a form: each name with each of its values once, in the order of their bytes.
fn signed_content(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let fields: BTreeSet<form::Field> = form::fields(body)?.into_iter().collect();
    Ok(fields.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect())
}

/// Reads a callback: of a message's state, or of anything else an account can be told.
pub fn read(callback: &Callback) -> Result<Reading, Unreadable> {
    let mut members = serde_json::Map::new();
    let key = if is_form(callback) {
        for (name, value) in form::fields(&callback.body).map_err(|_| UNREADABLE)? {
            let (name, value) = (String::from_utf8(name), String::from_utf8(value));
            let (Ok(name), Ok(value)) = (name, value) else { return Err(UNREADABLE) };
            members.entry(name).or_insert(Value::String(value));
        }
        // The order of the fields is nothing that is signed, and makes it no other callback.
        key_of_content(&signed_content(&callback.body).map_err(|_| UNREADABLE)?)
    } else {
        members = object(&callback.body)?;
        key_of_content(&callback.body)
    };
    let text = |name: &str| super::text(&members, name);
    let message = text("MessageSid").or(text("SmsSid"));
    let status = text("MessageStatus").or(text("SmsStatus"));
    let outcome = match (message, status) {
        (Some(_), Some(status)) => outcome(status),
        // A message that came in, or a call, or whatever else.
        _ => Some(Outcome::Other),
    };
    let mut facts = Facts::default();
    facts.add("messageId", message);
    facts.add("status", outcome.and_then(Outcome::status));
    facts.add("providerStatus", status);
    facts.add("providerEvent", text("EventType"));
    facts.add("channel", text("ChannelPrefix"));
    facts.add("errorCode", text("ErrorCode"));
    let doubt = outcome.is_none().then_some((FailureClass::Garbage, "MessageStatus is none the hub knows"));
    Ok(Reading { key, outcome: outcome.unwrap_or(Outcome::Other), doubt, facts, at: None, claim: None })
}

/// What the state of a message means.
pub fn outcome(status: &str) -> Option<Outcome> {
    match status.to_ascii_lowercase().as_str() {
        "accepted" | "scheduled" | "queued" | "sending" => Some(Outcome::MessageQueued),
        // Some of its parts have arrived; all have been sent.
        "sent" | "partially_delivered" => Some(Outcome::MessageSent),
        "delivered" => Some(Outcome::MessageDelivered),
        "read" => Some(Outcome::MessageRead),
        "failed" | "undelivered" | "canceled" => Some(Outcome::MessageFailed),
        // Messages that come in.
        "receiving" | "received" => Some(Outcome::Other),
        _ => None,
    }
}
