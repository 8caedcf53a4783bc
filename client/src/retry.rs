//! Deadlines and retries, as a tower layer.
//!
//! The contract says which rpcs may be repeated. Of those, a call is sent again when the hub was unavailable,
//! when the connection broke before the whole answer was there, or when the hub asked to come back later
//! (`RESOURCE_EXHAUSTED` with `RetryInfo`). Everything else, a spent quota above all, is an answer.
//!
//! Pauses grow exponentially with full jitter, so that callers who failed together do not return together; what
//! the hub asks for is waited out first. All attempts share one deadline, and a pause that would outlast it is
//! not begun: the caller gets the last failure at once instead of `DEADLINE_EXCEEDED` later.
//!
//! To be sent again a request has to be kept, and to be covered by the deadline an answer has to be read to its
//! end. Both are single messages, bounded by the message limit, which the stubs hold in memory anyway.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status, TimeoutExpired};
use tower::{BoxError, Layer, Service, ServiceExt};
use upbridge_proto::schema::Schema;

use crate::{deadline, retry_after};

/// Tells the hub's log that a call is a repetition; the name is gRPC's own.
const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");
/// What gRPC puts before a message: one byte of flags, four of length.
const FRAME_HEADER_BYTES: usize = 5;
/// The longest a caller can wait, for the arithmetic of instants to hold: a day.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How far apart two timers set to the same instant may fire.
const TIMER_STEP: Duration = Duration::from_millis(5);

/// The future of an answer.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

/// How calls are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is sent in all; 1 means never again, and 0 counts as 1.
    pub max_attempts: u32,
    /// The longest pause after the first attempt; it doubles after each further one.
    pub base_delay: Duration,
    /// The longest pause of all, but for what the hub asks for.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    /// Four attempts with pauses of up to 100, 200 and 400 ms: a hub that restarts is waited for, and an
    /// interactive caller still has an answer within a second.
    fn default() -> RetryPolicy {
        RetryPolicy { max_attempts: 4, base_delay: Duration::from_millis(100), max_delay: Duration::from_secs(2) }
    }
}

impl RetryPolicy {
    /// The pause after attempt number `attempt`, counted from 1; `None` when the failure is final.
    fn pause(&self, attempt: u32, failure: &Failure) -> Option<Duration> {
        let asked = retry_after(&failure.status);
        let passing = match failure.status.code() {
            Code::Unavailable => true,
            Code::ResourceExhausted => asked.is_some(),
            _ => failure.broken,
        };
        if !passing || attempt >= self.max_attempts {
            return None;
        }
        let doubled = self.base_delay.saturating_mul(1 << (attempt - 1).min(20)).min(self.max_delay);
        Some(asked.unwrap_or_default().saturating_add(doubled.mul_f64(rand::random::<f64>())))
    }
}

/// Makes a [`Retry`] of any gRPC connection.
#[derive(Clone, Copy, Debug)]
pub struct RetryLayer {
    policy: RetryPolicy,
    call_timeout: Duration,
    message_limit_bytes: usize,
}

impl RetryLayer {
    /// `call_timeout` holds for calls that bring none of their own, `message_limit_bytes` for what is kept.
    pub fn new(policy: RetryPolicy, call_timeout: Duration, message_limit_bytes: usize) -> RetryLayer {
        RetryLayer { policy, call_timeout, message_limit_bytes }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, settings: *self }
    }
}

/// A gRPC connection with deadlines and retries.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    inner: S,
    settings: RetryLayer,
}

impl<S> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    /// Always ready: each attempt waits for the connection by itself, within its deadline.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let (inner, settings) = (self.inner.clone(), self.settings);
        Box::pin(async move {
            match Kind::of(request.uri().path()) {
                Kind::Endless => inner.oneshot(request).await.map_err(|error| broken(error).status),
                kind => settings.run(inner, request, kind == Kind::Repeatable).await,
            }
        })
    }
}

/// What may be done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One request, one answer, idempotent by the contract.
    Repeatable,
    /// One answer, sent once.
    Once,
    /// A stream of answers, which only its caller knows how long to read.
    Endless,
}

impl Kind {
    fn of(path: &str) -> Kind {
        match Schema::get().method(path) {
            Some((_, method)) if method.server_streaming => Kind::Endless,
            Some((_, method)) if method.idempotent && !method.client_streaming => Kind::Repeatable,
            Some(_) => Kind::Once,
            // Not of the contract: the health service, whose Watch never ends.
            None if path.ends_with("/Watch") => Kind::Endless,
            None => Kind::Once,
        }
    }
}

