//! The HTTP/JSON door: every rpc of the contract at the paths of its `google.api.http` bindings.
//!
//! The cast, in the order a request meets them:
//! - `route` finds the rpc behind verb and path; `body` reads a bounded JSON object with `json`;
//! - `decode` writes path, query and body as the request's protobuf bytes, from the contract's tables;
//! - `call` asks the server's own gRPC service in process, with the caller's headers and extensions;
//! - `sse` tells an answer that streams as server-sent events;
//! - `encode` prints the answer's bytes as JSON in the `casing` of the route family, `error` a refusal;
//! - `openapi` describes all of it, `docs` shows the description to people.
//!
//! A body that is nothing the contract describes (`raw_body` in its policy) is not read: the guard keeps its bytes, and
//! the rpc is asked with what the path holds.
//!
//! Guaranteed: a request means the same here as over gRPC, because it becomes the same bytes and passes the same
//! gate, codec and service; nothing a caller sends is dropped or altered in silence; every answer under these
//! paths is JSON of one shape. Not here: who may call, what a field may hold, deadlines, CORS. A request whose
//! JSON cannot become a message is refused before the gate is asked who sent it.

mod api;
mod body;
mod call;
mod casing;
mod decode;
mod docs;
mod encode;
mod error;
mod json;
pub mod openapi;
mod route;
mod sse;
mod wire;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Extensions, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body::Body as _;
use tonic::Status;
use tower::Service;
use tower_http::cors::CorsLayer;
use upbridge_proto::schema;

pub use self::api::Api;
use self::docs::Docs;
use self::error::Failure;
use self::route::{Endpoint, Found, Table};
use crate::model::context::RequestId;

/// A body that has not arrived by then is holding the connection for nothing; the gate's deadline begins after it.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the face is told from outside.
#[derive(Clone)]
pub struct Options {
    /// What is served, and what people are told of it.
    pub api: &'static Api,
    /// Most bytes of a request's body.
    pub body_limit: usize,
    /// Who judges webhooks; without one none is taken.
    pub guard: Option<Arc<dyn Guard>>,
}

/// Judges webhooks by their bytes, before the face reads them.
pub trait Guard: Send + Sync {
    /// Lets a webhook in and marks the request so, or says why not. A call that brings another credential and no
    /// signature is no webhook, and is left to the gate.
    fn admit_webhook(&self, method: &'static schema::Method, request: &mut Parts, body: &Bytes) -> Result<(), Status>;

    /// Hears of a webhook that is too large to be judged.
    ///
    /// Errors: too many come from there, which is told instead.
    fn oversized(&self, method: &'static schema::Method, request: &Parts, why: &str) -> Result<(), Status>;

    /// Hears that a webhook that was let in could not be read.
    fn unreadable<'a>(&'a self, request: &'a Extensions, why: &'a str) -> BoxFuture<'a, ()>;
}

/// The HTTP request behind an in-process call, as an extension of the gRPC request. The gate reads it to know
/// that a call came from HTTP, and where: a session cookie counts under `/api/admin` only.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// The request's own verb; HEAD where it was HEAD.
    pub verb: Method,
    /// The request's path, still encoded.
    pub path: String,
    /// The host the caller asked for, with its port when it is not the default.
    pub host: Option<String>,
}

/// CORS for exactly these origins, with credentials; any other origin gets no CORS header at all.
///
/// # Panics
/// When an origin is no header value, which the configuration rules out.
pub fn cors(origins: &[String]) -> CorsLayer {
    let origins: Vec<HeaderValue> =
        origins.iter().map(|origin| origin.parse().expect("the configuration checked it")).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("x-api-key"),
            HeaderName::from_static("x-request-id"),
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("x-request-id")])
        .max_age(Duration::from_secs(600))
}

/// The face over `grpc`, the services with everything that guards them, as one fallback for all paths.
///
/// # Panics
/// When the contract has bindings the face cannot serve; see `Table::of`.
pub fn router<S>(grpc: S, options: Options) -> Router
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let (table, docs) = (Table::of(options.api.contract), Docs::of(options.api));
    let face = Arc::new(Face { grpc, options, table, docs });
    Router::new().fallback(move |request: Request<Body>| {
        let face = Arc::clone(&face);
        async move { face.answer(request).await }
    })
}

/// A message as this face prints it, without an envelope and in snake_case, for the command line.
pub fn to_json<M: prost::Message + prost::Name>(message: &M) -> String {
    let bytes = message.encode_to_vec();
    let id = upbridge_proto::schema::Schema::get().message(&M::full_name());
    let text = id.and_then(|id| encode::plain(id, &bytes, casing::Casing::Snake).ok());
    text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default()
}

struct Face<S> {
    grpc: S,
    options: Options,
    table: Table,
    docs: Docs,
}

impl<S> Face<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone,
{
    async fn answer(&self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        let request_id = parts.extensions.get::<RequestId>().cloned();
        let head = parts.method == Method::HEAD;
        let response = self.serve(parts, body).await;
        let response = response.unwrap_or_else(|failure| failure.into_response(request_id.as_ref()));
        if head { without_body(response) } else { response }
    }

