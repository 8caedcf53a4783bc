//! Webhooks that come in: who may send them, what is stored before they are answered, and what became of them.
//!
//! The order of an arrival: a coarse limit by address, the networks webhooks are taken from, the signature over the raw
//! bytes, its timestamp, the limit of the source; only then is anything of it read. What is read well is stored in one
//! transaction ([`intake`]): the key that tells a repeated delivery, the log, the sync event, and the job that applies
//! it ([`apply`]). Then it is answered.
//!
//! Guaranteed: an event that was answered is applied, once, however often it is delivered. A sender learns what is wrong
//! with a webhook it has proved, and nothing about one it has not. Refused webhooks are logged; of many only some are,
//! so that nobody can push the others out of the log.

pub mod apply;
pub mod intake;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::Hub;
use super::limit::Sampler;
use crate::model::address::Networks;
use crate::model::page::{Page, Paged, Place};
use crate::model::signature::{self, Key, Refused, Sent};
use crate::model::usage::Report;
use crate::model::webhook::{
    Arrival, CREATORUP, Delivery, DeliveryKey, Receipt, Rejection, SubscriptionUpdate, Task, WebhookEvent,
    WebhookFilter, WebhookLog, occurred_at,
};
use crate::model::{Ctx, Error, Instant, Json, JsonText, Principal, Reason, Result};
use crate::storage::{self, Lane, Store};

/// Refused webhooks logged a minute at most: of those that proved nothing, and of those that did.
const UNPROVED_LOGGED: u32 = 60;
const PROVED_LOGGED: u32 = 600;

/// What webhooks are judged by.
#[derive(Clone, Debug, Default)]
pub struct WebhookRules {
    /// Secrets that are active, the newest first.
    pub keys: Vec<Key>,
    /// Seconds a signed timestamp may differ from the hub's clock, to either side.
    pub tolerance: u64,
    /// Where webhooks are taken from; empty is anywhere.
    pub allowed: Networks,
}

/// The hub's part for webhooks.
pub(super) struct Webhooks {
    rules: WebhookRules,
    arrivals: Lane<intake::ArrivalBatch>,
    rejections: Lane<intake::RejectionBatch>,
    fates: Lane<intake::FateBatch>,
    unproved: Sampler,
    proved: Sampler,
    previous_secret: Sampler,
}

impl Webhooks {
    pub(super) fn new(store: &Store, rules: WebhookRules) -> Webhooks {
        Webhooks {
            rules,
            arrivals: store.lane(intake::ArrivalBatch),
            rejections: store.lane(intake::RejectionBatch),
            fates: store.lane(intake::FateBatch),
            unproved: Sampler::new(UNPROVED_LOGGED, Duration::from_secs(60)),
            proved: Sampler::new(PROVED_LOGGED, Duration::from_secs(60)),
            previous_secret: Sampler::new(1, Duration::from_secs(60)),
        }
    }
}

/// What a door has read of a webhook, beside what its kind is about.
pub struct Incoming {
    /// The id in its body.
    pub event_id: Option<String>,
    /// Digest of its content, when it came without a signature.
    pub content: Option<[u8; 32]>,
    /// When it says that it happened.
    pub said_at: Option<Instant>,
}

impl Hub {
    /// Judges a webhook by its bytes, before anything of it is read.
    pub fn admit_webhook(
        &self,
        event: WebhookEvent,
        ip: Option<IpAddr>,
        sent: &Sent<'_>,
        body: &Bytes,
    ) -> Result<Arc<Delivery>> {
        self.limits.check_webhook_address(ip)?;
        let rules = &self.webhooks.rules;
        let now = self.now();
        let refuse = |error: String| {
            let signature = sent.signature.first().or(sent.standard_signature.first());
            let signature = signature.map(|text| String::from_utf8_lossy(text).chars().take(255).collect());
            let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
            self.log_unproved(Rejection { event, user_id: None, payload: None, signature, ip, error, at: now });
        };
        if !rules.allowed.is_empty() && !ip.is_some_and(|ip| rules.allowed.contain(ip)) {
            refuse("the address is not in WEBHOOK_ALLOWED_IPS".to_owned());
            return Err(Error::denied(Reason::AddressNotAllowed, "webhooks are not taken from this address"));
        }
        let proof = match signature::verify(&rules.keys, sent, body, now.timestamp(), rules.tolerance) {
            Ok(proof) => proof,
            Err(Refused::Signature(why)) => {
                refuse(format!("signature: {why}"));
                // Guessing signatures counts like any call without a credential.
                self.limits.check(&Principal::Anonymous, ip)?;
                return Err(Error::unauthenticated(
                    Reason::InvalidSignature,
                    "the webhook's signature is missing or wrong",
                ));
            }
            Err(Refused::Stale(seconds)) => {
                refuse(format!("timestamp: {seconds} s behind the hub's clock, {} s are tolerated", rules.tolerance));
                return Err(Error::unauthenticated(
                    Reason::StaleTimestamp,
                    "the webhook's timestamp is too far from the hub's clock; sign it anew with the time of now",
                ));
            }
        };
        if proof.secret > 0 && self.webhooks.previous_secret.take().is_some() {
            tracing::warn!(event = event.as_str(), "a webhook was signed with WEBHOOK_SECRET_PREVIOUS");
        }
        self.limits.check_webhook_source(CREATORUP)?;
        Ok(Arc::new(Delivery { event, proof, body: body.clone() }))
    }

