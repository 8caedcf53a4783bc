//! Every refusal as JSON: one shape, whether the server's services refused or the face did before asking them.
//!
//! ```json
//! {"success": false,
//!  "error": {"code": "INVALID_ARGUMENT", "message": "…", "reason": "INVALID_FIELD",
//!            "details": [{"field": "usage_data.month_year", "description": "…"}], "metadata": {"limit": "10"}},
//!  "request_id": "…"}
//! ```
//!
//! `code` is the gRPC code, `reason` one of the contract's `ErrorReason`s; both are for programs. `details` is
//! always there and names fields in the spelling of the route family. Nothing a caller sent is repeated.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;
use upbridge_proto::codec;
use upbridge_proto::schema::MessageId;
use upbridge_proto::validate::Violation;

use super::casing::Casing;
use super::json::Malformed;
use crate::model::context::RequestId;

/// Why there is no answer, ready to be written.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    reason: Option<String>,
    details: Vec<Violation>,
    metadata: Map<String, Value>,
    headers: HeaderMap,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, reason: Option<&str>, message: impl Into<String>) -> Failure {
        Failure {
            status,
            code,
            message: message.into(),
            reason: reason.map(str::to_owned),
            details: Vec::new(),
            metadata: Map::new(),
            headers: HeaderMap::new(),
        }
    }

    /// A service refused.
    pub fn of(status: &Status) -> Failure {
        let (http, code) = mapped(status.code());
        let said = Some(status.message()).filter(|message| !message.is_empty());
        let mut failure = Failure::new(http, code, None, said.unwrap_or(status.code().description()));
        let details = status.get_error_details();
        if let Some(info) = details.error_info() {
            if status.code() == Code::OutOfRange && info.reason == "BODY_TOO_LARGE" {
                failure.status = StatusCode::PAYLOAD_TOO_LARGE;
            }
            if status.code() == Code::FailedPrecondition && info.reason == "UNPROCESSABLE" {
                failure.status = StatusCode::UNPROCESSABLE_ENTITY;
            }
            failure.reason = Some(info.reason.clone()).filter(|reason| !reason.is_empty());
            let mut metadata: Vec<_> = info.metadata.iter().collect();
            metadata.sort();
            failure.metadata = metadata.into_iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        }
        if let Some(bad) = details.bad_request() {
            let violations = bad.field_violations.iter();
            failure.details = violations
                .map(|one| Violation { field: one.field.clone(), description: one.description.clone() })
                .collect();
        }
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            failure.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if http == StatusCode::UNAUTHORIZED {
            failure.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        failure
    }

    /// Fields are wrong; what it says is what the services would say of them.
    pub fn invalid(violations: &[Violation]) -> Failure {
        // Over HTTP nobody asks whose word it is: the domain is not shown.
        Failure::of(&codec::invalid(violations, ""))
    }

    /// The request cannot be read at all.
    pub fn malformed(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", Some("MALFORMED_REQUEST"), message)
    }

    /// The body is no JSON.
    pub fn not_json(error: Malformed) -> Failure {
        let Malformed { what, line, column } = error;
        Failure::malformed(format!("the body is not JSON: {what} at line {line}, column {column}"))
    }

    /// The body is of a type that is not understood.
    pub fn unsupported_type() -> Failure {
        let mut failure =
            Failure::malformed("the body must be JSON, with content type application/json and no encoding");
        failure.status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        failure
    }

    /// The body is larger than allowed.
    pub fn too_large(limit: usize) -> Failure {
        let message = format!("the body must have at most {limit} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "OUT_OF_RANGE", Some("BODY_TOO_LARGE"), message)
    }

    /// Nothing is at that path.
    pub fn no_route() -> Failure {
        Failure::new(StatusCode::NOT_FOUND, "NOT_FOUND", Some("NOT_FOUND"), "there is nothing at this path")
    }

    /// The path exists for other HTTP methods, which `allow` lists.
    pub fn wrong_method(allow: &str) -> Failure {
        let message = format!("this path is reached with {allow}");
        let mut failure = Failure::new(StatusCode::METHOD_NOT_ALLOWED, "UNIMPLEMENTED", None, message);
        failure.headers.insert(header::ALLOW, HeaderValue::from_str(allow).expect("method names are header text"));
        failure
    }

    /// A fault of the server itself.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", Some("INTERNAL"), message)
    }

    /// Adds headers the service sent with its refusal; the ones the face derives itself stay.
    pub fn with_headers(mut self, headers: HeaderMap) -> Failure {
        let mut known: Option<HeaderName> = None;
        let derived = self.headers.clone();
        for (name, value) in headers {
            known = name.or(known);
            if let Some(name) = known.as_ref().filter(|name| !derived.contains_key(*name)) {
                self.headers.append(name.clone(), value);
            }
        }
        self
    }

    /// Spells the fields of the request `message` as the route family does.
    pub fn spelled(mut self, casing: Casing, message: MessageId) -> Failure {
        if let Some(first) = self.details.first() {
            let spelled = casing.path(message, &first.field);
            if let Some(rest) = self.message.strip_prefix(&first.field).filter(|rest| rest.starts_with(' ')) {
                self.message = spelled + rest;
            }
        }
        self.message = casing.sentence(message, &self.message);
        for violation in &mut self.details {
            violation.field = casing.path(message, &violation.field);
            violation.description = casing.sentence(message, &violation.description);
        }
        self
    }

    /// Whether what was sent could not be read, or breaks a rule of the contract.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// Whether there was more of it than is taken.
    pub fn is_too_large(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The answer that says so.
    pub fn into_response(self, request_id: Option<&RequestId>) -> Response {
        let mut response = Response::new(Body::from(self.text(request_id)));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The JSON that says so.
    pub fn text(&self, request_id: Option<&RequestId>) -> String {
        let mut error = Map::new();
        error.insert("code".into(), json!(self.code));
        error.insert("message".into(), json!(self.message));
        if let Some(reason) = &self.reason {
            error.insert("reason".into(), json!(reason));
        }
        let details = self.details.iter().map(|one| json!({"field": one.field, "description": one.description}));
        error.insert("details".into(), details.collect());
        if !self.metadata.is_empty() {
            error.insert("metadata".into(), Value::Object(self.metadata.clone()));
        }
        let mut body = json!({"success": false, "error": error});
        if let Some(RequestId(id)) = request_id {
            body["request_id"] = json!(&**id);
        }
        body.to_string()
    }
}

/// The HTTP status and the name of a gRPC code. OK is no failure; one that claims to be is a fault.
fn mapped(code: Code) -> (StatusCode, &'static str) {
    let client_closed = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
    match code {
        Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
        Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "FAILED_PRECONDITION"),
        Code::OutOfRange => (StatusCode::BAD_REQUEST, "OUT_OF_RANGE"),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
        Code::AlreadyExists => (StatusCode::CONFLICT, "ALREADY_EXISTS"),
        Code::Aborted => (StatusCode::CONFLICT, "ABORTED"),
        Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
        Code::Cancelled => (client_closed, "CANCELLED"),
        Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "UNIMPLEMENTED"),
        Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        Code::DataLoss => (StatusCode::INTERNAL_SERVER_ERROR, "DATA_LOSS"),
        Code::Unknown => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        Code::Internal | Code::Ok => (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    }
}
