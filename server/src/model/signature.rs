//! The signatures of webhooks: three ways to prove a body, read and made by the same rules.
//!
//! - **Header**: `X-Webhook-Signature` is the hex HMAC-SHA256 of the body, bare or after `sha256=`. With
//!   `X-Webhook-Timestamp` beside it (unix seconds) what is signed is `timestamp.body`.
//! - **Standard Webhooks**: `webhook-id`, `webhook-timestamp` and `webhook-signature`, a list of `v1,<base64>`; what is
//!   signed is `id.timestamp.body`. The key is what `whsec_` stands before, decoded, so it takes such a secret.
//! - **Body**: the member `signature` of the body itself, hex like the header; what is signed is the body without that
//!   member, byte for byte ([`body::split`] has the rule).
//!
//! Whatever is given must hold: a header does not excuse a wrong member, nor the other way round. Everything is done on
//! the bytes as they came; nothing is parsed, decoded or normalised before it is proved. Digests are compared in
//! constant time. In the header and the body form the key is the whole secret as text, also one that begins with
//! `whsec_`. The asymmetric form of Standard Webhooks (`v1a`) is passed over like any unknown version.

pub mod body;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

/// Signatures of a list that are looked at; a sender who rotates lists two.
const LISTED: usize = 16;
/// Most characters of a `webhook-id`.
const ID_LENGTH: usize = 200;
/// What a secret of Standard Webhooks begins with.
const STANDARD_PREFIX: &str = "whsec_";
/// Base64 with or without its padding: senders disagree.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

type Digest = [u8; 32];

/// A secret, ready to sign and verify.
#[derive(Clone)]
pub struct Key {
    /// Keyed with the secret as text.
    text: Hmac<Sha256>,
    /// Keyed with what `whsec_` stands before, decoded.
    standard: Option<Hmac<Sha256>>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[key]")
    }
}

impl Key {
    /// Reads a secret. The error says what is wrong with it and repeats nothing of it.
    pub fn parse(secret: &str) -> Result<Key, &'static str> {
        if secret.is_empty() {
            return Err("must not be empty");
        }
        let standard = match secret.strip_prefix(STANDARD_PREFIX) {
            None => None,
            Some(encoded) => {
                let bytes = BASE64.decode(encoded).ok().filter(|bytes| (24..=64).contains(&bytes.len()));
                Some(keyed(&bytes.ok_or("must be whsec_ and the base64 of 24 to 64 bytes")?))
            }
        };
        Ok(Key { text: keyed(secret.as_bytes()), standard })
    }

    /// The value of `X-Webhook-Signature`; with a timestamp that of `X-Webhook-Timestamp` beside it.
    pub fn sign(&self, timestamp: Option<i64>, body: &[u8]) -> String {
        let timestamp = timestamp.map(|timestamp| timestamp.to_string());
        hex::encode(self.text(timestamp.as_deref().map(str::as_bytes), body))
    }

    /// The value of `webhook-signature`; `None` when the secret is no `whsec_` one.
    pub fn sign_standard(&self, id: &str, timestamp: i64, body: &[u8]) -> Option<String> {
        Some(entry(self.standard.as_ref()?, id, timestamp, body))
    }

    /// The same, keyed with the secret as text when it is no `whsec_` one.
    pub fn sign_standard_or_text(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        entry(self.standard.as_ref().unwrap_or(&self.text), id, timestamp, body)
    }

    /// The body with its `signature`: in the place of the member it has, or else as a last member.
    pub fn sign_body(&self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let split = body::split(body)?;
        let signature = hex::encode(self.text(None, &split.rest));
        body::insert(body, &split, &signature)
    }

    fn text(&self, timestamp: Option<&[u8]>, body: &[u8]) -> Digest {
        let mut mac = self.text.clone();
        if let Some(timestamp) = timestamp {
            mac.update(timestamp);
            mac.update(b".");
        }
        mac.update(body);
        mac.finalize().into_bytes().into()
    }
}

