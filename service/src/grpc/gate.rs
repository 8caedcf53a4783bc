//! What every call passes on either face before its handler: credential, policy, rate limit, deadline, panic.
//!
//! The gate wraps the gRPC router, and the JSON face calls through it, so no rule can hold on one face and not on
//! the other. Who may call is read from the contract; a method without a policy keeps a server from starting. Whose a
//! credential is, how often somebody may call and what handlers are told of their caller is the server's
//! [`Reception`].

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{Extensions, HeaderMap, Request, Response, header};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;
use upbridge_proto::Contract;
use upbridge_proto::schema::{Method, Policy};

use super::reception::{Rank, Reception};
use super::status;
use crate::http::{Guard, HttpCall};
use crate::model::address::ClientAddress;
use crate::model::{Credential, Error, Origin, Reason, RequestId, Result as Judged};
use crate::telemetry::Meters;

/// The token of the `Authorization` header, for the rpc that compares it with the body's.
#[derive(Clone)]
pub struct BearerToken(pub Arc<str>);

/// Where the gate leaves what the access log tells about a call.
#[derive(Default)]
pub struct CallSlot(OnceLock<CallInfo>);

/// What the access log tells about a call.
pub struct CallInfo {
    /// The rpc, as `Service/Method`.
    pub rpc: &'static str,
    /// How it ended.
    pub code: Code,
    /// Who called, as the server names them in its log; may be empty.
    pub caller: String,
}

impl CallSlot {
    /// What was left, when the call reached a method.
    pub fn get(&self) -> Option<&CallInfo> {
        self.0.get()
    }
}

/// Makes sure that every method says who may call it, before a server starts with it; `takes` tells which events' webhooks
/// the server knows.
///
/// Errors: a method has no policy, one that allows nobody, or takes webhooks of an event the server does not know.
pub fn check_policies(methods: &[Method], takes: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    for method in methods {
        let policy = method.policy.as_ref();
        let allows = policy.is_some_and(|policy| {
            policy.public || policy.user || policy.admin || policy.service || policy.webhook.is_some()
        });
        anyhow::ensure!(
            allows,
            "{} has no access policy in the contract; a server does not start without",
            method.path
        );
        let event = policy.and_then(|policy| policy.webhook.as_deref());
        anyhow::ensure!(event.is_none_or(&takes), "{} takes webhooks of an event nobody knows", method.path);
    }
    Ok(())
}

/// The gate in front of the gRPC router of one contract.
pub struct Gate<R> {
    inner: Router,
    contract: &'static Contract,
    reception: Arc<R>,
    meters: Arc<Meters>,
    longest: Duration,
}

impl<R> Clone for Gate<R> {
    fn clone(&self) -> Gate<R> {
        let Gate { inner, contract, reception, meters, longest } = self;
        Gate { inner: inner.clone(), contract, reception: reception.clone(), meters: meters.clone(), longest: *longest }
    }
}

impl<R: Reception> Gate<R> {
    /// Puts the gate in front of `inner`, which serves the services of `contract`. No call runs longer than `longest`,
    /// whatever its own deadline says. `meters` must be those of the same contract.
    pub fn new(
        inner: Router,
        contract: &'static Contract,
        reception: Arc<R>,
        meters: Arc<Meters>,
        longest: Duration,
    ) -> Gate<R> {
        Gate { inner, contract, reception, meters, longest }
    }

