//! What a callback that is proved and read causes: its entries in the logs, and what webhooks are told.

use serde_json::{Map, Value, json};

use super::intake::Arrival;
use crate::model::callback::{Callback, Outcome, Reading};
use crate::model::failure::FailureClass;
use crate::model::hook::IntegrationEvent;
use crate::model::integration::{Action, Integration, LogStatus, NewLog};
use crate::model::{Ctx, Instant, Json};
use crate::storage::callback::WebhookEntry;

/// Everything a callback causes.
pub(super) fn arrival(
    ctx: &Ctx,
    callback: &Callback,
    integration: &Integration,
    reading: Reading,
    now: Instant,
) -> Arrival {
    let at = reading.occurred_at(now);
    let Reading { key, outcome, doubt, facts, claim, .. } = reading;
    let provider = integration.provider.spec().name;
    let about = facts.get("orderId").or(facts.get("messageId")).unwrap_or("").to_owned();
    let told = outcome.event();
    let mut request = Map::from_iter([("bytes".to_owned(), json!(callback.body.len()))]);
    request.extend(facts.members().clone());
    let what = told.or(outcome.status()).unwrap_or("nothing to tell");
    let message = format!("{provider} called back: {what}");
    let log = NewLog::new(integration.id, Action::Webhook, LogStatus::Success, message, now);
    let log = NewLog {
        request: Some(Value::Object(request)),
        response: told.map(|event| json!({ "event": event })),
        duration: Some(took(callback)),
        ..log.by(ctx)
    };
    let transaction = outcome.log_status().map(|status| {
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
        error: None,
        is_proved: true,
        ip: super::text_of(ctx.ip),
        at: now,
    };
    let sure = Arrival { key, claim, log, transaction, event, webhook };
    match doubt {
        Some((class, why)) => sure.doubted(class, why),
        None => sure,
    }
}

impl Arrival {
    /// The same, kept and told nobody.
    pub(super) fn doubted(self, class: FailureClass, why: &str) -> Arrival {
        let provider = self.webhook.provider.map_or("somebody", |provider| provider.spec().name);
        let message = format!("{provider} called back, and nobody is told: {why}");
        let log = NewLog { status: LogStatus::Failed, message, response: None, class: Some(class), ..self.log };
        let webhook = WebhookEntry { response: None, error: Some(why.to_owned()), ..self.webhook };
        Arrival { log, transaction: None, event: None, webhook, ..self }
    }
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

/// How long the hub has been at it, in milliseconds.
pub(super) fn took(callback: &Callback) -> i32 {
    i32::try_from(callback.begun.elapsed().as_millis()).unwrap_or(i32::MAX)
}
