//! Reads the body of a request: bounded, of a type that is understood, and a JSON object.
//!
//! No more than the limit is ever kept. What an early refusal leaves unread is read and dropped as long as it is
//! small and comes at once, because a client whose body nobody reads may lose the connection before it sees why.
//!
//! There is one limit for what the server takes of any body, and a smaller one where the contract says so; whatever is in
//! the body, what is larger is told alike.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::error::Failure;
use super::json::{self, Json};

/// How long an early refusal waits for the rest of a body.
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Reads the whole body, when it has at most `limit` bytes; of a larger one, up to `dropped` bytes are dropped.
pub async fn read(parts: &Parts, mut body: Body, limit: usize, dropped: usize) -> Result<Bytes, Failure> {
    if body.size_hint().lower() > limit as u64 || announced(&parts.headers) > limit as u64 {
        drain(parts, body, dropped).await;
        return Err(Failure::too_large(limit));
    }
    let mut whole = Bytes::new();
    let mut parted: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Failure::malformed("the body ended too early"))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + parted.len() + data.len() > limit {
            drain(parts, body, dropped).await;
            return Err(Failure::too_large(limit));
        }
        // A body mostly comes in one piece, which then needs no copy.
        if whole.is_empty() && parted.is_empty() {
            whole = data;
        } else {
            parted.extend_from_slice(&std::mem::take(&mut whole));
            parted.extend_from_slice(&data);
        }
    }
    Ok(if parted.is_empty() { whole } else { parted.into() })
}

/// Reads and drops what is left of a body nobody needs, up to `limit` bytes.
pub async fn drain(parts: &Parts, mut body: Body, limit: usize) {
    // A client that waits to be told to continue has sent nothing and will not, once it sees the refusal.
    let waits = parts.headers.contains_key(header::EXPECT);
    if waits || body.is_end_stream() || announced(&parts.headers) > 2 * limit as u64 {
        return;
    }
    let dropping = async {
        let mut left = limit;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, dropping).await;
}

fn announced(headers: &HeaderMap) -> u64 {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The members of a body, which is a JSON object or empty.
pub fn members<'a>(headers: &HeaderMap, bytes: &'a [u8]) -> Result<Vec<(Cow<'a, str>, Json<'a>)>, Failure> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let kind = Kind::of(headers);
    let encoded = headers.get(header::CONTENT_ENCODING).is_some_and(|value| value != "identity");
    if kind == Kind::Other || encoded {
        return Err(Failure::unsupported_type());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Failure::malformed("the body must be valid UTF-8"))?;
    match (json::parse(text), kind) {
        (Ok(Json::Object(members)), _) => Ok(members),
        (_, Kind::Form) => Err(Failure::unsupported_type()),
        (Ok(_), _) => Err(Failure::malformed("the body must be a JSON object")),
        (Err(error), _) => Err(Failure::not_json(error)),
    }
}

/// What the content type says a body is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// JSON, or nothing is said.
    Json,
    /// A form: what `curl -d` says of every body, JSON included, so a JSON object is believed to be one.
    Form,
    /// Anything else.
    Other,
}

impl Kind {
    fn of(headers: &HeaderMap) -> Kind {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Kind::Json };
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Kind::Json,
            "application/x-www-form-urlencoded" => Kind::Form,
            other if other.contains('/') && other.ends_with("+json") => Kind::Json,
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn accepts(kind: Option<&'static str>, body: &[u8]) -> bool {
        let mut headers = HeaderMap::new();
        headers.extend(kind.map(|kind| (header::CONTENT_TYPE, HeaderValue::from_static(kind))));
        members(&headers, body).is_ok()
    }

    #[test]
    fn json_is_accepted_under_its_names_and_without_one() {
        for kind in [
            None,
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("application/problem+json"),
            Some("application/x-www-form-urlencoded"),
        ] {
            assert!(accepts(kind, b"{\"a\":1}"), "{kind:?}");
            assert!(accepts(kind, b" \n"), "{kind:?}");
        }
        assert!(!accepts(Some("text/plain"), b"{}"));
        assert!(accepts(Some("text/plain"), b""));
    }

    #[test]
    fn other_things_than_an_object_are_refused() {
        for body in [&b"[]"[..], b"null", b"5", b"{", b"a=b", b"\xff\xfe{}", b"{\"a\":\"\xff\"}"] {
            assert!(!accepts(None, body), "{body:?}");
            assert!(!accepts(Some("application/x-www-form-urlencoded"), body), "{body:?}");
        }
    }
}
