//! CreatorUp over HTTP and JSON: any CreatorUp, in any language.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Answer, BaseUrl, Guard, Options, Outbound, Trust, retry_after};
use crate::model::clock::Clock;
use crate::model::creatorup::{Confirmation, CreatorUp, Failure, FailureClass, Push, Snapshot, Target};
use crate::model::membership::Membership;
use crate::model::user::User;
use crate::model::{Instant, Json};

/// Where users are pushed to.
const PUSH: &str = "/api/v1/digiup/user/sync";
/// What is asked to see whether CreatorUp is there.
const HEALTH: &str = "/healthz";
/// Longest id of a user at CreatorUp, in bytes: what its column takes.
const LONGEST_ID: usize = 255;

/// Speaks to CreatorUp.
pub struct CreatorUpApi {
    options: Options,
    outbound: Outbound,
    key: HeaderValue,
    clock: Arc<dyn Clock>,
}

impl CreatorUpApi {
    /// Connects to nobody yet; an error is a key that is no header, or a system without certificates.
    pub fn new(
        options: Options,
        key: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<CreatorUpApi, Box<dyn Error + Send + Sync>> {
        let outbound = Outbound::new(Guard::new(options.allowed_networks.clone()), options.timeout)?;
        let mut key = HeaderValue::from_str(key)?;
        key.set_sensitive(true);
        Ok(CreatorUpApi { options, outbound, key, clock })
    }

    fn headers(&self) -> HeaderMap {
        let request_id = HeaderValue::from_str(&Uuid::now_v7().simple().to_string());
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", self.key.clone());
        headers.extend(request_id.ok().map(|id| (http::HeaderName::from_static("x-request-id"), id)));
        headers
    }

    async fn send(&self, target: &Target, push: &Push) -> Result<Confirmation, Failure> {
        let refused = || Failure::permanent(FailureClass::Blocked, "the address is not one the hub may call");
        let url = BaseUrl::parse(&target.url).ok_or_else(refused)?.join(PUSH);
        let trust = if target.is_configured { Trust::Configured } else { Trust::Guarded };
        let content = content(&push.snapshot);
        let key = idempotency_key(push.job_id, &content);
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(
            HeaderValue::from_str(&key).ok().map(|key| (http::HeaderName::from_static("idempotency-key"), key)),
        );
        let mut body = content;
        body.insert("as_of".to_owned(), json!(push.snapshot.as_of));
        let body = Bytes::from(Json::Object(body).to_string());
        let answer = self.outbound.call(trust, Method::POST, url, headers, body).await?;
        let is_deletion = push.snapshot.user.is_none();
        self.understand(&answer, is_deletion)
    }

    /// What an answer means.
    fn understand(&self, answer: &Answer, is_deletion: bool) -> Result<Confirmation, Failure> {
        let status = answer.status;
        let message = format!("CreatorUp answered {}", status.as_u16());
        let class = match status {
            status if status.is_success() => return confirmation(&answer.body),
            // Whom CreatorUp does not have need not be deleted there.
            StatusCode::NOT_FOUND | StatusCode::GONE if is_deletion => return Ok(Confirmation::default()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FailureClass::Auth,
            StatusCode::TOO_MANY_REQUESTS => FailureClass::RateLimited,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => FailureClass::Down,
            status if status.is_server_error() => FailureClass::Down,
            status if status.is_redirection() => FailureClass::Redirect,
            status if status.is_client_error() => return Err(Failure::permanent(FailureClass::Refused, message)),
            _ => FailureClass::Garbage,
        };
        let retry_after = retry_after(&answer.headers, self.clock.now());
        Err(Failure { retry_after, ..Failure::passing(class, message) })
    }

    async fn knock(&self) -> Result<Duration, Failure> {
        let begun = std::time::Instant::now();
        let url = self.options.url.join(HEALTH);
        let answer = self.outbound.call(Trust::Configured, Method::GET, url, self.headers(), Bytes::new()).await?;
        // Whoever answers is there, also one without such a path; a gateway that answers for one who is not says 5xx.
        if answer.status.is_server_error() {
            return Err(Failure::passing(FailureClass::Down, format!("CreatorUp answered {}", answer.status.as_u16())));
        }
        Ok(begun.elapsed())
    }
}

impl CreatorUp for CreatorUpApi {
    fn target(&self, named: Option<&str>) -> Option<Target> {
        let configured = Target { url: self.options.url.to_string(), is_configured: true };
        let Some(named) = named else { return Some(configured) };
        let named = BaseUrl::parse(named)?;
        if named == self.options.url {
            return Some(configured);
        }
        let is_listed =
            self.options.allowed_urls.contains(&named) && self.outbound.guard().permits_url(&named.join("/"));
        is_listed.then(|| Target { url: named.to_string(), is_configured: false })
    }

    fn push<'a>(&'a self, target: &'a Target, push: &'a Push) -> BoxFuture<'a, Result<Confirmation, Failure>> {
        Box::pin(self.send(target, push))
    }

    fn probe(&self) -> BoxFuture<'_, Result<Duration, Failure>> {
        Box::pin(self.knock())
    }
}

