//! Callbacks of providers: who is believed, what is stored before they are answered, and who is told.
//!
//! The order of an arrival: the coarse limit by address, the integration, the proof over the raw bytes, the limit of the
//! integration; only then is anything of it read. What is read is stored in one transaction ([`intake`]): the key that
//! tells a repeated one, the entries in the logs, and the events for those who are told. Then it is answered; nothing is
//! called out while a provider waits.
//!
//! Guaranteed: what was answered is stored, once, however often and however many at a time it comes. Who proves nothing
//! learns nothing: a callback for an integration that does not exist is refused in the same words as one with a wrong
//! signature. Refused callbacks are logged without anything of their bodies; of many only some are.

pub mod intake;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::intake::{Arrival, ArrivalBatch, Refusal, RefusalBatch};
use super::cache::Cache;
use super::devops::DevopsLine;
use super::integration::{complain, unseal};
use super::limit::{FairSampler, Sampler};
use super::{Hub, STALENESS};
use crate::model::callback::{self as model, Callback, Outcome, PublicUrl, Reading, Refused};
use crate::model::failure::FailureClass;
use crate::model::hook::IntegrationEvent;
use crate::model::integration::{Action, Counts, Credentials, Integration, LogStatus, NewLog, Provider};
use crate::model::webhook::Receipt;
use crate::model::{Ctx, Error, Instant, Json, Principal, Reason, Result};
use crate::storage::callback::{WebhookEntry, list_active};
use crate::storage::{self, Lane, Store};

/// Refused callbacks logged a minute at most: of those that proved nothing, and of those that did.
const UNPROVED_LOGGED: u32 = 60;
const PROVED_LOGGED: u32 = 600;
/// The same of one integration, of those that proved nothing.
const UNPROVED_LOGGED_OF_ONE: NonZeroU32 = NonZeroU32::new(12).unwrap();
/// Bytes of a body at most, of any provider and at the door that Midtrans has for itself. The largest any of them sends
/// is a fraction of that, and anybody can make the hub read one.
const BODY_LIMIT: usize = 256 * 1024;
const MIDTRANS_BODY_LIMIT: usize = 64 * 1024;
/// Integrations whose keys a notification that names none is tried with: the newest. What is compared with each costs
/// about a microsecond, and anybody may ask for it.
const CANDIDATES: usize = 10_000;
/// How many of them are read at a time.
const CHUNK: usize = 500;

type Opened = (Integration, Credentials);

/// The hub's part for callbacks.
pub(super) struct Callbacks {
    public_url: PublicUrl,
    arrivals: Lane<ArrivalBatch>,
    refusals: Lane<RefusalBatch>,
    unproved: FairSampler,
    proved: Sampler,
    /// Of more candidates than are tried.
    crowded: Sampler,
    /// Integrations at Midtrans that are at work. Anybody may ask for a comparison with all of them, so they are not read
    /// anew for each.
    midtrans: Cache<(), Arc<Vec<Opened>>>,
}

impl Callbacks {
    pub(super) fn new(store: &Store, public_url: PublicUrl, devops: DevopsLine) -> Callbacks {
        Callbacks {
            public_url,
            arrivals: store.lane(ArrivalBatch { devops }),
            refusals: store.lane(RefusalBatch),
            unproved: FairSampler::new(UNPROVED_LOGGED, UNPROVED_LOGGED_OF_ONE, Duration::from_secs(60)),
            proved: Sampler::new(PROVED_LOGGED, Duration::from_secs(60)),
            crowded: Sampler::new(1, Duration::from_secs(60)),
            midtrans: Cache::new(1, STALENESS),
        }
    }
}

impl Hub {
    /// Stores a callback of an integration's provider. `token` is the secret of the path.
    pub async fn handle_provider_callback(&self, ctx: &Ctx, id: &str, token: Option<&str>) -> Result<Receipt> {
        let callback = self.look_at(ctx, BODY_LIMIT)?;
        let Ok(id) = Uuid::parse_str(id) else {
            return Err(self.refuse_unproved(ctx, None, "the path has no id of an integration"));
        };
        let Some((integration, sealed)) = storage::integration::find_sealed(self.store.read(), id).await? else {
            return Err(self.refuse_unproved(ctx, None, "there is no such integration"));
        };
        let credentials = match unseal(&self.sealer, id, &sealed) {
            Ok(credentials) => credentials,
            // The hub cannot do its part, and may soon: the provider should send it again.
            Err(why) => return Err(self.fail_to_open(ctx, id, &why)),
        };
        if !storage::partner::is_active(self.store.read(), integration.partner_id).await? {
            return Err(self.refuse_unproved(ctx, Some(&integration), "the partner is not active"));
        }
        if let Err(why) = self.prove_callback(&integration, &credentials, callback, token) {
            return Err(self.refuse_unproved(ctx, Some(&integration), why));
        }
        self.take_callback(ctx, callback, &integration).await
    }

