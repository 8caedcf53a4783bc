//! Answers that stream, as server-sent events.
//!
//! Each message of the rpc is one event: `data:` is the message as JSON without an envelope, and `id:` its field
//! `event_id` when it has one. A comment every few seconds shows that the stream lives; the status the rpc ends with,
//! when it is not OK, is a last event named `error` of the same shape as any refusal. A browser that reconnects sends
//! the last id it saw as `Last-Event-ID`, which fills the request's field `last_event_id` where there is one.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tonic::{Code, Status};
use upbridge_proto::schema::{Method, Schema};
use upbridge_proto::validate::{Wire, next_field};

use super::casing::Casing;
use super::encode;
use super::error::Failure;

/// Proxies close what is silent for half a minute or more.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Opens the stream: how long a browser waits before it reconnects, in milliseconds.
const OPENING: &str = "retry: 2000\n\n";
/// The field that `Last-Event-ID` fills, and the one whose value it is.
const RESUME_FIELD: &str = "last_event_id";
const ID_FIELD: &str = "event_id";

/// The query of a request, with what `Last-Event-ID` says in the place of what the query says: a browser that
/// reconnects repeats the address it began with.
pub fn resumed(method: &Method, query: &str, headers: &HeaderMap) -> String {
    let table = &Schema::get().messages[method.input];
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok()).filter(|id| !id.is_empty());
    let (Some(id), Some((_, field))) = (header, table.field_by_json(RESUME_FIELD)) else { return query.to_owned() };
    let is_resume = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default();
        name == field.name || name == field.json_name
    };
    let mut pairs: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty() && !is_resume(pair)).map(str::to_owned).collect();
    pairs.push(format!("{RESUME_FIELD}={}", utf8_percent_encode(id, NON_ALPHANUMERIC)));
    pairs.join("&")
}

/// The response whose body is the stream. `frames` is the body of the rpc's answer.
pub fn response(method: &'static Method, casing: Casing, frames: Body, headers: HeaderMap) -> Response {
    let events = Events { method, casing, frames: Some(frames), read: BytesMut::new(), opened: false };
    let body = stream::unfold(events, |mut events| async move {
        let chunk = events.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(chunk), events))
    });
    let mut response = Response::new(Body::from_stream(body));
    *response.headers_mut() = headers;
    let fixed = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Some proxies gather an answer before they hand it on, unless they are told.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

struct Events {
    method: &'static Method,
    casing: Casing,
    /// Absent after the last frame.
    frames: Option<Body>,
    read: BytesMut,
    opened: bool,
}

impl Events {
    /// The next piece of the stream; nothing after its end.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.opened, true) {
            return Some(Bytes::from_static(OPENING.as_bytes()));
        }
        loop {
            if let Some(message) = self.whole_message() {
                return Some(self.event(&message));
            }
            let frames = self.frames.as_mut()?;
            match tokio::time::timeout(HEARTBEAT, frames.frame()).await {
                Err(_silent) => return Some(Bytes::from_static(b": the stream lives\n\n")),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => {
                        self.frames = None;
                        let status = frame.trailers_ref().and_then(Status::from_header_map);
                        let status = status.unwrap_or_else(|| Status::internal("the stream has no status"));
                        return (status.code() != Code::Ok).then(|| refusal(Failure::of(&status)));
                    }
                },
                Ok(Some(Err(_)) | None) => {
                    self.frames = None;
                    return Some(refusal(Failure::internal("the stream broke off")));
                }
            }
        }
    }

    /// Takes a message out of what was read: five bytes say whether it is compressed and how long it is.
    fn whole_message(&mut self) -> Option<Bytes> {
        let (prefix, _) = self.read.split_first_chunk::<5>()?;
        let [_, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if self.read.len() < 5 + length {
            return None;
        }
        self.read.advance(5);
        Some(self.read.split_to(length).freeze())
    }

    fn event(&self, message: &[u8]) -> Bytes {
        match encode::plain(self.method.output, message, self.casing) {
            Ok(json) => {
                let mut out = Vec::with_capacity(json.len() + 64);
                if let Some(id) = id(self.method, message) {
                    out.extend_from_slice(format!("id: {id}\n").as_bytes());
                }
                // JSON as it is printed has no line breaks.
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&json);
                out.extend_from_slice(b"\n\n");
                out.into()
            }
            Err(corrupt) => refusal(Failure::internal(corrupt.to_string())),
        }
    }
}

fn refusal(failure: Failure) -> Bytes {
    format!("event: error\ndata: {}\n\n", failure.text(None)).into()
}

/// The value of the message's `event_id`, when it can stand in a line.
fn id(method: &Method, mut bytes: &[u8]) -> Option<String> {
    let (_, field) = Schema::get().messages[method.output].field_by_json(ID_FIELD)?;
    while !bytes.is_empty() {
        let (number, value, rest) = next_field(bytes).ok()?;
        bytes = rest;
        if let (true, Wire::Bytes(text)) = (number == field.number, value) {
            let id = std::str::from_utf8(text).ok()?;
            return (!id.is_empty() && !id.contains(['\n', '\r', '\0'])).then(|| id.to_owned());
        }
    }
    None
}
