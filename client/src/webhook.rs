//! The signature of the webhooks that are sent to the hub: `X-Webhook-Signature` with `X-Webhook-Timestamp`.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use http::header::HeaderName;
use sha2::Sha256;

const TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");

/// Signs webhooks with `WEBHOOK_SECRET`, the secret the hub has too.
#[derive(Clone)]
pub struct WebhookSigner(Hmac<Sha256>);

impl WebhookSigner {
    /// A signer with that secret: all of it as text, also one that begins with `whsec_`. `None` without one.
    pub fn new(secret: &str) -> Option<WebhookSigner> {
        if secret.is_empty() {
            return None;
        }
        Hmac::new_from_slice(secret.as_bytes()).ok().map(WebhookSigner)
    }

    /// The headers that prove these very bytes at that time, in unix seconds. The hub takes them for five minutes, so
    /// each delivery is signed when it is made.
    pub fn headers(&self, timestamp: i64, body: &[u8]) -> [(HeaderName, HeaderValue); 2] {
        let mut mac = self.0.clone();
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        let signature = hex::encode(mac.finalize().into_bytes());
        // Hex is always a header.
        let signature = HeaderValue::try_from(signature).unwrap_or_else(|_| HeaderValue::from_static(""));
        [(TIMESTAMP, HeaderValue::from(timestamp)), (SIGNATURE, signature)]
    }
}

impl fmt::Debug for WebhookSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("WebhookSigner(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/webhooks.md.
    #[test]
    fn the_documented_example_has_the_documented_signature() {
        let signer = WebhookSigner::new("whsec_ZG9jcy93ZWJob29rcy5tZC1leGFtcGxlLTE=").unwrap();
        let body = concat!(
            r#"{"digiup_user_id":"018f3c1e-0000-7000-8000-000000000001","usage_data":{"batch_name":"batch-001","#,
            r#""batch_type":"video","usage_type":"local_rendering"}}"#
        );
        let [(_, timestamp), (_, signature)] = signer.headers(1_773_576_000, body.as_bytes());
        assert_eq!(timestamp, "1773576000");
        assert_eq!(signature, "403231fd803d895420f77c8bb67480b478d4c9e97844709a9734b988a00b32f3");
        assert!(WebhookSigner::new("").is_none());
        assert!(!format!("{signer:?}").contains("whsec"));
    }
}
