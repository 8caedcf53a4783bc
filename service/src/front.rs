//! The one port: every request gets its id and the address it comes from, goes to gRPC or to HTTP by its content type,
//! and leaves one line in the access log.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, header};
use tower::Service;
use tracing::Instrument;
use upbridge_proto::schema::Schema;
use uuid::Uuid;

use crate::access_log::{AccessLog, Line};
use crate::grpc::gate::CallSlot;
use crate::model::RequestId;
use crate::model::address::{self, ClientAddress, Networks};

const REQUEST_ID: &str = "x-request-id";

/// What serves a connection.
#[derive(Clone)]
pub struct Front<G> {
    grpc: G,
    http: Router,
    log: Option<Arc<AccessLog>>,
    proxies: Arc<Networks>,
}

impl<G> Front<G> {
    /// gRPC requests go to `grpc`, all others to `http`; each leaves a line in `log`. What `proxies` say about where a
    /// request comes from is believed, and what anybody else says is not.
    pub fn new(grpc: G, http: Router, log: Option<Arc<AccessLog>>, proxies: Arc<Networks>) -> Front<G> {
        Front { grpc, http, log, proxies }
    }
}

impl<G> Service<Request<Body>> for Front<G>
where
    G: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    G::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut front = self.clone();
        let log = self.log.clone();
        let id = request_id(&request);
        let slot = Arc::new(CallSlot::default());
        request.extensions_mut().insert(RequestId(id.clone()));
        request.extensions_mut().insert(slot.clone());
        let ip = client_address(&request, &self.proxies);
        if let Some(ip) = ip {
            request.extensions_mut().insert(ClientAddress(ip));
        }
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let seen = Seen {
            at: Utc::now(),
            begun: Instant::now(),
            verb: request.method().clone(),
            path: shown(request.uri().path()).into_owned(),
            ip,
            is_grpc,
        };
        let span = tracing::info_span!("request", request_id = %id);
        let serving = async move {
            let serve = async {
                let answered = if is_grpc { front.grpc.call(request).await } else { front.http.call(request).await };
                answered.unwrap_or_else(|never| match never {})
            };
            let mut response = AssertUnwindSafe(serve).catch_unwind().await.unwrap_or_else(|_panic| {
                tracing::error!("a request panicked outside its handler");
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                response
            });
            if let Ok(value) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            if let Some(log) = log {
                seen.log(&log, &id, &response, &slot);
            }
            Ok(response)
        };
        Box::pin(serving.instrument(span))
    }
}

/// What the access log tells about a request.
struct Seen {
    at: DateTime<Utc>,
    begun: Instant,
    verb: http::Method,
    path: String,
    ip: Option<IpAddr>,
    is_grpc: bool,
}

impl Seen {
    fn log(&self, log: &AccessLog, request_id: &str, response: &Response<Body>, slot: &CallSlot) {
        let call = slot.get();
        log.write(&Line {
            at: self.at,
            request_id,
            face: if self.is_grpc { "grpc" } else { "http" },
            verb: self.verb.as_str(),
            path: &self.path,
            status: response.status().as_u16(),
            rpc: call.map_or("", |call| call.rpc),
            code: call.map_or("", |call| code_name(call.code)),
            duration: self.begun.elapsed(),
            ip: self.ip,
            caller: call.map_or("", |call| call.caller.as_str()),
        });
    }
}

/// A path as a log may hold it: without what the contract calls a secret, whatever the verb and however it goes on.
fn shown(path: &str) -> Cow<'_, str> {
    static SECRETS: LazyLock<Vec<Vec<&'static str>>> = LazyLock::new(|| {
        let mut found = Vec::new();
        for method in Schema::get().all_methods() {
            let input = &Schema::get().messages[method.input];
            let is_secret = |segment: &str| {
                let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                name.and_then(|name| input.field_by_json(name)).is_some_and(|(_, field)| field.secret)
            };
            for binding in &method.bindings {
                let segments: Vec<&str> = binding.template.split('/').collect();
                found.extend(segments.iter().position(|segment| is_secret(segment)).map(|at| segments[..at].to_vec()));
            }
        }
        found
    });
    let fits = |before: &&Vec<&str>| {
        let mut segments = path.split('/');
        before.iter().all(|known| segments.next().is_some_and(|segment| known.starts_with('{') || segment == *known))
            && segments.next().is_some()
    };
    let Some(before) = SECRETS.iter().find(fits) else { return Cow::Borrowed(path) };
    let kept: Vec<&str> = path.split('/').take(before.len()).collect();
    Cow::Owned(format!("{}/***", kept.join("/")))
}

/// Where a request comes from: its peer, or whom a trusted proxy names.
fn client_address(request: &Request<Body>, proxies: &Networks) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>()?.0.ip();
    let forwarded = request.headers().get_all("x-forwarded-for").iter().map(|value| value.to_str().unwrap_or_default());
    Some(address::client(peer, forwarded, proxies))
}

/// The caller's own id when it is a plain one, else a new one.
fn request_id(request: &Request<Body>) -> Arc<str> {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(plain);
    given.map_or_else(|| Uuid::now_v7().simple().to_string().into(), Arc::from)
}

/// The code's name as gRPC documents it.
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code::*;
    match code {
        Ok => "OK",
        Cancelled => "CANCELLED",
        Unknown => "UNKNOWN",
        InvalidArgument => "INVALID_ARGUMENT",
        DeadlineExceeded => "DEADLINE_EXCEEDED",
        NotFound => "NOT_FOUND",
        AlreadyExists => "ALREADY_EXISTS",
        PermissionDenied => "PERMISSION_DENIED",
        ResourceExhausted => "RESOURCE_EXHAUSTED",
        FailedPrecondition => "FAILED_PRECONDITION",
        Aborted => "ABORTED",
        OutOfRange => "OUT_OF_RANGE",
        Unimplemented => "UNIMPLEMENTED",
        Internal => "INTERNAL",
        Unavailable => "UNAVAILABLE",
        DataLoss => "DATA_LOSS",
        Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_path_stays_out_of_the_log_whatever_is_done_with_it() {
        for path in ["/api/webhooks/integrations/id/t0ken", "/api/webhooks/integrations/id/t0ken/more/t0ken"] {
            assert_eq!(shown(path), "/api/webhooks/integrations/id/***");
        }
        for path in ["/api/webhooks/integrations/id", "/api/admin/users/42", "/", "", "/api/webhooks/integrations"] {
            assert_eq!(shown(path), path);
        }
    }
}