/// The body, but for when it was read.
fn content(snapshot: &Snapshot) -> Map<String, Json> {
    let mut content = Map::new();
    content.insert("digiup_user_id".to_owned(), json!(snapshot.user_id));
    content.insert("deleted".to_owned(), json!(snapshot.user.is_none()));
    if let Some(user) = &snapshot.user {
        content.insert("user".to_owned(), user_json(user, &snapshot.courses));
        content.insert(
            "subscription".to_owned(),
            snapshot.membership.as_ref().map_or(Json::Null, |held| subscription_json(held, snapshot.as_of)),
        );
        content.insert("plan".to_owned(), snapshot.membership.as_ref().map_or(Json::Null, plan_json));
    }
    content
}

/// One key for one content of one job: a repetition is known by it, and newer content is never taken for one.
fn idempotency_key(job_id: Uuid, content: &Map<String, Json>) -> String {
    let digest = Sha256::digest(Json::Object(content.clone()).to_string());
    let head: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{job_id}-{head}")
}

fn user_json(user: &User, courses: &Json) -> Json {
    json!({
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "username": user.username,
        "role": user.role.as_str(),
        "status": user.status.as_str(),
        "creatorup_user_id": user.creatorup_user_id,
        "purchased_courses": courses,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    })
}

fn subscription_json(held: &Membership, as_of: Instant) -> Json {
    let subscription = &held.subscription;
    json!({
        "id": subscription.id,
        "plan_id": subscription.plan_id,
        "plan": held.plan.name,
        "status": subscription.status_at(as_of).as_str(),
        "start_date": subscription.start_date,
        "end_date": subscription.end_date,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "source": subscription.source.as_str(),
        "updated_at": subscription.updated_at,
    })
}

fn plan_json(held: &Membership) -> Json {
    let plan = &held.plan;
    let features = plan.features.iter();
    json!({
        "id": plan.id,
        "name": plan.name,
        "tier": plan.tier.as_str(),
        "price": plan.price,
        "currency": plan.currency,
        "features": features
            .map(|feature| json!({ "feature": feature.feature, "monthly_limit": feature.monthly_limit }))
            .collect::<Vec<_>>(),
        "updated_at": plan.updated_at,
    })
}

/// Reads what a success says: `{"data": {"creatorup_user_id": …}}`, or the same without `data`.
fn confirmation(body: &[u8]) -> Result<Confirmation, Failure> {
    let garbage = |what: &str| Failure::passing(FailureClass::Garbage, format!("the answer {what}"));
    let Ok(Json::Object(mut answer)) = serde_json::from_slice(body) else {
        return Err(garbage("is not a JSON object"));
    };
    if answer.get("success") == Some(&Json::Bool(false)) {
        return Err(garbage("says that it is no success"));
    }
    if body.windows(6).any(|piece| piece == b"\\u0000") {
        return Err(garbage("holds a NUL, which cannot be kept"));
    }
    let mut said = match answer.remove("data") {
        Some(Json::Object(data)) => data,
        _ => answer,
    };
    said.remove("success");
    let named = ["creatorup_user_id", "user_id", "id"].into_iter().find(|name| said.get(*name).is_some_and(is_id));
    let id =
        named.and_then(|name| said.remove(name)).map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
    if id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
        return Err(garbage("names a user by more than 255 bytes"));
    }
    Ok(Confirmation { creatorup_user_id: id, metadata: Json::Object(said) })
}

fn is_id(value: &Json) -> bool {
    value.is_u64() || value.as_str().is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<(Option<String>, Json), FailureClass> {
        confirmation(body.as_bytes())
            .map(|said| (said.creatorup_user_id, said.metadata))
            .map_err(|failure| failure.class)
    }

    #[test]
    fn a_confirmation_is_read_wherever_the_id_stands_and_the_rest_is_kept() {
        let id = |id: &str| Some(id.to_owned());
        assert_eq!(
            read(r#"{"success":true,"data":{"creatorup_user_id":"c-1","plan":"x"}}"#),
            Ok((id("c-1"), json!({"plan": "x"})))
        );
        assert_eq!(read(r#"{"data":{"user_id":7}}"#), Ok((id("7"), json!({}))));
        assert_eq!(read(r#"{"id":"c-2","tags":[1]}"#), Ok((id("c-2"), json!({"tags": [1]}))));
        assert_eq!(
            read(r#"{"creatorup_user_id":null,"id":"c-3"}"#),
            Ok((id("c-3"), json!({"creatorup_user_id": null})))
        );
        assert_eq!(read("{}"), Ok((None, json!({}))));
    }

    #[test]
    fn what_is_no_confirmation_is_garbage() {
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(256));
        for body in ["", "ok", "[]", "null", r#"{"id":"c-1""#, r#"{"success":false}"#, r#"{"id":"a\u0000b"}"#, &long] {
            assert_eq!(read(body), Err(FailureClass::Garbage), "{body}");
        }
    }

    #[test]
    fn a_key_changes_with_the_content_and_with_the_job_and_with_nothing_else() {
        let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
        let snapshot = |as_of: &str| Snapshot {
            user_id: one,
            user: None,
            courses: json!([]),
            membership: None,
            as_of: chrono::DateTime::parse_from_rfc3339(as_of).unwrap().to_utc(),
        };
        let (early, late) = (content(&snapshot("2026-03-15T12:00:00Z")), content(&snapshot("2026-03-15T12:00:01Z")));
        assert_eq!(idempotency_key(one, &early), idempotency_key(one, &late));
        assert_ne!(idempotency_key(one, &early), idempotency_key(other, &early));
        let changed = content(&Snapshot { user_id: other, ..snapshot("2026-03-15T12:00:00Z") });
        assert_ne!(idempotency_key(one, &early), idempotency_key(one, &changed));
    }
}
