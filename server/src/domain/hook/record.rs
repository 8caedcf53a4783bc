//! How tries ended, recorded as sets: the deliveries, a log entry for each try, and how their webhooks stand.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use uuid::Uuid;

use super::job_now;
use crate::model::failure::FailureClass;
use crate::model::hook::breaker::Breaker;
use crate::model::hook::{Answer, DeliveryStatus, Hook};
use crate::model::integration::{Action, Counts, LogStatus, NewLog};
use crate::model::{Instant, Result};
use crate::storage::hook::Standing;
use crate::storage::hook_delivery::{Due, Tried};
use crate::storage::{self, Batch, WriteTx};

/// What a receiver says that wants to be told no more.
const GONE: u16 = 410;

/// A try that is over.
#[derive(Clone, Debug)]
pub(super) struct Try {
    tried: Tried,
    log: NewLog,
    webhook_id: Uuid,
    generation: i32,
    is_test: bool,
    is_success: bool,
    is_gone: bool,
    /// When it began.
    began_at: Instant,
}

impl Try {
    /// What became of a try of a delivery to a webhook.
    pub fn new(hook: &Hook, due: &Due, answer: Answer, began_at: Instant, took: Duration, now: Instant) -> Try {
        let tries = due.attempts - due.attempts_before + 1;
        let is_gone = answer.status == Some(GONE);
        let is_last = due.is_test || tries >= hook.retry_attempts || is_gone;
        let class = answer.failure.as_ref().map(|failure| failure.class);
        let (status, next_attempt_at) = match &answer.failure {
            None => (DeliveryStatus::Success, None),
            Some(failure) if is_last || failure.is_permanent => (DeliveryStatus::Failed, None),
            Some(failure) => {
                let wait = hook.wait(tries, failure.retry_after, rand::random());
                (DeliveryStatus::Pending, Some(now + wait))
            }
        };
        let response_status = answer.status.map(i32::from);
        let error_class = class.map(FailureClass::as_str);
        let attempts = due.attempts;
        let tried = Tried { id: due.id, attempts, status, next_attempt_at, response_status, error_class, at: now };
        let log = log(hook, due, &answer, (status, next_attempt_at), took, now);
        let is_success = answer.failure.is_none();
        let (webhook_id, generation) = (hook.id, hook.generation);
        Try { tried, log, webhook_id, generation, is_test: due.is_test, is_success, is_gone, began_at }
    }

    /// The delivery.
    pub fn id(&self) -> Uuid {
        self.tried.id
    }

    /// Whom it was sent to.
    pub fn webhook_id(&self) -> Uuid {
        self.webhook_id
    }

    /// Notes it at its webhook.
    fn note(&self, standing: &mut Standing, disable_after: i32) {
        let now = self.tried.at;
        if standing.generation != self.generation {
            // It was sent elsewhere, or before somebody made the webhook active: that says nothing of it as it is now.
            return;
        }
        standing.last_triggered_at = standing.last_triggered_at.max(Some(self.began_at));
        standing.last_status = Some(if self.is_success { LogStatus::Success } else { LogStatus::Failed });
        standing.breaker.note(self.is_success, now);
        match self.tried.status {
            DeliveryStatus::Success => standing.failure_count = 0,
            DeliveryStatus::Failed => standing.failure_count = standing.failure_count.saturating_add(1),
            DeliveryStatus::Pending | DeliveryStatus::Held => {}
        }
        let reason = match () {
            () if !standing.is_active => return,
            () if self.is_gone => "the receiver answered 410 Gone".to_owned(),
            () if standing.failure_count >= disable_after => {
                format!("{} deliveries in a row failed for good", standing.failure_count)
            }
            () => return,
        };
        standing.is_active = false;
        standing.disabled = Some((now, reason));
    }
}

/// The entry of a try.
fn log(
    hook: &Hook,
    due: &Due,
    answer: &Answer,
    (status, next): (DeliveryStatus, Option<Instant>),
    took: Duration,
    now: Instant,
) -> NewLog {
    let attempt = due.attempts + 1;
    let (outcome, message) = match &answer.failure {
        None => (LogStatus::Success, format!("{} was received by the webhook", due.event)),
        Some(failure) => {
            let what_now = match (status, next) {
                (DeliveryStatus::Pending, Some(next)) => format!("it is tried again at {}", next.format("%FT%TZ")),
                _ => "it was given up".to_owned(),
            };
            (
                LogStatus::Failed,
                format!("{} was not received by the webhook: {}; {what_now}", due.event, failure.message),
            )
        }
    };
    let response = json!({
        "status": answer.status,
        "body": answer.body,
        "remoteAddress": answer.remote.map(|address| address.to_string()),
    });
    NewLog {
        request: Some(json!({
            "webhookId": hook.id,
            "deliveryId": due.id,
            "event": due.event,
            "attempt": attempt,
            "url": origin(&hook.url),
        })),
        response: Some(without_nulls(response)),
        class: answer.failure.as_ref().map(|failure| failure.class),
        // What took less than a millisecond took some time all the same.
        duration: Some(i32::try_from(took.as_millis()).unwrap_or(i32::MAX).max(1)),
        delivery_id: Some(due.id),
        counts: if due.is_test { Counts::Aside } else { Counts::Request },
        ..NewLog::new(hook.integration_id, Action::Webhook, outcome, message, now)
    }
}

