//! What the jobs of webhooks do. Each may run more than once: the ledger knows a batch again, a subscription that is
//! already so stays as it is, and a webhook that is processed stays processed.
//!
//! Who wins when both sides change a subscription: whoever changed it later, by the time of the change and not by that
//! of its arrival. An event from before the last change that is stored changes nothing; one of the same instant does.
//! What CreatorUp has changed is not told to it, unless a push of before may have come to it afterwards: that is, when
//! one was confirmed later than the change, or is under way while it is applied.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::super::Hub;
use crate::model::job::{Job, Outcome};
use crate::model::membership::{Plan, Subscription, SubscriptionSource, SubscriptionStatus};
use crate::model::usage::{Report, Source};
use crate::model::webhook::{CREATORUP, SubscriptionUpdate, Task, WebhookEvent, WebhookStatus};
use crate::model::{Ctx, Error, Instant, Json, JsonText, Month, Principal, Result};
use crate::storage::webhook::Fate;
use crate::storage::{self, WriteTx, audit};

/// A report on its way through the queue.
#[derive(Serialize, Deserialize)]
struct UsageWork<'a> {
    user_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    batch_name: Cow<'a, str>,
    batch_type: Cow<'a, str>,
    usage_type: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    month: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Cow<'a, Json>>,
    received_at: Instant,
}

/// A change of a subscription on its way through the queue.
#[derive(Serialize, Deserialize)]
struct SubscriptionWork<'a> {
    user_id: Uuid,
    plan: Cow<'a, str>,
    status: Cow<'a, str>,
    end_date: Option<Instant>,
    occurred_at: Instant,
}

/// What is told of a report.
#[derive(Serialize)]
struct UsageTold<'a> {
    webhook: &'static str,
    batch_name: &'a str,
    usage_type: &'a str,
    usage_amount: i32,
    work: &'a UsageWork<'a>,
}

/// What is told of a change of a subscription.
#[derive(Serialize)]
struct SubscriptionTold<'a> {
    webhook: &'static str,
    plan: &'a str,
    status: &'static str,
    end_date: Option<Instant>,
    occurred_at: Instant,
    work: &'a SubscriptionWork<'a>,
}

pub(super) fn usage_task(report: &Report) -> Result<Task> {
    let work = UsageWork {
        user_id: report.user_id,
        key: report.key.as_deref().map(Cow::Borrowed),
        batch_name: Cow::Borrowed(&report.batch_name),
        batch_type: Cow::Borrowed(&report.batch_type),
        usage_type: Cow::Borrowed(&report.usage_type),
        amount: report.amount,
        month: report.month.map(|month| Cow::Owned(month.to_string())),
        completed_at: report.completed_at,
        metadata: report.metadata.as_ref().map(Cow::Borrowed),
        received_at: report.received_at,
    };
    let told = UsageTold {
        webhook: WebhookEvent::UsageUpdate.as_str(),
        batch_name: &report.batch_name,
        usage_type: &report.usage_type,
        usage_amount: report.amount.unwrap_or(1),
        work: &work,
    };
    Ok(Task { told: JsonText::of(&told)?, work: JsonText::of(&work)? })
}

fn read_usage(job: &Job) -> Option<Report> {
    let work = UsageWork::deserialize(&job.payload).ok()?;
    Some(Report {
        user_id: work.user_id,
        key: work.key.map(Cow::into_owned),
        batch_name: work.batch_name.into_owned(),
        batch_type: work.batch_type.into_owned(),
        usage_type: work.usage_type.into_owned(),
        amount: work.amount,
        month: work.month.map(|month| Month::parse(&month).ok_or(())).transpose().ok()?,
        completed_at: work.completed_at,
        metadata: work.metadata.map(Cow::into_owned),
        source: Source::Webhook,
        received_at: work.received_at,
    })
}

pub(super) fn subscription_task(user_id: Uuid, update: &SubscriptionUpdate) -> Result<Task> {
    let SubscriptionUpdate { plan, status, end_date, occurred_at } = update;
    let (status, end_date, occurred_at) = (status.as_str(), *end_date, *occurred_at);
    let work =
        SubscriptionWork { user_id, plan: Cow::Borrowed(plan), status: Cow::Borrowed(status), end_date, occurred_at };
    let webhook = WebhookEvent::SubscriptionUpdate.as_str();
    let told = SubscriptionTold { webhook, plan, status, end_date, occurred_at, work: &work };
    Ok(Task { told: JsonText::of(&told)?, work: JsonText::of(&work)? })
}

