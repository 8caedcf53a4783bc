//! Secrets of webhooks the hub sends, and what is signed with them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use uuid::Uuid;

use super::Post;
use crate::model::signature::Key;

/// What a secret of Standard Webhooks begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret the hub makes.
const MADE: usize = 32;
/// Characters a masked secret still shows, of one long enough to hide the rest.
const SHOWN: usize = 4;

/// A secret, ready to sign. Prints nothing of itself.
#[derive(Clone)]
pub struct Secret {
    text: String,
    key: Key,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Secret {
    /// Reads a secret: `whsec_` and the base64 of 24 to 64 bytes, or 8 to 200 printable characters. The error says what
    /// is wrong with it and repeats nothing of it.
    pub fn parse(text: &str) -> Result<Secret, &'static str> {
        if !(8..=200).contains(&text.len()) || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err("must have 8 to 200 printable characters");
        }
        Ok(Secret { key: Key::parse(text)?, text: text.to_owned() })
    }

    /// Makes one.
    pub fn make() -> Secret {
        let bytes: [u8; MADE] = rand::rng().random();
        let text = format!("{PREFIX}{}", STANDARD.encode(bytes));
        let key = Key::parse(&text).unwrap_or_else(|_| unreachable!("it is made as one is"));
        Secret { text, key }
    }

    /// All of it: for the one answer that shows it, and to be sealed.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What of it may be shown: its last characters, or of a short one nothing.
    pub fn masked(&self) -> String {
        let shown = if self.text.len() >= 3 * SHOWN { SHOWN } else { 0 };
        format!("••••{}", &self.text[self.text.len() - shown..])
    }

    /// The entry of `webhook-signature` that this secret makes.
    fn entry(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        self.key.sign_standard_or_text(id, timestamp, body)
    }
}

/// A try of a delivery, signed with every secret that is good: the newest first, which alone signs the body by itself.
pub fn sign(secrets: &[Secret], url: &str, id: Uuid, timestamp: i64, body: String) -> Post {
    let name = id.hyphenated().to_string();
    let entries = secrets.iter().map(|secret| secret.entry(&name, timestamp, body.as_bytes()));
    let signatures = entries.collect::<Vec<_>>().join(" ");
    let body_signature = secrets.first().map_or_else(String::new, |secret| secret.key.sign(None, body.as_bytes()));
    Post { url: url.to_owned(), id, timestamp, signatures, body_signature, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_standard_webhooks_come_out() {
        for (secret, id, timestamp, body, entry) in [
            (
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                r#"{"test": 2432232314}"#,
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
            (
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                r#"{"email":"test@example.com","username":"test_user"}"#,
                "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
            ),
        ] {
            assert_eq!(Secret::parse(secret).unwrap().entry(id, timestamp, body.as_bytes()), entry);
        }
    }

    #[test]
    fn the_body_alone_is_signed_with_the_secret_as_text_by_the_newest() {
        let secrets = ["It's a Secret to Everybody", "the one before it"].map(|text| Secret::parse(text).unwrap());
        let id = Uuid::parse_str("0198c2f0-0000-7000-8000-00000000000a").unwrap();
        let post = sign(&secrets, "https://a.example", id, 1, "Hello, World!".to_owned());
        assert_eq!(post.body_signature, "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
        let entries: Vec<&str> = post.signatures.split(' ').collect();
        assert_eq!(entries, secrets.map(|secret| secret.entry(&id.to_string(), 1, b"Hello, World!")));
    }

    #[test]
    fn a_secret_is_printable_and_long_enough_and_its_mask_hides_it() {
        for bad in
            ["", "seven77", "whsec_", "whsec_c2hvcnQ=", "whsec_not base64 at all, but long", "tab\tin it", "é éé éé"]
        {
            assert!(Secret::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Secret::parse(&"x".repeat(201)).is_err() && Secret::parse(&"x".repeat(200)).is_ok());
        let made = Secret::make();
        let again = Secret::parse(made.expose()).unwrap();
        assert_eq!(made.entry("a", 1, b"b"), again.entry("a", 1, b"b"));
        assert_eq!(made.masked(), format!("••••{}", &made.expose()[made.expose().len() - 4..]));
        assert_eq!(Secret::parse("8letters").unwrap().masked(), "••••");
        assert_eq!(format!("{made:?}"), "[secret]");
    }
}
