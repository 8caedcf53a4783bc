//! What providers call back: their bytes as they came, how each proves them, and what is read of them.
//!
//! The cast: [`Callback`] is what the door keeps of a request; a module for each provider has its proof, over the raw
//! bytes, and its reading, which is only asked for what is proved; [`Reading`] is what all of them come to. Nothing here
//! waits, stores or knows a clock.
//!
//! Guaranteed: secrets are compared in constant time; what is read holds only members of an allow-list, cut to a length,
//! so that neither a secret nor a whole payload gets into a log or an event; members nobody knows are passed over.

pub mod fonnte;
mod form;
pub mod mail;
pub mod midtrans;
pub mod stripe;
#[cfg(test)]
mod tests;
pub mod twilio;
pub mod wablas;
pub mod xendit;

use std::fmt;

use bytes::Bytes;
use chrono::TimeDelta;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::failure::FailureClass;
use super::integration::{Environment, LogStatus, Provider};
use super::{Instant, Json};

/// The headers that proofs and readings need, in lower case; no others are kept.
pub const HEADERS: [&str; 5] =
    ["content-type", "x-callback-token", "webhook-id", "stripe-signature", "x-twilio-signature"];

/// How long ago something may have happened that is told now.
const OLDEST: TimeDelta = TimeDelta::days(366);
/// Characters of a fact that are kept.
const FACT_LENGTH: usize = 255;

/// A request of a provider's, before anything of it is proved or read. It holds secrets: of some providers in a header,
/// of others in the path.
pub struct Callback {
    /// The body, byte for byte.
    pub body: Bytes,
    /// Every value of [`HEADERS`] that was sent.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Path and query as they were asked for.
    pub target: String,
    /// The host that was asked for, with its port when it is not the default.
    pub host: Option<String>,
    /// When it had arrived whole, to tell how long it took.
    pub begun: std::time::Instant,
}

impl Callback {
    /// The value of a header that was sent once.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.headers.iter().filter(|(known, _)| *known == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback(…)")
    }
}

/// Where the hub is for those outside, which is a part of what some providers sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PublicUrl {
    /// This address, without a slash at its end.
    Configured(String),
    /// Whatever host a request asks for, with this scheme: good for trying, and for nothing else.
    OfRequest(&'static str),
    /// Nobody said.
    #[default]
    Unknown,
}

impl PublicUrl {
    /// The address somebody has called, as far as it is known.
    pub fn of(&self, callback: &Callback) -> Option<String> {
        let base = match self {
            PublicUrl::Configured(url) => url.clone(),
            PublicUrl::OfRequest(scheme) => format!("{scheme}://{}", callback.host.as_deref()?),
            PublicUrl::Unknown => return None,
        };
        Some(format!("{base}{}", callback.target))
    }
}

/// What happened at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A payment is there.
    PaymentSuccess,
    /// A payment is not there yet.
    PaymentPending,
    /// A payment will not come; another try may still succeed.
    PaymentFailed,
    /// A payment was given back, by choice or by a chargeback, wholly or in part.
    Refunded,
    /// A payment was to be given back, and was not.
    RefundFailed,
    /// A message waits to be sent.
    MessageQueued,
    /// A message was sent.
    MessageSent,
    /// A message has arrived.
    MessageDelivered,
    /// A message was read.
    MessageRead,
    /// A message will not arrive.
    MessageFailed,
    /// An e-mail was sent.
    EmailSent,
    /// An e-mail has arrived.
    EmailDelivered,
    /// An e-mail came back.
    EmailBounced,
    /// Nothing that a payment or a message would have as its state.
    Other,
}

impl Outcome {
    /// The state for those who are told.
    pub fn status(self) -> Option<&'static str> {
        Some(match self {
            Outcome::PaymentSuccess => "success",
            Outcome::PaymentPending => "pending",
            Outcome::PaymentFailed | Outcome::MessageFailed => "failed",
            Outcome::Refunded => "refunded",
            Outcome::RefundFailed => "refund_failed",
            Outcome::MessageQueued => "queued",
            Outcome::MessageSent | Outcome::EmailSent => "sent",
            Outcome::MessageDelivered | Outcome::EmailDelivered => "delivered",
            Outcome::MessageRead => "read",
            Outcome::EmailBounced => "bounced",
            Outcome::Other => return None,
        })
    }

    /// The event webhooks are told; `None` for what is only logged.
    pub fn event(self) -> Option<&'static str> {
        match self {
            Outcome::PaymentSuccess => Some("payment.success"),
            Outcome::PaymentPending => Some("payment.pending"),
            Outcome::PaymentFailed => Some("payment.failed"),
            Outcome::MessageSent => Some("message.sent"),
            // Who reads a message has got it, and not every provider says both.
            Outcome::MessageDelivered | Outcome::MessageRead => Some("message.delivered"),
            Outcome::MessageFailed => Some("message.failed"),
            Outcome::EmailSent => Some("email.sent"),
            Outcome::EmailDelivered => Some("email.delivered"),
            Outcome::EmailBounced => Some("email.bounced"),
            Outcome::Refunded | Outcome::RefundFailed | Outcome::MessageQueued | Outcome::Other => None,
        }
    }

    /// How the payment's or message's entry in the log ends; `None` when there is no such thing.
    pub fn log_status(self) -> Option<LogStatus> {
        match self {
            Outcome::PaymentPending | Outcome::MessageQueued => Some(LogStatus::Pending),
            Outcome::PaymentFailed | Outcome::RefundFailed | Outcome::MessageFailed | Outcome::EmailBounced => {
                Some(LogStatus::Failed)
            }
            Outcome::Other => None,
            _ => Some(LogStatus::Success),
        }
    }
}