    async fn serve(&self, parts: Parts, body: Body) -> Result<Response, Failure> {
        match self.table.find(&parts.method, parts.uri.path()) {
            Found::Endpoint(endpoint, variables) => self.invoke(endpoint, &variables, parts, body).await,
            Found::Other(allow) => self.refuse(&parts, body, Failure::wrong_method(&allow)).await,
            Found::Nothing => match self.docs.page(parts.uri.path()) {
                Some(page) if matches!(parts.method, Method::GET | Method::HEAD) => Ok(page),
                Some(_) => self.refuse(&parts, body, Failure::wrong_method("GET, HEAD")).await,
                None => self.refuse(&parts, body, Failure::no_route()).await,
            },
        }
    }

    async fn refuse(&self, parts: &Parts, body: Body, failure: Failure) -> Result<Response, Failure> {
        body::drain(parts, body, self.options.body_limit).await;
        Err(failure)
    }

    async fn invoke(
        &self,
        endpoint: &Endpoint,
        variables: &[String],
        parts: Parts,
        body: Body,
    ) -> Result<Response, Failure> {
        let method = endpoint.method;
        let body = self.read(method, &parts, body).await?;
        if method.server_streaming {
            return self.stream(endpoint, variables, parts, &body).await;
        }
        let Some(guard) = self.guard_of(method) else {
            let answer = self.ask(endpoint, variables, parts, &body).await?;
            return print(endpoint, answer);
        };
        let mut parts = parts;
        guard.admit_webhook(method, &mut parts, &body).map_err(|status| Failure::of(&status))?;
        let marks = parts.extensions.clone();
        let answer = self.ask(endpoint, variables, parts, &body).await;
        if let Err(failure) = answer.as_ref()
            && failure.is_unreadable()
        {
            guard.unreadable(&marks, failure.message()).await;
        }
        print(endpoint, answer?)
    }

    /// The body, when it has no more bytes than the server takes of any, and the contract of this method's.
    async fn read(&self, method: &'static schema::Method, parts: &Parts, body: Body) -> Result<Bytes, Failure> {
        let most = self.options.body_limit;
        let own = method.policy.as_ref().and_then(|policy| policy.body_limit);
        let reading = body::read(parts, body, own.map_or(most, |own| own.min(most)), most);
        let read = tokio::time::timeout(BODY_TIMEOUT, reading).await;
        let read = read.unwrap_or_else(|_| Err(Failure::malformed("the body did not arrive in time")));
        if let Err(failure) = &read
            && failure.is_too_large()
            && let Some(guard) = self.guard_of(method)
        {
            guard.oversized(method, parts, failure.message()).map_err(|status| Failure::of(&status))?;
        }
        read
    }

    /// Who judges calls of this method by their bytes.
    fn guard_of(&self, method: &schema::Method) -> Option<&dyn Guard> {
        method.policy.as_ref()?.webhook.as_ref()?;
        self.options.guard.as_deref()
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        variables: &[String],
        parts: Parts,
        body: &[u8],
    ) -> Result<call::Answer, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        let message = message(endpoint, variables, &parts, query, body)?;
        let answer = call::unary(self.grpc.clone(), &endpoint.uri, parts, &message).await;
        answer.map_err(|failure| failure.spelled(endpoint.casing, endpoint.method.input))
    }

    async fn stream(
        &self,
        endpoint: &Endpoint,
        variables: &[String],
        parts: Parts,
        body: &[u8],
    ) -> Result<Response, Failure> {
        let method = endpoint.method;
        let query = sse::resumed(method, parts.uri.query().unwrap_or_default(), &parts.headers);
        let message = message(endpoint, variables, &parts, &query, body)?;
        let begun = call::streaming(self.grpc.clone(), &endpoint.uri, parts, &message).await;
        let (frames, headers) = begun.map_err(|failure| failure.spelled(endpoint.casing, method.input))?;
        Ok(sse::response(method, endpoint.casing, frames, headers))
    }
}

/// The request as the rpc reads it.
fn message(
    endpoint: &Endpoint,
    variables: &[String],
    parts: &Parts,
    query: &str,
    body: &[u8],
) -> Result<Vec<u8>, Failure> {
    let method = endpoint.method;
    // Of what the contract does not describe nothing is read; the guard has the bytes.
    let is_raw = method.policy.as_ref().is_some_and(|policy| policy.raw_body);
    let input = decode::Input {
        variables: endpoint.decode(variables)?,
        query: if is_raw { "" } else { query },
        body: if is_raw { Vec::new() } else { body::members(&parts.headers, body)? },
        takes_body: endpoint.binding.body,
        passes_unknown: method.policy.as_ref().is_some_and(|policy| policy.webhook.is_some()),
    };
    decode::message(method.input, &input)
        .map_err(|violations| Failure::invalid(&violations).spelled(endpoint.casing, method.input))
}

fn print(endpoint: &Endpoint, answer: call::Answer) -> Result<Response, Failure> {
    let method = endpoint.method;
    let text = encode::envelope(method.output, endpoint.data, &answer.message, endpoint.casing);
    let text = text.map_err(|error| Failure::internal(error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(method.success_status).expect("the schema checked it");
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The same answer as to GET, without its body.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
    response
}

#[cfg(test)]
mod tests;
