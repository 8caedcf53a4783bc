//! Stripe: a list in a header of a time and signatures over `time.body`. The key is the whole secret as text, `whsec_`
//! included and nothing decoded.

use chrono::DateTime;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use super::{Facts, Outcome, Reading, Refused, Unreadable, key_of_id, needed, object, text, word};
use crate::model::Json;
use crate::model::failure::FailureClass;
use crate::model::integration::Environment;

/// Seconds a signature may be older or newer than now.
const TOLERANCE: u64 = 300;
/// Parts of the header that are looked at; an account that changes its secret sends two signatures.
const PARTS: usize = 32;

/// Proves an event with the secret of its endpoint, at `now` in unix seconds.
pub fn prove(secret: &str, header: Option<&[u8]>, body: &[u8], now: i64) -> Result<(), Refused> {
    let header = header.ok_or("stripe-signature is not there once")?;
    let header = std::str::from_utf8(header).map_err(|_| "stripe-signature is no text")?;
    let (mut stamp, mut given) = (None, Vec::new());
    for part in header.split(',').take(PARTS) {
        match part.split_once('=').ok_or("stripe-signature is no list of names and values")? {
            ("t", value) if stamp.is_none() => stamp = Some(value),
            ("t", _) => return Err("stripe-signature has two times"),
            ("v1", value) => given.push(value),
            _ => {}
        }
    }
    let stamp = stamp.ok_or("stripe-signature has no time")?;
    let is_plain = (1..=12).contains(&stamp.len()) && stamp.bytes().all(|byte| byte.is_ascii_digit());
    let signed_at: i64 = stamp.parse().ok().filter(|_| is_plain).ok_or("stripe-signature has a time that is none")?;
    let mut mac: Hmac<Sha256> =
        Hmac::new_from_slice(secret.as_bytes()).map_err(|_| "the secret of the endpoint is no key")?;
    for part in [stamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    let made = hex::encode(mac.finalize().into_bytes());
    let matches = given.iter().fold(Choice::from(0), |found, given| found | made.as_bytes().ct_eq(given.as_bytes()));
    if !bool::from(matches) {
        return Err("no v1 signature of stripe-signature is good");
    }
    if now.saturating_sub(signed_at).unsigned_abs() > TOLERANCE {
        return Err("stripe-signature is good, and its time too far from the hub's clock");
    }
    Ok(())
}

/// Reads an event.
pub fn read(body: &[u8], environment: Environment) -> Result<Reading, Unreadable> {
    let members = object(body)?;
    let (id, kind) = (needed(&members, "id")?, needed(&members, "type")?);
    let object = members.get("data").and_then(|data| data.get("object")).and_then(Value::as_object);
    let object = object.ok_or(Unreadable { field: "data.object", description: "must be an object" })?;
    let is_live = members.get("livemode").and_then(Value::as_bool);
    let is_expected = is_live.is_none_or(|is_live| is_live == (environment == Environment::Production));
    let outcome = if is_expected { outcome(kind, object) } else { Outcome::Other };
    let doubt =
        (!is_expected).then_some((FailureClass::Config, "livemode is not that of the integration's environment"));
    let mut facts = Facts::default();
    facts.add("providerEvent", Some(kind));
    facts.add("providerEventId", Some(id));
    let ordered = object.get("metadata").and_then(Value::as_object).and_then(|metadata| text(metadata, "order_id"));
    let object_id = text(object, "id");
    facts.add("orderId", text(object, "client_reference_id").or(ordered).or(object_id));
    facts.add("transactionId", text(object, "payment_intent").or(object_id));
    facts.add("status", outcome.status());
    facts.add("providerStatus", text(object, "payment_status").or(text(object, "status")));
    facts.add("amount", amount(kind, object));
    facts.add("currency", text(object, "currency"));
    facts.add("providerTime", word(&members, "created"));
    let at = members.get("created").and_then(Value::as_i64).and_then(|at| DateTime::from_timestamp(at, 0));
    Ok(Reading { key: key_of_id(id), outcome, doubt, facts, at, claim: None })
}

/// The amount an event is about, in the smallest unit of its currency.
fn amount(kind: &str, object: &Map<String, Json>) -> Option<String> {
    let names: &[&str] = match kind {
        "payment_intent.succeeded" => &["amount_received", "amount"],
        "invoice.paid" | "invoice.payment_succeeded" => &["amount_paid"],
        "charge.refunded" => &["amount_refunded"],
        _ => &["amount_total", "amount", "amount_due"],
    };
    names.iter().find_map(|name| word(object, name))
}

/// What an event means.
pub fn outcome(kind: &str, object: &Map<String, Json>) -> Outcome {
    let is = |name: &str, word: &str| text(object, name) == Some(word);
    match kind {
        "checkout.session.completed" if is("payment_status", "unpaid") => Outcome::PaymentPending,
        "checkout.session.completed" if is("payment_status", "paid") || is("payment_status", "no_payment_required") => {
            Outcome::PaymentSuccess
        }
        "checkout.session.async_payment_succeeded"
        | "payment_intent.succeeded"
        | "invoice.paid"
        | "invoice.payment_succeeded" => Outcome::PaymentSuccess,
        "checkout.session.async_payment_failed"
        | "checkout.session.expired"
        | "payment_intent.payment_failed"
        | "payment_intent.canceled"
        | "invoice.voided"
        | "invoice.marked_uncollectible" => Outcome::PaymentFailed,
        "payment_intent.processing"
        | "payment_intent.requires_action"
        | "payment_intent.created"
        | "payment_intent.amount_capturable_updated"
        | "invoice.payment_failed"
        | "invoice.payment_action_required" => Outcome::PaymentPending,
        "refund.failed" => Outcome::RefundFailed,
        "refund.created" | "refund.updated" if is("status", "failed") => Outcome::RefundFailed,
        "charge.refunded" | "refund.created" | "refund.updated" => Outcome::Refunded,
        "charge.dispute.closed" if is("status", "lost") => Outcome::Refunded,
        // Disputes that are open or won, subscriptions, and whatever else an endpoint is told.
        _ => Outcome::Other,
    }
}