    /// Stores a notification of Midtrans for the first integration whose key it is signed with.
    pub async fn handle_midtrans_notification(&self, ctx: &Ctx) -> Result<Receipt> {
        let callback = self.look_at(ctx, MIDTRANS_BODY_LIMIT)?;
        // Read once, however many keys it is compared with.
        let signed = match model::midtrans::Signed::of(&callback.body) {
            Ok(signed) => signed,
            Err(why) => return Err(self.refuse_unproved(ctx, None, why)),
        };
        let candidates = self.callbacks.midtrans.get_or_load_once((), || self.open_active(Provider::Midtrans)).await?;
        let proved =
            |(_, credentials): &&Opened| midtrans_key(credentials).is_some_and(|key| signed.prove(key).is_ok());
        match candidates.iter().find(proved) {
            Some((integration, _)) => self.take_callback(ctx, callback, integration).await,
            None => {
                Err(self.refuse_unproved(ctx, None, "no active integration at midtrans has the key it is signed with"))
            }
        }
    }

    /// Forgets what few refusals there were lately.
    pub(super) fn prune_callbacks(&self) {
        self.callbacks.unproved.prune();
    }

    /// Forgets which integrations a notification may belong to: one of them, or a partner, is another now.
    pub(super) fn forget_callback_candidates(&self) {
        self.callbacks.midtrans.forget(&());
    }