    /// Logs a webhook that is too large to be judged.
    ///
    /// Errors: too many come from this address.
    pub fn refuse_oversized_webhook(&self, event: WebhookEvent, ip: Option<IpAddr>, why: &str) -> Result<()> {
        self.limits.check_webhook_address(ip)?;
        let error = format!("size: {why}");
        let (user_id, payload, signature) = (None, None, None);
        let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        self.log_unproved(Rejection { event, user_id, payload, signature, ip, error, at: self.now() });
        Ok(())
    }

    /// Logs a webhook whose signature is good and whose body could not be read.
    pub async fn log_unreadable_webhook(&self, delivery: &Delivery, ip: Option<IpAddr>, why: &str) {
        let rejection = Rejection {
            event: delivery.event,
            user_id: None,
            payload: payload(delivery),
            signature: signature(delivery),
            ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
            error: format!("payload: {why}"),
            at: self.now(),
        };
        self.log_proved(rejection).await;
    }

    /// Stores that something was used, to be written into the ledger soon after.
    pub async fn handle_usage_webhook(&self, ctx: &Ctx, report: Report, incoming: Incoming) -> Result<Receipt> {
        // The id of the delivery tells batches of one name apart where its sender gave them no id of their own.
        let signed_id = delivery(ctx).and_then(|delivery| delivery.proof.id.clone());
        let report = Report { key: report.key.clone().or(signed_id), ..report };
        let standing = self.check_webhook_user(report.user_id).await;
        let task = apply::usage_task(&report)?;
        self.receive(ctx, WebhookEvent::UsageUpdate, report.user_id, incoming, task, standing).await
    }

    /// Stores that a subscription changed, to be applied soon after.
    pub async fn handle_subscription_webhook(
        &self,
        ctx: &Ctx,
        user_id: Uuid,
        update: SubscriptionUpdate,
        incoming: Incoming,
    ) -> Result<Receipt> {
        let now = self.now();
        let tolerance = Duration::from_secs(self.webhooks.rules.tolerance);
        if incoming.said_at.is_some_and(|at| at > now + tolerance) {
            return Err(Error::invalid("occurred_at", "must not lie in the future"));
        }
        let signed_at = delivery(ctx).and_then(|delivery| delivery.proof.signed_at);
        let update = SubscriptionUpdate { occurred_at: occurred_at(incoming.said_at, signed_at, now), ..update };
        let standing = match self.check_webhook_user(user_id).await {
            Ok(()) => self.plan_of_webhook(user_id, &update.plan).await.map(drop),
            refused => refused,
        };
        let task = apply::subscription_task(user_id, &update)?;
        self.receive(ctx, WebhookEvent::SubscriptionUpdate, user_id, incoming, task, standing).await
    }

