//! What is refused: what its sender is answered, and what of it is logged.

use std::net::IpAddr;

use uuid::Uuid;

use super::arrival::took;
use super::intake::Refusal;
use crate::domain::Hub;
use crate::domain::integration::complain;
use crate::model::callback::Callback;
use crate::model::failure::FailureClass;
use crate::model::integration::{Action, Counts, Integration, LogStatus, NewLog, Provider};
use crate::model::{Ctx, Error, Reason, Result};
use crate::storage::callback::WebhookEntry;

impl Hub {
    /// What somebody is answered who proved nothing. Nobody waits for the log: how the database is must not be told by
    /// how long a wrong signature takes.
    pub(super) fn refuse_unproved(&self, ctx: &Ctx, integration: Option<&Integration>, why: &str) -> Error {
        let why = format!("proof: {why}");
        let about = integration.map(|integration| integration.id);
        if let Some(why) = sampled(self.callbacks.unproved.take(about), &why) {
            let log = integration.map(|integration| {
                let message = format!("A callback was refused: {why}");
                let log = NewLog::new(integration.id, Action::Webhook, LogStatus::Failed, message, self.now());
                NewLog { class: Some(FailureClass::Auth), counts: Counts::Unproved, ..log.by(ctx) }
            });
            let provider = integration.map(|integration| integration.provider);
            self.callbacks.refusals.post(self.refusal(ctx.ip, provider, log, (why, false)));
        }
        // Guessing proofs counts like any call without a credential.
        match self.limits.count_unproved(ctx.ip) {
            Ok(()) => Error::unauthenticated(Reason::InvalidSignature, "the callback proves nothing"),
            Err(limited) => limited,
        }
    }

    /// Logs one that is too large to be proved: it counts as one that proves nothing, and whose it is nobody has looked.
    ///
    /// Errors: too many come from this address.
    pub fn refuse_oversized_callback(&self, ip: Option<IpAddr>, why: &str) -> Result<()> {
        self.limits.check_webhook_address(ip)?;
        self.limits.check_unproved(ip)?;
        if let Some(why) = sampled(self.callbacks.unproved.take(None), &format!("size: {why}")) {
            self.callbacks.refusals.post(self.refusal(ip, None, None, (why, false)));
        }
        self.limits.count_unproved(ip)
    }

    /// What somebody is answered whom the hub cannot judge. Anybody can ask for it, so of many only some are logged.
    pub(super) fn fail_to_open(&self, ctx: &Ctx, id: Uuid, cause: &str) -> Error {
        let why = "the credentials of the integration cannot be decrypted";
        if let Some(why) = sampled(self.callbacks.unproved.take(Some(id)), why) {
            complain(id, cause);
            let message = format!("A callback could not be proved: {why}");
            let log = NewLog::new(id, Action::Error, LogStatus::Failed, message, self.now());
            let log = NewLog { class: Some(FailureClass::Config), counts: Counts::Aside, ..log.by(ctx) };
            self.callbacks.refusals.post(self.refusal(ctx.ip, None, Some(log), (why, false)));
        }
        Error::Unjudged
    }

    /// Logs one that is proved and good for nothing.
    pub(super) async fn refuse_proved(
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
        let refusal = self.refusal(ctx.ip, Some(integration.provider), Some(log), (why, true));
        if let Err(error) = self.callbacks.refusals.submit(refusal).await {
            tracing::warn!(%error, "a refused callback could not be logged");
        }
    }

    fn refusal(
        &self,
        ip: Option<IpAddr>,
        provider: Option<Provider>,
        log: Option<NewLog>,
        (why, is_proved): (String, bool),
    ) -> Refusal {
        let id = log.as_ref().map_or_else(Uuid::now_v7, |log| log.id);
        let (payload, response) = (None, None);
        let (ip, at) = (super::text_of(ip), self.now());
        let webhook = WebhookEntry { id, provider, payload, response, error: Some(why), is_proved, ip, at };
        Refusal { log, webhook }
    }
}

/// Why, when it is one of those that are logged, with how many were not since the last.
pub(super) fn sampled(passed_over: Option<u64>, why: &str) -> Option<String> {
    match passed_over? {
        0 => Some(why.to_owned()),
        more => Some(format!("{why}; {more} more were refused and not logged")),
    }
}
