//! What every call passes on either face before its handler: credential, policy, rate limit, deadline, panic.
//!
//! The gate wraps the gRPC router, and the JSON face calls through it, so no rule can hold on one face and not on
//! the other. Who may call is read from the contract; a method without a policy keeps the hub from starting.

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
use http::{Extensions, HeaderMap, HeaderValue, Request, Response, header};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;
use upbridge_proto::UPBRIDGE;
use upbridge_proto::schema::{Method, Policy};

use super::auth::SESSION_COOKIE;
use super::status;
use crate::domain::Hub;
use crate::domain::account::Credential;
use crate::http::{Guard, HttpCall};
use crate::model::address::ClientAddress;
use crate::model::signature::Sent;
use crate::model::webhook::{Delivery, WebhookEvent};
use crate::model::{Ctx, Error, Principal, Reason, RequestId, Result as HubResult};
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
    /// The signed-in user, `service`, or nothing.
    pub caller: String,
}

impl CallSlot {
    /// What was left, when the call reached a method.
    pub fn get(&self) -> Option<&CallInfo> {
        self.0.get()
    }
}

/// Makes sure that every method of the contract says who may call it.
///
/// Errors: a method has no policy, or one that allows nobody.
pub fn check_policies(methods: &[Method]) -> anyhow::Result<()> {
    for method in methods {
        let policy = method.policy.as_ref();
        let allows = policy.is_some_and(|policy| {
            policy.public || policy.user || policy.admin || policy.service || policy.webhook.is_some()
        });
        anyhow::ensure!(allows, "{} has no access policy in the contract; the hub does not start without", method.path);
        let event = policy.and_then(|policy| policy.webhook.as_deref());
        let is_known = event.is_none_or(|event| WebhookEvent::parse(event).is_some());
        anyhow::ensure!(is_known, "{} takes webhooks of an event the hub does not know", method.path);
    }
    Ok(())
}

/// The gate in front of the gRPC router.
#[derive(Clone)]
pub struct Gate {
    inner: Router,
    hub: Arc<Hub>,
    meters: Arc<Meters>,
    longest: Duration,
}

impl Gate {
    /// Puts the gate in front of `inner`. No call runs longer than `longest`, whatever its own deadline says.
    pub fn new(inner: Router, hub: Arc<Hub>, meters: Arc<Meters>, longest: Duration) -> Gate {
        Gate { inner, hub, meters, longest }
    }

    async fn pass(mut self, request: Request<Body>) -> Response<Body> {
        let Some((index, method)) = UPBRIDGE.method(request.uri().path()) else {
            // Health, reflection, and what does not exist; the router answers the latter with UNIMPLEMENTED.
            return answered(self.inner.call(request)).await;
        };
        let begun = Instant::now();
        let slot = request.extensions().get::<Arc<CallSlot>>().cloned();
        let limit = deadline(request.headers()).map_or(self.longest, |asked| asked.min(self.longest));
        let mut caller = String::new();
        let meters = self.meters.clone();
        let running = AssertUnwindSafe(self.admit(method, request, &mut caller)).catch_unwind();
        let response = match tokio::time::timeout(limit, running).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(refused))) => refused.into_http(),
            Ok(Err(_panic)) => {
                tracing::error!(rpc = %method.path, "a handler panicked");
                status(Error::internal("a handler panicked")).into_http()
            }
            Err(_elapsed) => late().into_http(),
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
        method: &Method,
        request: Request<Body>,
        caller: &mut String,
    ) -> Result<Response<Body>, Status> {
        let (mut parts, body) = request.into_parts();
        let ip = address(&parts.extensions);
        let principal = match self.principal(method, &parts).await {
            Ok(principal) => principal,
            Err(refused) => {
                // Guessing credentials counts like any call without one.
                self.hub.limits().check(&Principal::Anonymous, ip).map_err(status)?;
                return Err(status(refused));
            }
        };
        match &principal {
            Principal::User(signed_in) => *caller = signed_in.user.id.to_string(),
            Principal::Service => "service".clone_into(caller),
            Principal::Webhook(_) => "webhook".clone_into(caller),
            Principal::Anonymous => {}
        }
        let policy = method.policy.as_ref().ok_or_else(|| status(Error::internal("a method without a policy")))?;
        allow(policy, &principal).map_err(status)?;
        // A token in the body makes its user the caller; the handler counts it.
        if !(policy.token_field.is_some() && matches!(principal, Principal::Anonymous)) {
            self.hub.limits().check(&principal, ip).map_err(status)?;
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
        parts.extensions.insert(Ctx { principal, request_id, ip, user_agent });
        Ok(answered(self.inner.call(Request::from_parts(parts, body))).await)
    }

    /// Whose credential it is. What may be asked while the database is gone is not held up by it.
    async fn authenticate(&self, method: &Method, credential: Credential<'_>) -> HubResult<Principal> {
        let from_memory = method.policy.as_ref().is_some_and(|policy| policy.without_database);
        if from_memory && self.hub.is_database_down() {
            return self.hub.authenticate_known(Some(credential));
        }
        match self.hub.authenticate(Some(credential)).await {
            // It went a moment ago, and nobody has noticed yet.
            Err(Error::Unavailable { .. }) if from_memory => self.hub.authenticate_known(Some(credential)),
            answer => answer,
        }
    }

    async fn principal(&self, method: &Method, request: &Parts) -> HubResult<Principal> {
        // Put there by the guard alone: what comes over a socket has no extensions.
        let signed = request.extensions.get::<Arc<Delivery>>().cloned().map(Principal::Webhook);
        match credential(request)? {
            Some(credential) => {
                let principal = self.authenticate(method, credential).await?;
                // A key beside a good signature has to be good as well, and changes nothing.
                Ok(match (&principal, signed) {
                    (Principal::Service, Some(signed)) => signed,
                    _ => principal,
                })
            }
            None if signed.is_some() => Ok(signed.unwrap_or(Principal::Anonymous)),
            None => {
                let admin_only = method.policy.as_ref().is_some_and(|policy| policy.admin && !policy.user);
                match session_cookie(request).filter(|_| admin_only) {
                    Some(token) => {
                        same_site(request)?;
                        self.hub.authenticate(Some(Credential::Token(token))).await
                    }
                    None => Ok(Principal::Anonymous),
                }
            }
        }
    }
}