/// Scheme, host and port of an address: receivers keep secrets in the path as well as in the query.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    &url[..end]
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
    }
    value
}

/// What a slice learns from a try that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Whether the webhook is told anything.
    pub is_active: bool,
    /// Whether trying makes sense.
    pub breaker: Breaker,
    /// Which tries count.
    pub generation: i32,
}

/// The lane of tries.
pub(super) struct TryBatch {
    /// Deliveries in a row that fail for good until a webhook is disabled.
    pub disable_after: i32,
}

impl Batch for TryBatch {
    type Item = Arc<Try>;
    /// Nothing for a try that was not believed, or that counts for nothing.
    type Answer = Option<Learnt>;

    fn apply<'a>(
        &'a self,
        tx: &'a mut WriteTx,
        items: &'a [&'a Arc<Try>],
    ) -> BoxFuture<'a, Result<Vec<Result<Option<Learnt>>>>> {
        Box::pin(async move {
            let tries: Vec<&Tried> = items.iter().map(|item| &item.tried).collect();
            let believed = storage::hook_delivery::settle(tx, &tries).await?;
            let mut first = HashSet::with_capacity(items.len());
            let believed: Vec<&&Arc<Try>> =
                items.iter().filter(|item| believed.contains(&item.id()) && first.insert(item.id())).collect();
            let mut logs: Vec<NewLog> = believed.iter().map(|item| item.log.clone()).collect();
            let counted: Vec<&&Arc<Try>> = believed.into_iter().filter(|item| !item.is_test).collect();
            let ids: BTreeSet<Uuid> = counted.iter().map(|item| item.webhook_id).collect();
            let mut standings: BTreeMap<Uuid, Standing> = match ids.is_empty() {
                true => BTreeMap::new(),
                false => {
                    let standings = storage::hook::standings(tx, &ids).await?;
                    standings.into_iter().map(|standing| (standing.id, standing)).collect()
                }
            };
            let was_active: BTreeSet<Uuid> =
                standings.values().filter(|standing| standing.is_active).map(|standing| standing.id).collect();
            for item in &counted {
                if let Some(standing) = standings.get_mut(&item.webhook_id) {
                    item.note(standing, self.disable_after);
                }
            }
            let stood: Vec<Standing> = standings.values().cloned().collect();
            storage::hook::save(tx, &stood).await?;
            for standing in stood.iter().filter(|one| !one.is_active && was_active.contains(&one.id)) {
                logs.push(disabled(tx, standing));
            }
            storage::integration_log::record(tx, &logs).await?;
            let learnt = |item: &&Arc<Try>| {
                let standing = standings.get(&item.webhook_id).filter(|_| !item.is_test)?;
                Some(Learnt {
                    is_active: standing.is_active,
                    breaker: standing.breaker,
                    generation: standing.generation,
                })
            };
            Ok(items.iter().map(|item| Ok(learnt(item))).collect())
        })
    }
}

/// Says that the hub has disabled a webhook: once, in the log of the integration and in that of the hub. What waits for
/// it is held by its next job.
fn disabled(tx: &mut WriteTx, standing: &Standing) -> NewLog {
    let (at, reason) = standing.disabled.clone().unwrap_or_default();
    let (webhook_id, integration_id) = (standing.id, standing.integration_id);
    tx.enqueue(job_now(webhook_id, at));
    let said = reason.clone();
    tx.after_commit(move || {
        tracing::warn!(%webhook_id, %integration_id, reason = said, "a webhook was disabled; its events are held");
    });
    let message = format!(
        "The webhook was disabled: {reason}. Its events are held until it is made active and they are replayed"
    );
    NewLog {
        request: Some(json!({ "webhookId": webhook_id, "changed": ["isActive"] })),
        ..NewLog::new(integration_id, Action::ConfigChange, LogStatus::Failed, message, at)
    }
}
