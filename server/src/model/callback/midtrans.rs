//! Midtrans: a SHA-512 in the body over three of its members and the key. It does not cover the state itself, so a state
//! counts as paid only together with the code that is covered.

use chrono::{FixedOffset, NaiveDateTime, TimeZone, Utc};
use sha2::{Digest, Sha512};

use super::{
    Claim, Facts, Outcome, Reading, Refused, Unreadable, digest_of_parts, equal, key_of_parts, needed, object, text,
    word,
};
use crate::model::Instant;
use crate::model::failure::FailureClass;

/// Times are Jakarta's, and do not say so.
const UTC_OFFSET_SECONDS: i32 = 7 * 3600;
const UNKNOWN: &str = "transaction_status and fraud_status are none the hub knows";
/// The code of what is paid, and of what was.
const PAID: &str = "200";
/// Characters of an order's id at most, as Midtrans has it.
const ORDER_LENGTH: usize = 50;
/// Digits of a SHA-512 in hex.
const SIGNATURE_LENGTH: usize = 128;

/// What is signed of a notification, and the signature.
pub struct Signed {
    order: String,
    code: String,
    amount: String,
    signature: String,
}

impl Signed {
    /// Finds it in a body. What Midtrans would never write is none: that bounds the work of a comparison, and leaves
    /// little room for reading what is signed, which has nothing between its parts, as other parts.
    pub fn of(body: &[u8]) -> Result<Signed, Refused> {
        let members = object(body).map_err(|_| "the body is no JSON object")?;
        let signed = |name: &'static str, is_good: fn(&str) -> bool| {
            let text = text(&members, name).ok_or("a member that is signed is not there as text")?;
            if is_good(text) { Ok(text.to_owned()) } else { Err("a member that is signed is none of midtrans") }
        };
        let (order, code, amount) =
            (signed("order_id", is_order)?, signed("status_code", is_code)?, signed("gross_amount", is_amount)?);
        let signature = text(&members, "signature_key").ok_or("there is no signature_key")?;
        if signature.len() != SIGNATURE_LENGTH {
            return Err("the signature_key is not as long as one is");
        }
        Ok(Signed { order, code, amount, signature: signature.to_owned() })
    }

    /// Proves it with the key of an account.
    pub fn prove(&self, key: &str) -> Result<(), Refused> {
        let mut digest = Sha512::new();
        for part in [&self.order, &self.code, &self.amount, key] {
            digest.update(part);
        }
        equal(hex::encode(digest.finalize()).as_bytes(), self.signature.as_bytes(), "the signature_key is wrong")
    }
}