/// A failed attempt.
struct Failure {
    status: Status,
    /// The connection failed before the whole answer was there, so that nobody knows what the hub did.
    broken: bool,
}

impl Failure {
    fn answer(status: Status) -> Failure {
        Failure { status, broken: false }
    }
}

impl RetryLayer {
    async fn run<S>(self, inner: S, request: Request<Body>, repeatable: bool) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone,
        S::Error: Into<BoxError>,
    {
        let timeout = deadline::read(request.headers()).unwrap_or(self.call_timeout).min(LONGEST_TIMEOUT);
        let deadline = Instant::now() + timeout;
        if repeatable {
            return self.repeat(inner, request, deadline).await;
        }
        self.attempt(inner, request, deadline).await.map_err(|failure| failure.status)
    }

    async fn repeat<S>(self, inner: S, request: Request<Body>, deadline: Instant) -> Result<Response<Body>, Status>
    where
        S: Service<Request<Body>, Response = Response<Body>> + Clone,
        S::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, self.message_limit_bytes.saturating_add(FRAME_HEADER_BYTES));
        let message: Bytes = body.collect().await.map_err(|error| unreadable(error).status)?.to_bytes();
        let mut attempt = 1;
        loop {
            let mut request = Request::from_parts(head.clone(), Body::new(Full::new(message.clone())));
            if attempt > 1 {
                request.headers_mut().insert(PREVIOUS_ATTEMPTS, HeaderValue::from(attempt - 1));
            }
            let failure = match self.attempt(inner.clone(), request, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let Some(pause) = self.policy.pause(attempt, &failure) else { return Err(failure.status) };
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                return Err(failure.status);
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    /// Sends a request once, and reads the answer to its end.
    async fn attempt<S>(&self, inner: S, mut request: Request<Body>, until: Instant) -> Result<Response<Body>, Failure>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
        S::Error: Into<BoxError>,
    {
        deadline::write(request.headers_mut(), until.saturating_duration_since(Instant::now()));
        let answer = timeout_at(until, async {
            let response = inner.oneshot(request).await.map_err(broken)?;
            self.read(response).await
        });
        match answer.await {
            Err(_) => Err(Failure::answer(late())),
            // A tonic server keeps the same deadline and reports it as CANCELLED.
            Ok(Err(failure)) if failure.status.code() == Code::Cancelled && Instant::now() + TIMER_STEP >= until => {
                Err(Failure::answer(late()))
            }
            Ok(answer) => answer,
        }
    }

    async fn read(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let (head, body) = response.into_parts();
        if let Some(failure) = failed(&head.headers) {
            return Err(failure);
        }
        let passing = matches!(
            head.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if passing {
            return Err(Failure::answer(Status::unavailable(format!("a proxy answered {}", head.status))));
        }
        let body = Limited::new(body, self.message_limit_bytes.saturating_add(FRAME_HEADER_BYTES));
        let body = body.collect().await.map_err(unreadable)?;
        match body.trailers().map(failed) {
            Some(Some(failure)) => Err(failure),
            // A server that dies mid-answer may look like one that ended it; only a status says that it did.
            None if head.status == StatusCode::OK && !head.headers.contains_key("grpc-status") => {
                Err(Failure { status: Status::unavailable("the answer ended without a status"), broken: true })
            }
            _ => Ok(Response::from_parts(head, Body::new(body))),
        }
    }
}

/// The failure that headers or trailers tell of.
fn failed(headers: &HeaderMap) -> Option<Failure> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok).map(Failure::answer)
}

/// The failure of a message that could not be read to its end.
fn unreadable(error: BoxError) -> Failure {
    if error.is::<LengthLimitError>() {
        return Failure::answer(Status::out_of_range("the message is larger than the client's limit"));
    }
    broken(error)
}

/// The failure of a connection. tonic tells an address where nobody listens (UNAVAILABLE) from a connection that
/// broke (UNKNOWN, INTERNAL or CANCELLED, as it happened); to a caller both mean that the hub is not there.
fn broken(error: impl Into<BoxError>) -> Failure {
    let error = error.into();
    if caused_by::<TimeoutExpired>(&*error) {
        return Failure::answer(late());
    }
    let status = Status::from_error(error);
    let status = match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled => {
            Status::unavailable(format!("the connection to the hub broke: {}", status.message()))
        }
        _ => status,
    };
    Failure { status, broken: true }
}

fn late() -> Status {
    Status::deadline_exceeded("the hub did not answer within the call's timeout")
}

fn caused_by<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| error.is::<E>())
}
