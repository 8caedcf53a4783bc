//! Who callers are to the hub: users, administrators, CreatorUp by its key or by a webhook's signature.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, header};
use upbridge_proto::schema::Method;
use upbridge_service::grpc::{Rank, Reception};

use super::auth::SESSION_COOKIE;
use crate::domain::Hub;
use crate::http::HttpCall;
use crate::model::callback::{Callback, HEADERS};
use crate::model::signature::Sent;
use crate::model::user::Role;
use crate::model::webhook::{Delivery, PROVIDER_CALLBACK, WebhookEvent};
use crate::model::{Credential, Ctx, Error, Origin, Principal, Reason, Result};

impl Reception for Hub {
    type Principal = Principal;

    async fn identify(
        &self,
        method: &'static Method,
        credential: Option<Credential<'_>>,
        request: &Parts,
    ) -> Result<Principal> {
        // Put there by the guard alone: what comes over a socket has no extensions.
        if let Some(callback) = request.extensions.get::<Arc<Callback>>() {
            return Ok(Principal::Provider(callback.clone()));
        }
        let signed = request.extensions.get::<Arc<Delivery>>().cloned().map(Principal::Webhook);
        match credential {
            Some(credential) => {
                let principal = authenticate(self, method, credential).await?;
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
                        self.authenticate(Some(Credential::Token(token))).await
                    }
                    None => Ok(Principal::Anonymous),
                }
            }
        }
    }

    fn rank(&self, principal: &Principal) -> Rank {
        match principal {
            Principal::Anonymous => Rank::Anonymous,
            Principal::User(signed_in) if signed_in.user.role == Role::Admin => Rank::Admin,
            Principal::User(_) => Rank::User,
            Principal::Service => Rank::Service,
            Principal::Webhook(_) | Principal::Provider(_) => Rank::Webhook,
        }
    }

    fn label(&self, principal: &Principal) -> String {
        match principal {
            Principal::User(signed_in) => signed_in.user.id.to_string(),
            Principal::Service => "service".to_owned(),
            Principal::Webhook(_) => "webhook".to_owned(),
            Principal::Provider(_) => "provider".to_owned(),
            Principal::Anonymous => String::new(),
        }
    }

    fn count(&self, principal: Option<&Principal>, ip: Option<IpAddr>) -> Result<()> {
        self.limits().check(principal.unwrap_or(&Principal::Anonymous), ip)
    }

    fn enter(&self, principal: Principal, origin: Origin, extensions: &mut Extensions) {
        let Origin { request_id, ip, user_agent } = origin;
        extensions.insert(Ctx { principal, request_id, ip, user_agent });
    }

    fn admit_webhook(&self, event: &str, ip: Option<IpAddr>, request: &mut Parts, body: &Bytes) -> Result<()> {
        if event == PROVIDER_CALLBACK {
            self.limits().check_webhook_address(ip)?;
            request.extensions.insert(Arc::new(callback(request, body)));
            return Ok(());
        }
        let event = WebhookEvent::parse(event).ok_or_else(|| Error::internal("a webhook of an unknown event"))?;
        let headers = &request.headers;
        let sent = Sent::read(|name| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect());
        let has_credential = headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key");
        if has_credential && !sent.is_any() {
            return Ok(());
        }
        let delivery = Hub::admit_webhook(self, event, ip, &sent, body)?;
        request.extensions.insert(delivery);
        Ok(())
    }

    fn oversized_webhook(&self, event: &str, ip: Option<IpAddr>, why: &str) -> Result<()> {
        match WebhookEvent::parse(event) {
            Some(event) => self.refuse_oversized_webhook(event, ip, why),
            None => self.refuse_oversized_callback(ip, why),
        }
    }

    async fn unreadable_webhook(&self, request: &Extensions, ip: Option<IpAddr>, why: &str) {
        if let Some(delivery) = request.get::<Arc<Delivery>>() {
            self.log_unreadable_webhook(delivery, ip, why).await;
        }
    }
}

/// What is kept of a callback until it is known whose it is.
fn callback(request: &Parts, body: &Bytes) -> Callback {
    let values =
        |name: &'static str| request.headers.get_all(name).iter().map(move |value| (name, value.as_bytes().to_vec()));
    let target = request.uri.path_and_query().map_or_else(|| request.uri.path(), |target| target.as_str());
    let host = text(&request.headers, "host").or(request.uri.authority().map(|authority| authority.as_str()));
    Callback {
        body: body.clone(),
        headers: HEADERS.into_iter().flat_map(values).collect(),
        target: target.to_owned(),
        host: host.map(str::to_owned),
        begun: std::time::Instant::now(),
    }
}

/// Whose credential it is. What may be asked while the database is gone is not held up by it.
async fn authenticate(hub: &Hub, method: &Method, credential: Credential<'_>) -> Result<Principal> {
    let from_memory = method.policy.as_ref().is_some_and(|policy| policy.without_database);
    if from_memory && hub.is_database_down() {
        return hub.authenticate_known(Some(credential));
    }
    match hub.authenticate(Some(credential)).await {
        // It went a moment ago, and nobody has noticed yet.
        Err(Error::Unavailable { .. }) if from_memory => hub.authenticate_known(Some(credential)),
        answer => answer,
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
fn same_site(request: &Parts) -> Result<()> {
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

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