    /// The callback of a call, when it is small enough and its address has not proved nothing too often: nothing is
    /// done for others.
    fn look_at<'a>(&self, ctx: &'a Ctx, limit: usize) -> Result<&'a Callback> {
        let callback = callback(ctx)?;
        self.limits.check_unproved(ctx.ip)?;
        if callback.body.len() > limit {
            self.limits.count_unproved(ctx.ip)?;
            return Err(Error::invalid("body", format!("must have {limit} bytes at most")));
        }
        Ok(callback)
    }

    async fn open_active(&self, provider: Provider) -> Result<Arc<Vec<Opened>>> {
        let (mut opened, mut seen, mut before) = (Vec::new(), 0, None);
        loop {
            let listed = list_active(self.store.read(), provider, before, CHUNK).await?;
            (seen, before) = (seen + listed.len(), listed.last().map(|(integration, _)| integration.id));
            let is_last = listed.len() < CHUNK;
            // One that does not open is passed over; it says so in the log.
            opened.extend(listed.into_iter().filter_map(|(integration, sealed)| {
                match unseal(&self.sealer, integration.id, &sealed) {
                    Ok(credentials) => Some((integration, credentials)),
                    Err(why) => {
                        let said = sampled(self.callbacks.unproved.take(Some(integration.id)), &why);
                        said.into_iter().for_each(|why| complain(integration.id, &why));
                        None
                    }
                }
            }));
            if is_last {
                break;
            }
            if seen >= CANDIDATES {
                if self.callbacks.crowded.take().is_some() {
                    tracing::warn!(
                        provider = provider.as_str(),
                        tried = CANDIDATES,
                        "there are more integrations than a notification without an id is tried with; give those that \
                         are older their own callback address"
                    );
                }
                break;
            }
        }
        // The oldest first: of those with one key it is the one that had it first.
        opened.reverse();
        Ok(Arc::new(opened))
    }

    fn prove_callback(
        &self,
        integration: &Integration,
        credentials: &Credentials,
        callback: &Callback,
        token: Option<&str>,
    ) -> Result<(), Refused> {
        let secret = |name: &str| credentials.text(name).filter(|secret| !secret.is_empty());
        let signs = integration.provider.spec().proof != crate::model::integration::catalogue::CallbackProof::Path;
        if signs && token.is_some() {
            return Err("the path goes on behind the id of an integration whose provider signs");
        }
        match integration.provider {
            Provider::Midtrans => {
                let key = midtrans_key(credentials).ok_or("the integration has no serverKey")?;
                model::midtrans::prove(key, &callback.body)
            }
            Provider::Xendit => {
                model::xendit::prove(secret("callbackToken").ok_or("the integration has no callbackToken")?, callback)
            }
            Provider::Stripe => {
                let secret = secret("webhookSecret").ok_or("the integration has no webhookSecret")?;
                let header = callback.header("stripe-signature");
                model::stripe::prove(secret, header, &callback.body, self.now().timestamp())
            }
            Provider::Twilio => {
                let secret = secret("authToken").ok_or("the integration has no authToken")?;
                let url = self.callbacks.public_url.of(callback);
                model::twilio::prove(secret, &url.ok_or("PUBLIC_URL is not set, which Twilio signs")?, callback)
            }
            Provider::Wablas | Provider::Fonnte | Provider::Smtp => {
                model::prove_path(integration.callback_digest.as_deref(), token)
            }
        }
    }

    /// Reads and stores a callback that is proved.
    async fn take_callback(&self, ctx: &Ctx, callback: &Callback, integration: &Integration) -> Result<Receipt> {
        self.limits.check_callback(integration.id)?;
        let now = self.now();
        if !integration.is_active {
            self.refuse_proved(ctx, callback, integration, FailureClass::Config, "the integration is not active").await;
            return Err(Error::State { message: "the integration is not at work; activate it, and send this again" });
        }
        let reading = match model::read(integration.provider, integration.environment, callback) {
            Ok(reading) => reading,
            Err(model::Unreadable { field, description }) => {
                let why = format!("{field} {description}");
                self.refuse_proved(ctx, callback, integration, FailureClass::Garbage, &why).await;
                return Err(Error::invalid(field, description));
            }
        };
        if let Some((_, why)) = reading.doubt {
            tracing::warn!(integration_id = %integration.id, why, "a callback is kept, and nobody is told of it");
        }
        let stored = self.callbacks.arrivals.submit(arrival(ctx, callback, integration, reading, now)).await;
        match stored {
            // It was deleted a moment ago, and is as unknown as any other now.
            Err(Error::NotFound { .. }) => Err(self.refuse_unproved(ctx, None, "the integration was deleted")),
            Err(Error::Invalid { field, description }) => {
                let why = format!("{field} {description}");
                self.refuse_proved(ctx, callback, integration, FailureClass::Auth, &why).await;
                Err(Error::Invalid { field, description })
            }
            stored => stored,
        }
    }

    /// What somebody is answered who proved nothing. Nobody waits for the log: how the database is must not be told by
    /// how long a wrong signature takes.
    fn refuse_unproved(&self, ctx: &Ctx, integration: Option<&Integration>, why: &str) -> Error {
        let why = format!("proof: {why}");
        let about = integration.map(|integration| integration.id);
        if let Some(why) = sampled(self.callbacks.unproved.take(about), &why) {
            let log = integration.map(|integration| {
                let message = format!("A callback was refused: {why}");
                let log = NewLog::new(integration.id, Action::Webhook, LogStatus::Failed, message, self.now());
                NewLog { class: Some(FailureClass::Auth), counts: Counts::Unproved, ..log.by(ctx) }
            });
            let provider = integration.map(|integration| integration.provider);
            self.callbacks.refusals.post(self.refusal(ctx, provider, log, (why, false)));
        }
        // Guessing proofs counts like any call without a credential.
        match self.limits.count_unproved(ctx.ip) {
            Ok(()) => Error::unauthenticated(Reason::InvalidSignature, "the callback proves nothing"),
            Err(limited) => limited,
        }
    }

    /// What somebody is answered whom the hub cannot judge. Anybody can ask for it, so of many only some are logged.
    fn fail_to_open(&self, ctx: &Ctx, id: Uuid, cause: &str) -> Error {
        let why = "the credentials of the integration cannot be decrypted";
        if let Some(why) = sampled(self.callbacks.unproved.take(Some(id)), why) {
            complain(id, cause);
            let message = format!("A callback could not be proved: {why}");
            let log = NewLog::new(id, Action::Error, LogStatus::Failed, message, self.now());
            let log = NewLog { class: Some(FailureClass::Config), counts: Counts::Aside, ..log.by(ctx) };
            self.callbacks.refusals.post(self.refusal(ctx, None, Some(log), (why, false)));
        }
        Error::unavailable(why)
    }

    async fn refuse_proved(
        &self,
        ctx: &Ctx,
        callback: &Callback,
        integration: &Integration,
        class: FailureClass,
        why: &str,
    ) {
        let Some(why) = sampled(self.callbacks.proved.take(), why) else { return };
        let message = format!("A callback was refused: {why}");
        let log = NewLog::new(integration.id, Action::Webhook, LogStatus::Failed, message, self.now());
        let log = NewLog { class: Some(class), duration: Some(took(callback)), ..log.by(ctx) };
        let refusal = self.refusal(ctx, Some(integration.provider), Some(log), (why, true));
        if let Err(error) = self.callbacks.refusals.submit(refusal).await {
            tracing::warn!(%error, "a refused callback could not be logged");
        }
    }

    fn refusal(
        &self,
        ctx: &Ctx,
        provider: Option<Provider>,
        log: Option<NewLog>,
        (why, is_proved): (String, bool),
    ) -> Refusal {
        let id = log.as_ref().map_or_else(Uuid::now_v7, |log| log.id);
        let (payload, response) = (None, None);
        let (ip, at) = (ip(ctx), self.now());
        let webhook = WebhookEntry { id, provider, payload, response, error: Some(why), is_proved, ip, at };
        Refusal { log, webhook }
    }
}