/// The headers a webhook is judged by, each with every value that was sent.
#[derive(Clone, Debug, Default)]
pub struct Sent<'a> {
    /// `x-webhook-signature`
    pub signature: Vec<&'a [u8]>,
    /// `x-webhook-timestamp`
    pub timestamp: Vec<&'a [u8]>,
    /// `webhook-id`
    pub standard_id: Vec<&'a [u8]>,
    /// `webhook-timestamp`
    pub standard_timestamp: Vec<&'a [u8]>,
    /// `webhook-signature`
    pub standard_signature: Vec<&'a [u8]>,
}

impl<'a> Sent<'a> {
    /// Reads the headers by their names in lower case.
    pub fn read(mut values: impl FnMut(&'static str) -> Vec<&'a [u8]>) -> Sent<'a> {
        Sent {
            signature: values("x-webhook-signature"),
            timestamp: values("x-webhook-timestamp"),
            standard_id: values("webhook-id"),
            standard_timestamp: values("webhook-timestamp"),
            standard_signature: values("webhook-signature"),
        }
    }

    /// Whether any of them was sent.
    pub fn is_any(&self) -> bool {
        !(self.signature.is_empty() && self.timestamp.is_empty()) || self.is_standard()
    }

    fn is_standard(&self) -> bool {
        let parts = [&self.standard_id, &self.standard_timestamp, &self.standard_signature];
        parts.iter().any(|part| !part.is_empty())
    }
}

/// What a good signature proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The id that is signed with the body, the same on every delivery of one event.
    pub id: Option<String>,
    /// When it was signed, unix seconds, when that is signed too.
    pub signed_at: Option<i64>,
    /// The signature, for the record: 255 characters at most.
    pub signature: String,
    /// SHA-256 of the body without its own signature: two deliveries of one event are alike in it.
    pub content: [u8; 32],
    /// Which of the secrets it was: 0 is the first.
    pub secret: usize,
}

/// Why there is no proof. What exactly is wrong is for the log and not for the sender, who may be anyone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A signature is missing, unreadable, doubled or wrong.
    Signature(&'static str),
    /// The signature is good, and older or newer than is tolerated, by so many seconds.
    Stale(i64),
}

/// Verifies a body with the secrets that are active, at `now` in unix seconds. A signed timestamp may differ from it by
/// `tolerance` seconds, to either side.
pub fn verify(keys: &[Key], sent: &Sent<'_>, body: &[u8], now: i64, tolerance: u64) -> Result<Proof, Refused> {
    if keys.is_empty() {
        return Err(Refused::Signature("no secret is configured"));
    }
    let mut proof =
        Proof { id: None, signed_at: None, signature: String::new(), content: Digest::default(), secret: 0 };
    let mut timestamps = Vec::new();
    let mut is_given = false;
    if sent.is_standard() {
        is_given = true;
        let (id, timestamp) = verify_standard(keys, sent, body, &mut proof)?;
        proof.id = Some(id);
        timestamps.push(timestamp);
    }
    if !(sent.signature.is_empty() && sent.timestamp.is_empty()) {
        is_given = true;
        timestamps.extend(verify_header(keys, sent, body, &mut proof)?);
    }
    // A body that is no object has no member; whether it may be none is decided when it is read.
    let split = body::split(body);
    match &split {
        Ok(split) => {
            if let Some(value) = &split.signature {
                is_given = true;
                let digest = read_hex(value).ok_or(Refused::Signature("the body's signature is no hex digest"))?;
                proof.secret = proof.secret.max(matching(keys, &[digest], |key| Some(key.text(None, &split.rest)))?);
                if proof.signature.is_empty() {
                    proof.signature = text(value);
                }
            }
        }
        Err(body::DOUBLED) => return Err(Refused::Signature(body::DOUBLED)),
        Err(_) => {}
    }
    if !is_given {
        return Err(Refused::Signature("there is no signature"));
    }
    for timestamp in timestamps {
        let difference = now.saturating_sub(timestamp);
        if difference.unsigned_abs() > tolerance {
            return Err(Refused::Stale(difference));
        }
        proof.signed_at = Some(timestamp);
    }
    proof.content = Sha256::digest(split.as_ref().map_or(body, |split| &split.rest)).into();
    Ok(proof)
}