    /// Stores a webhook, unless what it names is not there, as `standing` says.
    async fn receive(
        &self,
        ctx: &Ctx,
        event: WebhookEvent,
        user_id: Uuid,
        incoming: Incoming,
        task: Task,
        standing: Result<()>,
    ) -> Result<Receipt> {
        let delivery = delivery(ctx);
        let proof = delivery.map(|delivery| &delivery.proof);
        let content = proof.map(|proof| proof.content).or(incoming.content);
        let content = content.ok_or_else(|| Error::internal("a webhook without a digest"))?;
        let signed_id = proof.and_then(|proof| proof.id.as_deref());
        let arrival = Arc::new(Arrival {
            event,
            key: DeliveryKey::of(event, signed_id, incoming.event_id.as_deref(), content),
            user_id,
            payload: delivery.map_or_else(|| Some(task.work.clone()), payload),
            signature: delivery.and_then(signature),
            ip: ctx.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            task,
            at: self.now(),
        });
        let stored = match standing {
            Ok(()) => self.webhooks.arrivals.submit(arrival.clone()).await,
            Err(refused) => Err(refused),
        };
        if let Err(error @ (Error::NotFound { .. } | Error::Unprocessable { .. } | Error::Taken { .. })) = &stored {
            let rejection = Rejection {
                event,
                user_id: Some(user_id),
                payload: arrival.payload.clone(),
                signature: arrival.signature.clone(),
                ip: arrival.ip.clone(),
                error: error.to_string(),
                at: arrival.at,
            };
            self.log_proved(rejection).await;
        }
        stored
    }

    /// Whether the user a webhook names is there.
    async fn check_webhook_user(&self, user_id: Uuid) -> Result<()> {
        match self.user(user_id).await {
            Ok(_) => Ok(()),
            // Another hub may have made the user since this one last looked.
            Err(Error::NotFound { what }) => {
                let found = storage::user::find(self.store.read(), user_id).await?;
                found.ok_or(Error::NotFound { what })?;
                self.caches.users.forget(&user_id);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn log_proved(&self, rejection: Rejection) {
        let Some(rejection) = sampled(&self.webhooks.proved, rejection) else { return };
        if let Err(error) = self.webhooks.rejections.submit(rejection).await {
            tracing::warn!(%error, "a refused webhook could not be logged");
        }
    }

    /// Nobody waits for this one: how the database is must not be told by how long a wrong signature takes.
    fn log_unproved(&self, rejection: Rejection) {
        if let Some(rejection) = sampled(&self.webhooks.unproved, rejection) {
            self.webhooks.rejections.post(rejection);
        }
    }

    /// What became of a webhook of CreatorUp's; those of others are none of its business.
    pub async fn get_webhook_receipt(&self, id: Uuid) -> Result<WebhookLog> {
        let log = self.get_webhook_log(id).await?;
        if log.source == CREATORUP { Ok(log) } else { Err(Error::NotFound { what: "webhook" }) }
    }

    /// A webhook as it was logged.
    pub async fn get_webhook_log(&self, id: Uuid) -> Result<WebhookLog> {
        storage::webhook::find(self.store.read(), id).await?.ok_or(Error::NotFound { what: "webhook" })
    }

    /// A page of webhooks, newest first.
    pub async fn list_webhook_logs(&self, filter: &WebhookFilter, page: &Page) -> Result<Paged<WebhookLog>> {
        let logs = storage::webhook::list(self.store.read(), self.store.dialect(), filter, page).await?;
        Ok(page.cut(logs, |log| Place { group: String::new(), id: log.id }))
    }
}

fn delivery(ctx: &Ctx) -> Option<&Delivery> {
    match &ctx.principal {
        Principal::Webhook(delivery) => Some(delivery),
        _ => None,
    }
}

fn signature(delivery: &Delivery) -> Option<String> {
    Some(delivery.proof.signature.clone()).filter(|signature| !signature.is_empty())
}

/// The body as it is kept: without its own signature, which would be as good as the secret for this one body, and
/// without NUL, which PostgreSQL cannot keep.
fn payload(delivery: &Delivery) -> Option<JsonText> {
    let mut body: Json = serde_json::from_slice(&delivery.body).ok()?;
    body.as_object_mut()?.shift_remove("signature");
    without_nul(&mut body);
    Some(body.into())
}

fn without_nul(json: &mut Json) {
    match json {
        Json::String(text) if text.contains('\0') => *text = text.replace('\0', "\u{fffd}"),
        Json::Array(items) => items.iter_mut().for_each(without_nul),
        Json::Object(members) => {
            if members.keys().any(|name| name.contains('\0')) {
                let renamed = std::mem::take(members).into_iter();
                *members = renamed.map(|(name, value)| (name.replace('\0', "\u{fffd}"), value)).collect();
            }
            members.values_mut().for_each(without_nul);
        }
        _ => {}
    }
}

/// The rejection, when it is one of those that are logged, with how many were not since the last.
fn sampled(sampler: &Sampler, rejection: Rejection) -> Option<Rejection> {
    let error = match sampler.take()? {
        0 => rejection.error,
        more => format!("{}; {more} more were refused and not logged", rejection.error),
    };
    Some(Rejection { error, ..rejection })
}