/// What a proved callback says.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// What tells it from every other of its integration: at most 255 characters.
    pub key: String,
    /// What happened.
    pub outcome: Outcome,
    /// Why it is kept and nobody is told of it.
    pub doubt: Option<(FailureClass, &'static str)>,
    /// What is kept and told of it, by name.
    pub facts: Facts,
    /// When it happened, as far as the provider says.
    pub at: Option<Instant>,
    /// What was signed, where that is so little that it could be read in two ways.
    pub claim: Option<Claim>,
}

impl Reading {
    /// When it happened, for a hub to which it comes `now`. A provider's clock may be wrong, and what it says of its time
    /// may not be signed: what lies more than a year back, or has yet to come, is taken as having happened now.
    pub fn occurred_at(&self, now: Instant) -> Instant {
        self.at.filter(|at| (now - OLDEST..=now).contains(at)).unwrap_or(now)
    }
}

/// A signature and what it was given for. The first that comes with a signature says what that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Tells the signature from others: at most 255 characters.
    pub key: String,
    /// Digest of the signature and of what came with it.
    pub content: [u8; 32],
    /// The key of what the signature is good for as well: once that has come, this may be made of it.
    pub outdone_by: Option<String>,
}

/// Texts of a callback that may be kept and told, by their names in events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts(Map<String, Json>);

impl Facts {
    /// Adds one, when there is any; cut to a length, and without NUL, which PostgreSQL cannot keep.
    pub fn add(&mut self, name: &'static str, text: Option<impl AsRef<str>>) {
        if let Some(text) = text {
            let kept: String = text.as_ref().chars().take(FACT_LENGTH).collect();
            self.0.insert(name.to_owned(), Value::String(kept.replace('\0', "\u{fffd}")));
        }
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// All of them.
    pub fn members(&self) -> &Map<String, Json> {
        &self.0
    }
}

/// Why a proved callback is nothing that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The member at fault, or `body`.
    pub field: &'static str,
    /// What is wrong with it; repeats nothing of it.
    pub description: &'static str,
}

/// Why there is no proof, for the log alone.
pub type Refused = &'static str;

/// Reads a callback that is proved.
pub fn read(provider: Provider, environment: Environment, callback: &Callback) -> Result<Reading, Unreadable> {
    match provider {
        Provider::Midtrans => midtrans::read(&callback.body),
        Provider::Xendit => xendit::read(callback),
        Provider::Stripe => stripe::read(&callback.body, environment),
        Provider::Twilio => twilio::read(callback),
        Provider::Wablas => wablas::read(&callback.body),
        Provider::Fonnte => fonnte::read(&callback.body),
        Provider::Smtp => mail::read(&callback.body),
    }
}

/// Proves a callback by the secret its path ends with, for those who sign nothing. `digest` is the one that is kept, in
/// hex.
pub fn prove_path(digest: Option<&str>, token: Option<&str>) -> Result<(), Refused> {
    let digest = digest.ok_or("the integration has no secret path")?;
    let token = token.ok_or("the path has no secret")?;
    equal(hex::encode(Sha256::digest(token)).as_bytes(), digest.as_bytes(), "the secret of the path is wrong")
}

/// Compares in constant time, lengths apart.
fn equal(one: &[u8], other: &[u8], wrong: Refused) -> Result<(), Refused> {
    if bool::from(one.ct_eq(other)) { Ok(()) } else { Err(wrong) }
}

/// The members of a body that is a JSON object.
fn object(body: &[u8]) -> Result<Map<String, Json>, Unreadable> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err(Unreadable { field: "body", description: "must be a JSON object" }),
    }
}

/// A member that is text.
fn text<'a>(members: &'a Map<String, Json>, name: &str) -> Option<&'a str> {
    members.get(name)?.as_str().filter(|text| !text.is_empty())
}

/// A member that is text, or a number as it is written.
fn word(members: &Map<String, Json>, name: &str) -> Option<String> {
    match members.get(name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A member that has to be text.
fn needed<'a>(members: &'a Map<String, Json>, name: &'static str) -> Result<&'a str, Unreadable> {
    text(members, name).ok_or(Unreadable { field: name, description: "must be text" })
}

/// A time as RFC 3339 has it.
fn instant(text: Option<&str>) -> Option<Instant> {
    text?.parse().ok()
}

/// A key of an id that its provider has given.
fn key_of_id(id: &str) -> String {
    let is_plain = (1..=200).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain { format!("id:{id}") } else { key_of_parts(&[id]) }
}

/// A key of several parts that together are what tells it from others.
fn key_of_parts(parts: &[&str]) -> String {
    format!("parts:{}", hex::encode(digest_of_parts(parts)))
}

/// Each part with its length, so that no two sets of parts read alike.
fn digest_of_parts(parts: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// A key of the content itself, for those who give nothing better.
fn key_of_content(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}