/// The key an account at Midtrans signs with.
fn midtrans_key(credentials: &Credentials) -> Option<&str> {
    let secret = |name: &str| credentials.text(name).filter(|secret| !secret.is_empty());
    secret("signatureKey").or(secret("serverKey"))
}

/// Everything a callback causes.
fn arrival(ctx: &Ctx, callback: &Callback, integration: &Integration, reading: Reading, now: Instant) -> Arrival {
    let at = reading.occurred_at(now);
    let Reading { key, outcome, doubt, facts, claim, .. } = reading;
    let provider = integration.provider.spec().name;
    let about = facts.get("orderId").or(facts.get("messageId")).unwrap_or("").to_owned();
    let told = outcome.event().filter(|_| doubt.is_none());
    let mut request = Map::from_iter([("bytes".to_owned(), json!(callback.body.len()))]);
    request.extend(facts.members().clone());
    let message = match (doubt, told) {
        (Some((_, why)), _) => format!("{provider} called back, and nobody is told: {why}"),
        (None, Some(event)) => format!("{provider} called back: {event}"),
        (None, None) => format!("{provider} called back: {}", outcome.status().unwrap_or("nothing to tell")),
    };
    let status = if doubt.is_some() { LogStatus::Failed } else { LogStatus::Success };
    let log = NewLog::new(integration.id, Action::Webhook, status, message, now);
    let log = NewLog {
        request: Some(Value::Object(request)),
        response: told.map(|event| json!({ "event": event })),
        class: doubt.map(|(class, _)| class),
        duration: Some(took(callback)),
        ..log.by(ctx)
    };
    let transaction = outcome.log_status().filter(|_| doubt.is_none()).map(|status| {
        let message = format!("{} {about}: {}", noun(outcome), outcome.status().unwrap_or_default());
        let entry = NewLog::new(integration.id, Action::Transaction, status, message, now);
        NewLog { request: Some(Value::Object(facts.members().clone())), ..entry.by(ctx) }
    });
    let event = told.map(|name| IntegrationEvent {
        integration_id: integration.id,
        name,
        data: told_of(integration, facts.members(), at),
        at,
    });
    let webhook = WebhookEntry {
        id: log.id,
        provider: Some(integration.provider),
        payload: log.request.clone(),
        response: log.response.clone(),
        error: doubt.map(|(_, why)| why.to_owned()),
        is_proved: true,
        ip: ip(ctx),
        at: now,
    };
    Arrival { key, claim, log, transaction, event, webhook }
}

/// What webhooks are told.
fn told_of(integration: &Integration, facts: &Map<String, Json>, at: Instant) -> Json {
    let mut data = Map::from_iter([
        ("integrationId".to_owned(), json!(integration.id)),
        ("provider".to_owned(), json!(integration.provider.as_str())),
        ("environment".to_owned(), json!(integration.environment.as_str())),
    ]);
    data.extend(facts.clone());
    data.insert("occurredAt".to_owned(), json!(at));
    Value::Object(data)
}

fn noun(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::PaymentSuccess | Outcome::PaymentPending | Outcome::PaymentFailed => "Payment",
        Outcome::Refunded | Outcome::RefundFailed => "Refund of payment",
        Outcome::EmailSent | Outcome::EmailDelivered | Outcome::EmailBounced => "E-mail",
        _ => "Message",
    }
}

fn callback(ctx: &Ctx) -> Result<&Callback> {
    match &ctx.principal {
        Principal::Provider(callback) => Ok(callback),
        _ => Err(Error::internal("a callback without its bytes")),
    }
}

fn ip(ctx: &Ctx) -> String {
    ctx.ip.map(|ip| ip.to_string()).unwrap_or_default()
}

fn took(callback: &Callback) -> i32 {
    i32::try_from(callback.begun.elapsed().as_millis()).unwrap_or(i32::MAX)
}

/// Why, when it is one of those that are logged, with how many were not since the last.
fn sampled(passed_over: Option<u64>, why: &str) -> Option<String> {
    match passed_over? {
        0 => Some(why.to_owned()),
        more => Some(format!("{why}; {more} more were refused and not logged")),
    }
}
