//! Webhooks over HTTP: how a try is sent, and what its answer means.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use upbridge_service::delivery::{Call, Reading, Url};

use super::{Guard, Outbound, Trust, retry_after};
use crate::model::clock::Clock;
use crate::model::failure::{Failure, FailureClass};
use crate::model::hook::{Answer, HookSender, Post};
use crate::model::outward::NotCallable;

/// Bytes of an answer that are read.
const READ: usize = 4096;
/// Longest address, in bytes: what its column takes.
const LONGEST: usize = 2000;

/// Sends what webhooks are told.
pub struct HookApi {
    trust: Trust,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
}

impl HookApi {
    /// A sender whose tries take `timeout` at most, the answer's last byte included.
    pub fn new(
        guard: Guard,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<HookApi, Box<dyn Error + Send + Sync>> {
        Ok(HookApi { trust: Trust::Guarded, outbound: Outbound::new(guard, timeout)?, clock })
    }

    /// The same, for an address that the operator has configured: wherever it leads is meant.
    pub fn configured(timeout: Duration, clock: Arc<dyn Clock>) -> Result<HookApi, Box<dyn Error + Send + Sync>> {
        Ok(HookApi { trust: Trust::Configured, ..HookApi::new(Guard::default(), timeout, clock)? })
    }

    async fn try_send(&self, post: Post) -> Answer {
        let failed = |failure| Answer { status: None, body: None, remote: None, failure: Some(failure) };
        // Saved addresses were read once; one that no longer can be is none to be called.
        let Ok(url) = Url::parse(&post.url) else { return failed(blocked()) };
        let call = Call {
            trust: self.trust,
            method: Method::POST,
            url,
            headers: headers(&post),
            body: Bytes::from(post.body),
            timeout: None,
            reading: Reading::First(READ),
        };
        let answer = match self.outbound.exchange(call).await {
            Ok(answer) => answer,
            Err(failure) if failure.class == FailureClass::Blocked => return failed(blocked()),
            Err(failure) => return failed(failure),
        };
        let mut failure = understand(answer.status);
        if let Some(failure) = &mut failure {
            failure.retry_after = retry_after(&answer.headers, self.clock.now());
        }
        let body = text(&answer.headers, &answer.body);
        Answer { status: Some(answer.status.as_u16()), body, remote: answer.remote, failure }
    }
}

impl HookSender for HookApi {
    fn judge(&self, url: &str) -> Result<String, NotCallable> {
        let url = Url::parse(url.trim()).map_err(|_| NotCallable::MalformedHook)?;
        let is_plain = url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
            && matches!(url.scheme(), "http" | "https")
            && url.has_host();
        if !is_plain || url.as_str().len() > LONGEST {
            return Err(NotCallable::MalformedHook);
        }
        if !self.outbound.guard().permits_url(&url) {
            return Err(NotCallable::Blocked);
        }
        Ok(url.into())
    }

    fn send(&self, post: Post) -> BoxFuture<'_, Answer> {
        Box::pin(self.try_send(post))
    }
}

/// In the words that saving such an address is refused with.
fn blocked() -> Failure {
    Failure::permanent(FailureClass::Blocked, format!("webhook_url {}", NotCallable::Blocked))
}

fn headers(post: &Post) -> HeaderMap {
    let told = [
        ("webhook-id", post.id.hyphenated().to_string()),
        ("webhook-timestamp", post.timestamp.to_string()),
        ("webhook-signature", post.signatures.clone()),
        ("x-webhook-signature", post.body_signature.clone()),
    ];
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What is compressed could be a thousand times as long as it looks.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in told {
        headers.extend(HeaderValue::from_str(&value).ok().map(|value| (HeaderName::from_static(name), value)));
    }
    headers
}

/// What a status means; nothing when it is a success. Only an address that may not be called is never tried again.
fn understand(status: StatusCode) -> Option<Failure> {
    let class = match status {
        status if status.is_success() => return None,
        StatusCode::UNAUTHORIZED => FailureClass::Auth,
        StatusCode::FORBIDDEN => FailureClass::Permission,
        StatusCode::TOO_MANY_REQUESTS => FailureClass::RateLimited,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => FailureClass::Down,
        status if status.is_server_error() => FailureClass::Down,
        status if status.is_redirection() => FailureClass::Redirect,
        status if status.is_client_error() => FailureClass::Refused,
        _ => FailureClass::Garbage,
    };
    Some(Failure::passing(class, format!("the receiver answered {}", status.as_u16())))
}

/// The body, when it is text: not compressed, in UTF-8, and nothing that a database would not keep.
fn text(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return None;
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // The last character may have been cut in two.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&body[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    (!text.is_empty() && !text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Networks;
    use crate::model::clock::SystemClock;

    #[test]
    fn where_a_webhook_may_be_sent() {
        let guard = Guard::new(Networks::parse("10.1.0.0/16").unwrap());
        let api = HookApi::new(guard, Duration::from_secs(1), Arc::new(SystemClock)).unwrap();
        let long = format!("https://a.example/{}", "x".repeat(2000));
        for (url, judged) in [
            ("https://A.example/hook?token=1", Ok("https://a.example/hook?token=1")),
            ("http://a.example", Ok("http://a.example/")),
            ("http://10.1.2.3:8080/x", Ok("http://10.1.2.3:8080/x")),
            ("http://2130706433/", Err(NotCallable::Blocked)),
            ("https://169.254.169.254/latest", Err(NotCallable::Blocked)),
            ("https://localhost/hook", Err(NotCallable::Blocked)),
            ("http://[::ffff:10.2.0.1]/", Err(NotCallable::Blocked)),
            ("https://user@a.example/", Err(NotCallable::MalformedHook)),
            ("https://a.example/#x", Err(NotCallable::MalformedHook)),
            ("ftp://a.example/", Err(NotCallable::MalformedHook)),
            ("/hook", Err(NotCallable::MalformedHook)),
            (long.as_str(), Err(NotCallable::MalformedHook)),
        ] {
            assert_eq!(api.judge(url), judged.map(str::to_owned), "{url}");
        }
    }

    #[test]
    fn a_body_is_kept_when_it_is_text_and_a_character_that_was_cut_is_left_out() {
        let plain = HeaderMap::new();
        assert_eq!(text(&plain, "größe".as_bytes()).as_deref(), Some("größe"));
        assert_eq!(text(&plain, &"größe".as_bytes()[..3]).as_deref(), Some("gr"));
        assert_eq!((text(&plain, b""), text(&plain, b"a\0b"), text(&plain, b"\xff\xfe")), (None, None, None));
        let packed = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
        assert_eq!(text(&packed, b"text"), None);
    }

    #[test]
    fn only_what_is_received_is_a_success() {
        let class = |status| understand(StatusCode::from_u16(status).unwrap()).map(|failure| failure.class);
        assert_eq!((class(200), class(204), class(299)), (None, None, None));
        for (status, expected) in [
            (301, FailureClass::Redirect),
            (308, FailureClass::Redirect),
            (400, FailureClass::Refused),
            (401, FailureClass::Auth),
            (403, FailureClass::Permission),
            (410, FailureClass::Refused),
            (429, FailureClass::RateLimited),
            (503, FailureClass::Down),
        ] {
            assert_eq!(class(status), Some(expected), "{status}");
        }
    }
}