    async fn pass(mut self, request: Request<Body>) -> Response<Body> {
        let Some((index, method)) = self.contract.method(request.uri().path()) else {
            // Health, reflection, and what this server does not have; the router answers the latter with UNIMPLEMENTED.
            return answered(self.inner.call(request)).await;
        };
        let begun = Instant::now();
        let slot = request.extensions().get::<Arc<CallSlot>>().cloned();
        let limit = deadline(request.headers()).map_or(self.longest, |asked| asked.min(self.longest));
        let mut caller = String::new();
        let (meters, contract) = (self.meters.clone(), self.contract);
        let running = AssertUnwindSafe(self.admit(method, request, &mut caller)).catch_unwind();
        let response = match tokio::time::timeout(limit, running).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(refused))) => refused.into_http(),
            Ok(Err(_panic)) => {
                tracing::error!(rpc = %method.path, "a handler panicked");
                status(contract, Error::internal("a handler panicked")).into_http()
            }
            Err(_elapsed) => late(contract).into_http(),
        };
        // A call that fails has its status in the headers; one that succeeds has it in the trailers to come.
        let code =
            response.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()));
        meters.call(index, code, begun.elapsed());
        if let Some(slot) = slot {
            let info = CallInfo { rpc: method.path.trim_start_matches('/'), code, caller };
            drop(slot.0.set(info));
        }
        response
    }

    async fn admit(
        &mut self,
        method: &'static Method,
        request: Request<Body>,
        caller: &mut String,
    ) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let ip = address(&parts.extensions);
        let refuse = |error| status(self.contract, error);
        let principal = match self.identify(method, &parts).await {
            Ok(principal) => principal,
            Err(refused) => {
                // Guessing credentials counts like any call without one.
                self.reception.count(None, ip).map_err(refuse)?;
                return Err(refuse(refused));
            }
        };
        *caller = self.reception.label(&principal);
        let policy = method.policy.as_ref().ok_or_else(|| refuse(Error::internal("a method without a policy")))?;
        let rank = self.reception.rank(&principal);
        allow(policy, rank).map_err(refuse)?;
        // A token in the body makes its user the caller; the handler counts it.
        if !(policy.token_field.is_some() && rank == Rank::Anonymous) {
            self.reception.count(Some(&principal), ip).map_err(refuse)?;
        }
        let request_id = parts.extensions.get::<RequestId>().map_or_else(|| "".into(), |id| id.0.clone());
        let user_agent = text(&parts.headers, header::USER_AGENT.as_str()).unwrap_or_default();
        let user_agent = user_agent.chars().take(255).collect::<String>().into();
        if policy.token_field.is_some()
            && let Ok(Some(Credential::Token(token))) = credential(&parts)
        {
            let token = BearerToken(token.into());
            parts.extensions.insert(token);
        }
        self.reception.enter(principal, Origin { request_id, ip, user_agent }, &mut parts.extensions);
        Ok(answered(self.inner.call(Request::from_parts(parts, body))).await)
    }

    /// Tells of a call that ends before it is one what is told of every call.
    fn ended(&self, method: &'static Method, request: &Parts, code: Code, took: Duration) {
        if let Some((index, _)) = self.contract.method(&method.path) {
            self.meters.call(index, code, took);
        }
        if let Some(slot) = request.extensions.get::<Arc<CallSlot>>() {
            let rpc = method.path.trim_start_matches('/');
            drop(slot.0.set(CallInfo { rpc, code, caller: String::new() }));
        }
    }

    async fn identify(&self, method: &'static Method, request: &Parts) -> Judged<R::Principal> {
        let is_raw = method.policy.as_ref().is_some_and(|policy| policy.raw_body);
        // Whoever sends bytes of their own has a proof of their own: what they put into our headers means nothing here.
        let credential = match is_raw && request.extensions.get::<HttpCall>().is_some() {
            true => None,
            false => credential(request)?,
        };
        self.reception.identify(method, credential, request).await
    }
}

impl<R: Reception> Guard for Gate<R> {
    fn admit_webhook(&self, method: &'static Method, request: &mut Parts, body: &Bytes) -> Result<(), Status> {
        let event = method.policy.as_ref().and_then(|policy| policy.webhook.as_deref());
        let event = event.ok_or_else(|| status(self.contract, Error::internal("a method without a webhook")))?;
        let begun = Instant::now();
        let ip = address(&request.extensions);
        self.reception.admit_webhook(event, ip, request, body).map_err(|refused| {
            let refused = status(self.contract, refused);
            self.ended(method, request, refused.code(), begun.elapsed());
            refused
        })
    }

    fn oversized(&self, method: &'static Method, request: &Parts, why: &str) -> Result<(), Status> {
        let event = method.policy.as_ref().and_then(|policy| policy.webhook.as_deref()).unwrap_or_default();
        let heard = self.reception.oversized_webhook(event, address(&request.extensions), why);
        let heard = heard.map_err(|refused| status(self.contract, refused));
        let code = heard.as_ref().err().map_or(Code::OutOfRange, Status::code);
        self.ended(method, request, code, Duration::ZERO);
        heard
    }

