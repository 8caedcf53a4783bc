//! Signed webhooks to the hub.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use upbridge_client::WebhookSigner;
use upbridge_service::delivery::{BaseUrl, Guard, Networks, Outbound, Trust};

use super::Options;
use crate::model::decision::Receipt;
use crate::model::outbox::{Event, Webhook};
use crate::model::{Clock, Json};

/// Why a webhook was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// For people.
    pub message: String,
    /// Whether it never will be.
    pub is_final: bool,
    /// When to come back, when the hub said so.
    pub after: Option<Duration>,
}

/// Signs and sends.
pub struct Sender {
    url: BaseUrl,
    outbound: Outbound,
    signer: WebhookSigner,
    clock: Arc<dyn Clock>,
}

impl Sender {
    /// Connects to nobody yet. The error says what cannot be used.
    pub fn new(options: &Options, clock: Arc<dyn Clock>) -> Result<Sender, String> {
        let url = BaseUrl::parse(&options.url).ok_or("DIGIUP_API_URL must be an http or https address")?;
        let outbound = Outbound::new(Guard::new(Networks::default()), options.timeout)
            .map_err(|error| format!("DIGIUP_API_URL cannot be called: {error}"))?;
        let signer = WebhookSigner::new(&options.webhook_secret).ok_or("WEBHOOK_SECRET must not be empty")?;
        Ok(Sender { url, outbound, signer, clock })
    }

    /// Signs the webhook's bytes as of now, and sends them.
    pub async fn send(&self, webhook: &Webhook) -> Result<Receipt, Undelivered> {
        let url = self.url.join(match webhook.event {
            Event::UsageUpdate => "/api/v1/creatorup/webhook/usage-update",
            Event::SubscriptionUpdate => "/api/v1/creatorup/webhook/subscription-update",
        });
        let body = Bytes::from(webhook.body.clone());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.signer.headers(self.clock.now().timestamp(), &body));
        let answer = self.outbound.call(Trust::Configured, Method::POST, url, headers, body).await;
        let answer = answer.map_err(|failure| passing(failure.to_string(), failure.retry_after))?;
        match answer.status {
            status if status.is_success() => receipt(&answer.body),
            status => Err(understood(status, &answer.headers)),
        }
    }
}

/// What a refusal means.
fn understood(status: StatusCode, headers: &HeaderMap) -> Undelivered {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let after = seconds.map(Duration::from_secs);
    let message = format!("the hub answered {}", status.as_u16());
    match status {
        // The secrets of the two sides differ, or an address is not allowed: somebody mends it, and then it is taken.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            tracing::error!(
                status = status.as_u16(),
                "the hub refuses our webhooks: both sides need one WEBHOOK_SECRET"
            );
            passing(message, after)
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => passing(message, after),
        status if status.is_client_error() => Undelivered { message, is_final: true, after: None },
        _ => passing(message, after),
    }
}

fn passing(message: String, after: Option<Duration>) -> Undelivered {
    Undelivered { message, is_final: false, after }
}

fn receipt(body: &[u8]) -> Result<Receipt, Undelivered> {
    let read = || -> Option<Receipt> {
        let answer: Json = serde_json::from_slice(body).ok()?;
        let data = answer.get("data")?;
        let event_id = data.get("event_id")?.as_str()?.to_owned();
        Some(Receipt { event_id, duplicate: data.get("duplicate") == Some(&Json::Bool(true)) })
    };
    read().ok_or_else(|| passing("the answer is no receipt".to_owned(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_will_never_be_taken_is_told_from_what_may_be() {
        for code in [400, 404, 409, 413, 422] {
            assert!(understood(StatusCode::from_u16(code).unwrap(), &HeaderMap::new()).is_final, "{code}");
        }
        for code in [302, 401, 403, 408, 429, 500, 503] {
            assert!(!understood(StatusCode::from_u16(code).unwrap(), &HeaderMap::new()).is_final, "{code}");
        }
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static("7"))]);
        assert_eq!(understood(StatusCode::TOO_MANY_REQUESTS, &headers).after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_receipt_is_read_and_anything_else_is_none() {
        let said = receipt(br#"{"success":true,"data":{"received":true,"event_id":"e","duplicate":true}}"#).unwrap();
        assert_eq!(said, Receipt { event_id: "e".into(), duplicate: true });
        assert!(receipt(b"ok").is_err() && receipt(b"{}").is_err());
    }
}
