//! Xendit: a token in a header, the same on every callback of an account. It covers nothing of the body.

use serde_json::{Map, Value};

use super::{
    Callback, Facts, Outcome, Reading, Refused, Unreadable, equal, instant, key_of_id, key_of_parts, needed, object,
    text, word,
};
use crate::model::Json;
use crate::model::failure::FailureClass;

const UNKNOWN: (FailureClass, &str) = (FailureClass::Garbage, "status is none the hub knows");

/// Proves a callback by its token.
pub fn prove(token: &str, callback: &Callback) -> Result<(), Refused> {
    let given = callback.header("x-callback-token").ok_or("x-callback-token is not there once")?;
    equal(token.as_bytes(), given, "x-callback-token is wrong")
}

/// Reads a callback: an event in its envelope, or the flat one of an invoice.
pub fn read(callback: &Callback) -> Result<Reading, Unreadable> {
    let members = object(&callback.body)?;
    let delivery = callback.header("webhook-id").and_then(|id| std::str::from_utf8(id).ok());
    let delivery = delivery.filter(|id| !id.is_empty()).map(key_of_id);
    let reading = match text(&members, "event") {
        Some(event) => read_event(event, &members)?,
        None => read_invoice(&members)?,
    };
    Ok(Reading { key: delivery.unwrap_or(reading.key), ..reading })
}

fn read_event(event: &str, members: &Map<String, Json>) -> Result<Reading, Unreadable> {
    let unreadable = Unreadable { field: "data", description: "must be an object" };
    let Some(Value::Object(outer)) = members.get("data") else { return Err(unreadable) };
    // The example of a refund has another envelope inside the first.
    let data = match outer.get("data") {
        Some(Value::Object(inner)) if event.starts_with("refund.") => inner,
        _ => outer,
    };
    let status = text(data, "status");
    let outcome = of_event(event, status);
    let id = text(data, "payment_id").or(text(data, "id"));
    let captures = data.get("captures").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let captured = captures.iter().filter_map(|capture| capture.get("capture_id")?.as_str());
    let parts: Vec<&str> = [event, id.unwrap_or(""), text(data, "id").unwrap_or(""), status.unwrap_or("")]
        .into_iter()
        .chain(captured)
        .collect();
    let mut facts = Facts::default();
    facts.add("providerEvent", Some(event));
    facts.add("orderId", text(data, "reference_id"));
    facts.add("transactionId", id);
    facts.add("status", outcome.and_then(Outcome::status));
    facts.add("providerStatus", status);
    facts.add("amount", word(data, "request_amount").or_else(|| word(data, "amount")));
    facts.add("currency", text(data, "currency"));
    facts.add("channel", text(data, "channel_code"));
    facts.add("failureCode", text(data, "failure_code"));
    let said = text(data, "updated").or(text(members, "created"));
    facts.add("providerTime", said);
    let at = instant(said);
    let doubt = outcome.is_none().then_some(UNKNOWN);
    Ok(Reading { key: key_of_parts(&parts), outcome: outcome.unwrap_or(Outcome::Other), doubt, facts, at, claim: None })
}

fn read_invoice(members: &Map<String, Json>) -> Result<Reading, Unreadable> {
    let (id, status) = (needed(members, "id")?, needed(members, "status")?);
    let outcome = of_invoice(status);
    let mut facts = Facts::default();
    facts.add("orderId", text(members, "external_id"));
    facts.add("transactionId", Some(id));
    facts.add("status", outcome.and_then(Outcome::status));
    facts.add("providerStatus", Some(status));
    facts.add("amount", word(members, "amount"));
    facts.add("paidAmount", word(members, "paid_amount"));
    facts.add("currency", text(members, "currency"));
    facts.add("channel", text(members, "payment_channel"));
    let said = text(members, "updated").or(text(members, "created"));
    facts.add("providerTime", said);
    let at = instant(said);
    let doubt = outcome.is_none().then_some(UNKNOWN);
    let key = key_of_parts(&["invoice", id, status]);
    Ok(Reading { key, outcome: outcome.unwrap_or(Outcome::Other), doubt, facts, at, claim: None })
}

/// What the state of an invoice means.
pub fn of_invoice(status: &str) -> Option<Outcome> {
    match status.to_ascii_uppercase().as_str() {
        "PENDING" => Some(Outcome::PaymentPending),
        "PAID" | "SETTLED" => Some(Outcome::PaymentSuccess),
        "EXPIRED" => Some(Outcome::PaymentFailed),
        _ => None,
    }
}

/// What an event means; `None` when it is a payment's in a state nobody knows.
pub fn of_event(event: &str, status: Option<&str>) -> Option<Outcome> {
    let status = status.unwrap_or_default().to_ascii_uppercase();
    match (event, status.as_str()) {
        ("payment.capture", "SUCCEEDED") => Some(Outcome::PaymentSuccess),
        ("payment.authorization", "AUTHORIZED") => Some(Outcome::PaymentPending),
        ("payment.failure", _) => Some(Outcome::PaymentFailed),
        ("payment.capture" | "payment.authorization", "PENDING") => Some(Outcome::PaymentPending),
        ("payment.capture" | "payment.authorization", "FAILED" | "CANCELED" | "EXPIRED") => {
            Some(Outcome::PaymentFailed)
        }
        ("payment.capture" | "payment.authorization", _) => None,
        ("refund.succeeded", _) => Some(Outcome::Refunded),
        ("refund.failed", _) => Some(Outcome::RefundFailed),
        ("recurring.cycle.succeeded", _) => Some(Outcome::PaymentSuccess),
        ("recurring.cycle.failed", _) => Some(Outcome::PaymentFailed),
        ("recurring.cycle.created" | "recurring.cycle.retrying" | "recurring.cycle.force_attempt_failed", _) => {
            Some(Outcome::PaymentPending)
        }
        // Plans, and whatever else there is or will be.
        _ => Some(Outcome::Other),
    }
}