fn is_order(text: &str) -> bool {
    (1..=ORDER_LENGTH).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn is_code(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Digits without a needless zero before them, a point and two more: as an amount is always written.
fn is_amount(text: &str) -> bool {
    let Some((whole, cents)) = text.split_once('.') else { return false };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = (1..=15).contains(&whole.len()) && (whole == "0" || !whole.starts_with('0'));
    is_whole && cents.len() == 2 && are_digits(whole) && are_digits(cents)
}

/// Proves a notification with the key of the account.
pub fn prove(key: &str, body: &[u8]) -> Result<(), Refused> {
    Signed::of(body)?.prove(key)
}

/// Reads a notification. What tells it from others is what is signed and what it comes to: with any other member, one
/// that somebody has caught could be told again.
pub fn read(body: &[u8]) -> Result<Reading, Unreadable> {
    let members = object(body)?;
    let order = needed(&members, "order_id")?;
    let code = needed(&members, "status_code")?;
    let amount = needed(&members, "gross_amount")?;
    let signature = needed(&members, "signature_key")?;
    let status = needed(&members, "transaction_status")?;
    let fraud = text(&members, "fraud_status");
    let (outcome, doubt) = match outcome(status, fraud, code) {
        Ok(outcome) => (outcome, None),
        Err(Misfit::Unknown) => (Outcome::Other, Some((FailureClass::Garbage, UNKNOWN))),
        Err(Misfit::Contradiction) => {
            return Err(Unreadable { field: "transaction_status", description: "must be borne out by status_code" });
        }
    };
    let refund = word(&members, "refund_amount");
    let state = outcome.event().unwrap_or(&status.to_ascii_lowercase()).to_owned();
    let (refunded, refund_key) = match outcome {
        Outcome::Refunded => (refund.as_deref().unwrap_or(""), text(&members, "refund_key").unwrap_or("")),
        _ => ("", ""),
    };
    let key_as = |state: &str| key_of_parts(&[order, code, amount, state, refunded, refund_key]);
    let key = key_as(&state);
    let could_be_paid = outcome == Outcome::PaymentFailed && code == PAID;
    let claim = Claim {
        key: format!("signature:{}", hex::encode(digest_of_parts(&[signature]))),
        content: digest_of_parts(&[signature, order, code, amount]),
        outdone_by: Outcome::PaymentSuccess.event().filter(|_| could_be_paid).map(key_as),
    };
    let said = text(&members, "settlement_time").or(text(&members, "transaction_time"));
    let mut facts = Facts::default();
    facts.add("orderId", Some(order));
    facts.add("transactionId", text(&members, "transaction_id"));
    facts.add("status", outcome.status());
    facts.add("providerStatus", Some(status));
    facts.add("statusCode", Some(code));
    facts.add("fraudStatus", fraud);
    facts.add("paymentType", text(&members, "payment_type"));
    facts.add("amount", Some(amount));
    facts.add("refundAmount", refund);
    facts.add("currency", text(&members, "currency"));
    facts.add("providerTime", said);
    Ok(Reading { key, outcome, doubt, facts, at: said.and_then(instant), claim: Some(claim) })
}

/// Why a state means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It is none the hub knows.
    Unknown,
    /// The code, which is signed, does not bear out the state, which is not.
    Contradiction,
}

/// What a state means. Case does not matter: Midtrans itself writes some in capitals.
pub fn outcome(status: &str, fraud: Option<&str>, code: &str) -> Result<Outcome, Misfit> {
    let (status, fraud) = (status.to_ascii_lowercase(), fraud.map(str::to_ascii_lowercase));
    let outcome = match (status.as_str(), fraud.as_deref()) {
        ("capture" | "settlement", None | Some("accept")) => Outcome::PaymentSuccess,
        ("capture" | "settlement", Some("challenge")) | ("pending", _) => Outcome::PaymentPending,
        ("capture" | "settlement", Some("deny")) => Outcome::PaymentFailed,
        // With the code of a success it could be made of one, so it is told nobody.
        ("authorize", _) if code == PAID => Outcome::Other,
        ("authorize", _) => Outcome::PaymentPending,
        // A card's payment that is called off before it is settled: signed like the success it was. Whoever takes it has
        // to know of none, which [`Claim::outdone_by`] asks.
        ("cancel", _) if code == PAID => return Ok(Outcome::PaymentFailed),
        ("deny" | "cancel" | "expire" | "failure", _) => Outcome::PaymentFailed,
        ("refund" | "partial_refund" | "chargeback" | "partial_chargeback", _) => Outcome::Refunded,
        _ => return Err(Misfit::Unknown),
    };
    if bears_out(code, outcome) { Ok(outcome) } else { Err(Misfit::Contradiction) }
}

/// Whether a code may come with what a state means: no success can be made a failure, and nothing else a success.
fn bears_out(code: &str, outcome: Outcome) -> bool {
    match outcome {
        Outcome::PaymentSuccess | Outcome::Refunded => code == PAID,
        Outcome::PaymentPending => code == "201",
        Outcome::PaymentFailed => code == "202" || code.starts_with('4'),
        _ => true,
    }
}

fn instant(text: &str) -> Option<Instant> {
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    let zone = FixedOffset::east_opt(UTC_OFFSET_SECONDS)?;
    Some(zone.from_local_datetime(&local).single()?.with_timezone(&Utc))
}