    fn unreadable<'a>(&'a self, request: &'a Extensions, why: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(self.reception.unreadable_webhook(request, address(request), why))
    }
}

impl<R: Reception> Service<Request<Body>> for Gate<R> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let gate = self.clone();
        Box::pin(async move { Ok(gate.pass(request).await) })
    }
}

async fn answered(call: impl Future<Output = Result<Response<Body>, Infallible>>) -> Response<Body> {
    match call.await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Whether the policy lets a caller of that rank in: the only reading of it.
fn allow(policy: &Policy, rank: Rank) -> Judged<()> {
    let allowed = match rank {
        Rank::Anonymous => policy.public || policy.token_field.is_some(),
        Rank::User => policy.public || policy.user,
        Rank::Admin => policy.public || policy.user || policy.admin,
        Rank::Service => policy.public || policy.service,
        Rank::Webhook => policy.webhook.is_some(),
    };
    match rank {
        _ if allowed => Ok(()),
        Rank::Anonymous => Err(Error::unauthenticated(
            Reason::MissingCredentials,
            match policy.webhook {
                Some(_) if policy.raw_body => "this is taken over HTTP only: its proof is over the bytes of a body",
                Some(_) => "send the API key as x-api-key; a signature is over the bytes of an HTTP body",
                None => "send a token as Bearer, or an API key as x-api-key",
            },
        )),
        _ => Err(Error::denied(Reason::PrincipalNotAllowed, "this caller may not use this method")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The one credential of a call.
fn credential(request: &Parts) -> Judged<Option<Credential<'_>>> {
    let bad = |message| Error::unauthenticated(Reason::InvalidCredentials, message);
    let headers = &request.headers;
    let bearer = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => {
            let (scheme, token) =
                value.to_str().ok().and_then(|value| value.trim().split_once(' ')).unwrap_or_default();
            if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
                return Err(bad("the Authorization header must be: Bearer <token>"));
            }
            Some(Credential::Token(token.trim()))
        }
    };
    let key = match headers.get("x-api-key") {
        None => None,
        Some(value) => Some(Credential::ApiKey(value.to_str().map_err(|_| bad("the API key is not valid"))?)),
    };
    match (bearer, key) {
        (Some(_), Some(_)) => Err(bad("send one credential: a token or an API key")),
        (bearer, key) => Ok(bearer.or(key)),
    }
}

/// Where a call comes from, as the front door has found.
fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<ClientAddress>().map(|client| client.0)
}

/// `grpc-timeout`: at most eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let value = text(headers, "grpc-timeout")?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

fn late(contract: &Contract) -> Status {
    let mut details = ErrorDetails::new();
    let reason = Reason::DeadlineExceeded.as_str();
    details.set_error_info(reason, contract.error_domain, std::collections::HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, "the call's deadline passed", details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use upbridge_proto::UPBRIDGE;

    #[test]
    fn a_method_that_nobody_may_call_keeps_a_server_from_starting() {
        let method = |policy| Method {
            package: "upbridge.v1",
            place: 0,
            path: "/upbridge.v1.NewService/Forgotten".to_owned(),
            service: "upbridge.v1.NewService".to_owned(),
            name: "Forgotten".to_owned(),
            input: 0,
            output: 0,
            client_streaming: false,
            server_streaming: false,
            bindings: Vec::new(),
            policy,
            success_status: 200,
            idempotent: false,
        };
        assert!(check_policies(UPBRIDGE.methods(), |_| true).is_ok());
        for policy in [None, Some(Policy::default())] {
            let refused = check_policies(&[method(policy)], |_| true).unwrap_err();
            assert!(refused.to_string().contains("NewService/Forgotten"), "{refused}");
        }
    }

    #[test]
    fn a_deadline_is_read_as_grpc_writes_it() {
        let read =
            |value: &str| deadline(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), value.parse().unwrap())]));
        assert_eq!(read("250m"), Some(Duration::from_millis(250)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("7u"), Some(Duration::from_micros(7)));
        for bad in ["", "m", "-1S", "1", "123456789S", "1x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