fn verify_header(keys: &[Key], sent: &Sent<'_>, body: &[u8], proof: &mut Proof) -> Result<Option<i64>, Refused> {
    let value = one(&sent.signature, "x-webhook-signature is not there once")?;
    let digest = read_hex(value).ok_or(Refused::Signature("x-webhook-signature is no hex digest"))?;
    let stamp = match sent.timestamp.is_empty() {
        true => None,
        false => Some(one(&sent.timestamp, "x-webhook-timestamp is there more than once")?),
    };
    let timestamp = stamp.map(read_timestamp).transpose()?;
    proof.secret = proof.secret.max(matching(keys, &[digest], |key| Some(key.text(stamp, body)))?);
    proof.signature = text(value);
    Ok(timestamp)
}

fn verify_standard(keys: &[Key], sent: &Sent<'_>, body: &[u8], proof: &mut Proof) -> Result<(String, i64), Refused> {
    let id = one(&sent.standard_id, "webhook-id is not there once")?;
    let stamp = one(&sent.standard_timestamp, "webhook-timestamp is not there once")?;
    let list = one(&sent.standard_signature, "webhook-signature is not there once")?;
    // A full stop parts the signed content, so an id that holds one could be another id and another timestamp.
    let is_plain =
        (1..=ID_LENGTH).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    if !is_plain {
        return Err(Refused::Signature("webhook-id is no plain id"));
    }
    let timestamp = read_timestamp(stamp)?;
    let listed = list.split(|byte| *byte == b' ').filter(|part| !part.is_empty()).take(LISTED);
    let listed: Vec<Digest> =
        listed.filter_map(|part| BASE64.decode(part.strip_prefix(b"v1,")?).ok()?.try_into().ok()).collect();
    let digest = |key: &Key| Some(standard(key.standard.as_ref()?, id, stamp, body));
    proof.secret = matching(keys, &listed, digest)?;
    proof.signature = text(list);
    Ok((text(id), timestamp))
}

/// The first secret one of the digests was made with.
fn matching(keys: &[Key], given: &[Digest], made: impl Fn(&Key) -> Option<Digest>) -> Result<usize, Refused> {
    use subtle::ConstantTimeEq;
    for (place, key) in keys.iter().enumerate() {
        let Some(made) = made(key) else { continue };
        let equal = given.iter().fold(subtle::Choice::from(0), |equal, given| equal | made.ct_eq(given));
        if bool::from(equal) {
            return Ok(place);
        }
    }
    Err(Refused::Signature("the signature is wrong"))
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of any length.
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("a key of any length will do"))
}

/// An entry of `webhook-signature`.
fn entry(key: &Hmac<Sha256>, id: &str, timestamp: i64, body: &[u8]) -> String {
    format!("v1,{}", BASE64.encode(standard(key, id.as_bytes(), timestamp.to_string().as_bytes(), body)))
}

fn standard(key: &Hmac<Sha256>, id: &[u8], timestamp: &[u8], body: &[u8]) -> Digest {
    let mut mac = key.clone();
    for part in [id, b".", timestamp, b".", body] {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn one<'a>(values: &[&'a [u8]], wrong: &'static str) -> Result<&'a [u8], Refused> {
    match values {
        [value] => Ok(value),
        _ => Err(Refused::Signature(wrong)),
    }
}

/// 64 hexadecimal digits in any case, bare or after `sha256=`.
fn read_hex(value: &[u8]) -> Option<Digest> {
    let digits = value.strip_prefix(b"sha256=").unwrap_or(value);
    let mut digest = Digest::default();
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(digest)
}

/// Unix seconds: digits alone, no sign, no fraction. More than twelve are no seconds.
fn read_timestamp(value: &[u8]) -> Result<i64, Refused> {
    let digits = (1..=12).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let read = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|digits| digits.parse().ok());
    read.ok_or(Refused::Signature("the timestamp is not in unix seconds"))
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(255).collect()
}