fn read_subscription(job: &Job) -> Option<(Uuid, SubscriptionUpdate)> {
    let work = SubscriptionWork::deserialize(&job.payload).ok()?;
    let status = SubscriptionStatus::parse(&work.status)?;
    let SubscriptionWork { user_id, plan, end_date, occurred_at, .. } = work;
    Some((user_id, SubscriptionUpdate { plan: plan.into_owned(), status, end_date, occurred_at }))
}

impl Hub {
    /// Writes what a webhook reported into the ledger. Concurrent jobs share the ledger's lane, so a backlog of them is
    /// written as sets.
    pub(in crate::domain) async fn apply_usage(&self, job: &Job) -> Outcome {
        let Some(report) = read_usage(job) else { return Outcome::dead("the job holds no report") };
        let recorded = match self.record_usage(report).await {
            Ok(recorded) => recorded,
            Err(error) => return failed(error),
        };
        let response = json!({
            "usage_id": recorded.record.id,
            "outcome": recorded.outcome.as_str(),
            "month_year": recorded.record.month.to_string(),
        });
        let Some(id) = job.event_id else { return Outcome::Done(Some(response)) };
        let fate = Fate { id, status: WebhookStatus::Processed, response: Some(response.clone()), error: None };
        match self.webhooks.fates.submit((fate, self.now())).await {
            Ok(()) => Outcome::Done(Some(response)),
            Err(error) => failed(error),
        }
    }

    /// Makes a subscription what a webhook said it is.
    pub(in crate::domain) async fn apply_subscription(&self, job: &Job) -> Outcome {
        let Some((user_id, update)) = read_subscription(job) else { return Outcome::dead("the job holds no change") };
        let plan = match self.plan_of_webhook(user_id, &update.plan).await {
            Ok(plan) => plan,
            Err(error) => return failed(error),
        };
        let input = (user_id, update, plan, job.event_id, self.now(), (self.line(), self.forgetting(user_id)));
        let applied = self
            .store
            .write(input, |tx, (user_id, update, plan, event_id, now, (line, forget))| {
                Box::pin(async move {
                    storage::user::hold(tx, &[*user_id]).await?;
                    let user = storage::user::find(tx.reader(), *user_id).await?;
                    let user = user.ok_or(Error::NotFound { what: "user" })?;
                    let (new, response) = change(tx, *user_id, update, plan, *event_id, *now).await?;
                    // A push that was confirmed after the change there may have undone it.
                    if let Some(new) =
                        new.filter(|_| user.creatorup_synced_at.is_some_and(|at| update.occurred_at < at))
                    {
                        line.tell_overtaken(tx, &new, 0).await?;
                    }
                    if let Some(id) = event_id {
                        let response = Some(response.clone());
                        let fate = Fate { id: *id, status: WebhookStatus::Processed, response, error: None };
                        storage::webhook::settle(tx, &[&fate], *now).await?;
                    }
                    tx.after_commit(forget.clone().into_effect());
                    Ok(response)
                })
            })
            .await;
        match applied {
            Ok(response) => Outcome::Done(Some(response)),
            Err(error) => failed(error),
        }
    }

    /// The plan a webhook names. One that is retired can be kept and not chosen.
    pub(super) async fn plan_of_webhook(&self, user_id: Uuid, name: &str) -> Result<Plan> {
        let unknown = |description| Error::Unprocessable { field: "subscription_data.plan", description };
        let plan = match self.named_plan(None, Some(name)).await {
            Err(Error::NotFound { .. }) => return Err(unknown("names no plan of the hub")),
            found => found?,
        };
        let is_held = || async {
            Ok(self.membership(user_id).await?.is_some_and(|held| held.plan.id == plan.id)) as Result<bool>
        };
        if !plan.is_active && !is_held().await? {
            return Err(unknown("names a plan that is retired"));
        }
        Ok(plan)
    }