impl Guard for Gate {
    fn admit_webhook(&self, method: &'static Method, request: &mut Parts, body: &Bytes) -> Result<(), Status> {
        let event = method.policy.as_ref().and_then(|policy| WebhookEvent::parse(policy.webhook.as_deref()?));
        let event = event.ok_or_else(|| status(Error::internal("a method without a webhook")))?;
        let headers = &request.headers;
        let sent = Sent::read(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect());
        let has_credential = headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key");
        if has_credential && !sent.is_any() {
            return Ok(());
        }
        let begun = Instant::now();
        match self.hub.admit_webhook(event, address(&request.extensions), &sent, body) {
            Ok(delivery) => {
                request.extensions.insert(delivery);
                Ok(())
            }
            Err(refused) => {
                // The call ends here, so what would be told of it is told here.
                let refused = status(refused);
                if let Some((index, _)) = UPBRIDGE.method(&method.path) {
                    self.meters.call(index, refused.code(), begun.elapsed());
                }
                if let Some(slot) = request.extensions.get::<Arc<CallSlot>>() {
                    let rpc = method.path.trim_start_matches('/');
                    drop(slot.0.set(CallInfo { rpc, code: refused.code(), caller: String::new() }));
                }
                Err(refused)
            }
        }
    }

    fn unreadable<'a>(&'a self, request: &'a Extensions, why: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(delivery) = request.get::<Arc<Delivery>>() {
                self.hub.log_unreadable_webhook(delivery, address(request), why).await;
            }
        })
    }
}

impl Service<Request<Body>> for Gate {
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

/// Whether the policy lets the principal in: the only reading of it.
fn allow(policy: &Policy, principal: &Principal) -> HubResult<()> {
    use crate::model::user::Role;
    let allowed = match principal {
        Principal::Anonymous => policy.public || policy.token_field.is_some(),
        Principal::User(signed_in) => {
            policy.public || policy.user || (policy.admin && signed_in.user.role == Role::Admin)
        }
        Principal::Service => policy.public || policy.service,
        Principal::Webhook(_) => policy.webhook.is_some(),
    };
    match principal {
        _ if allowed => Ok(()),
        Principal::Anonymous => Err(Error::unauthenticated(
            Reason::MissingCredentials,
            match policy.webhook {
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
fn credential(request: &Parts) -> HubResult<Option<Credential<'_>>> {
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

/// The session cookie; it counts only for calls that came to an administrator's path over HTTP.
fn session_cookie(request: &Parts) -> Option<&str> {
    request.extensions.get::<HttpCall>().filter(|call| call.path.starts_with("/api/admin/"))?;
    let cookies = request.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(name, value)| (name == SESSION_COOKIE && !value.is_empty()).then_some(value))
}

/// A browser sends cookies with whatever another site makes it do, and says so in these headers; callers that are
/// no browsers send neither header and no cookie they did not mean to.
fn same_site(request: &Parts) -> HubResult<()> {
    let refused =
        || Error::denied(Reason::CrossSiteRequest, "the session cookie came with a request from another site");
    if let Some(site) = text(&request.headers, "sec-fetch-site")
        && !matches!(site, "same-origin" | "none")
    {
        return Err(refused());
    }
    if let Some(origin) = text(&request.headers, "origin") {
        let host = text(&request.headers, "host")
            .or(request.extensions.get::<HttpCall>().and_then(|call| call.host.as_deref()));
        let origin_host = origin.split_once("://").map(|(_, host)| host);
        if host.is_none() || origin_host != host {
            return Err(refused());
        }
    }
    Ok(())
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

fn late() -> Status {
    let mut details = ErrorDetails::new();
    let reason = Reason::DeadlineExceeded.as_str();
    details.set_error_info(reason, UPBRIDGE.error_domain, std::collections::HashMap::new());
    Status::with_error_details(Code::DeadlineExceeded, "the call's deadline passed", details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nobody_may_call_keeps_the_hub_from_starting() {
        let method = |policy| Method {
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
        assert!(check_policies(UPBRIDGE.methods()).is_ok());
        for policy in [None, Some(Policy::default())] {
            let refused = check_policies(&[method(policy)]).unwrap_err();
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