    /// The webhook of a job that is given up.
    pub(in crate::domain) async fn webhook_died(&self, tx: &mut WriteTx, job: &Job, error: &str) -> Result<()> {
        let Some(id) = job.event_id else { return Ok(()) };
        let fate = Fate { id, status: WebhookStatus::Failed, response: None, error: Some(error.to_owned()) };
        storage::webhook::settle(tx, &[&fate], self.now()).await
    }
}

fn failed(error: Error) -> Outcome {
    if error.is_fault() {
        tracing::warn!(%error, context = ?error, "a webhook could not be applied; it is tried again");
        return Outcome::retry(error);
    }
    Outcome::dead(error)
}

/// Changes the subscription that counts for a user; answers with it, if it is another now, and says what that was. The
/// caller holds the user's row.
async fn change(
    tx: &mut WriteTx,
    user_id: Uuid,
    update: &SubscriptionUpdate,
    plan: &Plan,
    event_id: Option<Uuid>,
    now: Instant,
) -> Result<(Option<Subscription>, Json)> {
    let held = storage::subscription::current(tx.reader(), &[user_id]).await?.remove(&user_id);
    if let Some(held) = held.as_ref().filter(|held| update.occurred_at < held.changed_at) {
        let stored = held.changed_at;
        return Ok((None, json!({ "change": "ignored", "reason": "older than what is stored", "stored": stored })));
    }
    let new = match &held {
        Some(held) if held.plan_id == plan.id => decided(held.clone(), update, now),
        _ => decided(Subscription::starting(update.occurred_at, user_id, plan.id), update, now),
    };
    let before = held
        .as_ref()
        .map(|held| json!({ "plan_id": held.plan_id, "status": held.status.as_str(), "end_date": held.end_date }));
    let changed = match held {
        Some(held) if held.id == new.id => {
            let is_same = held.status == new.status && held.end_date == new.end_date;
            storage::subscription::update(tx, &new).await?;
            if is_same && held.cancel_at_period_end == new.cancel_at_period_end { "none" } else { "updated" }
        }
        held => {
            if let Some(held) = held.filter(|held| held.status == SubscriptionStatus::Active) {
                let (status, end_date) = match held.status_at(now) {
                    SubscriptionStatus::Active => (SubscriptionStatus::Replaced, held.end_date.min(now)),
                    _ => (SubscriptionStatus::Expired, held.end_date),
                };
                storage::subscription::update(tx, &Subscription { status, end_date, updated_at: now, ..held }).await?;
            }
            storage::subscription::insert(tx, &new).await?;
            "created"
        }
    };
    if changed != "none" {
        let after = json!({ "plan_id": new.plan_id, "status": new.status.as_str(), "end_date": new.end_date });
        let entry = audit::Entry {
            action: "subscription.updated",
            target_kind: "subscription",
            target_id: new.id.to_string(),
            changes: json!({ "source": CREATORUP, "user_id": user_id, "before": before, "after": after }),
        };
        audit::insert(tx, &author(event_id), entry, now).await?;
    }
    let response = json!({
        "change": changed,
        "subscription_id": new.id,
        "plan": plan.name,
        "status": new.status.as_str(),
        "end_date": new.end_date,
    });
    Ok((Some(new).filter(|_| changed != "none"), response))
}

/// The subscription as the other side has decided.
fn decided(held: Subscription, update: &SubscriptionUpdate, now: Instant) -> Subscription {
    let is_active = update.status == SubscriptionStatus::Active;
    let end_date = update.end_date.unwrap_or_else(|| match is_active {
        true if held.status_at(now) == SubscriptionStatus::Active => held.end_date,
        true => Subscription::starting(update.occurred_at, held.user_id, held.plan_id).end_date,
        false => update.occurred_at,
    });
    Subscription {
        status: update.status,
        // A subscription does not end before it began.
        start_date: held.start_date.min(end_date),
        end_date,
        cancel_at_period_end: false,
        source: SubscriptionSource::Creatorup,
        changed_at: update.occurred_at,
        updated_at: now,
        ..held
    }
}

/// Whom the audit names: the other side, by the webhook.
fn author(event_id: Option<Uuid>) -> Ctx {
    let request_id = event_id.map(|id| id.to_string()).unwrap_or_default();
    Ctx { principal: Principal::Service, request_id: request_id.into(), ip: None, user_agent: "".into() }
}
