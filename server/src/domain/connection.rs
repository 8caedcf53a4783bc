//! Connection tests: whether an integration works, asked by an administrator or by the schedule.
//!
//! A test that fails is an answer. It is kept as the integration's last and logged, with what an allow-list lets
//! through; no transaction is open while the provider is asked. The schedule asks for the tests of those who were not
//! tested for long through the queue: a bounded number at a time, on whichever hub notices first, spread until the
//! next look, so that no provider sees them all at once.

use std::time::Duration;

use chrono::{DurationRound, TimeDelta};
use serde_json::json;
use uuid::Uuid;

use super::Hub;
use crate::model::connection::{Account, Diagnosis, Fault, FaultCode, Verdict};
use crate::model::failure::FailureClass;
use crate::model::integration::{Action, Integration, LogStatus, NewLog, Provider, TestRecord};
use crate::model::job::{Job, JobKind, NewJob, Outcome};
use crate::model::{Ctx, Error, Instant, Json, Result};
use crate::storage::{self, connection};

/// What the schedule is called where slots are taken.
const SCHEDULE: &str = "connection_tests";
/// How often it is looked whose turn it is; the tests of one look are spread over it.
const LOOK: TimeDelta = TimeDelta::minutes(5);
/// Tests of one look.
const BATCH: u64 = 200;

/// A test of an integration's connection.
#[derive(Clone, Debug)]
pub struct ConnectionTest {
    /// What was tested.
    pub integration: Integration,
    /// How it ended.
    pub status: LogStatus,
    /// What is said to the administrator.
    pub message: String,
    /// When, to the second.
    pub tested_at: Instant,
    /// What it rests on.
    pub diagnosis: Diagnosis,
}

impl ConnectionTest {
    fn new(integration: Integration, diagnosis: Diagnosis, now: Instant) -> ConnectionTest {
        let status = if diagnosis.verdict.fault.is_none() { LogStatus::Success } else { LogStatus::Failed };
        let message = diagnosis.message(integration.provider);
        let tested_at = now.duration_trunc(TimeDelta::seconds(1)).unwrap_or(now);
        ConnectionTest { integration, status, message, tested_at, diagnosis }
    }

    /// Why it failed.
    pub fn class(&self) -> Option<FailureClass> {
        self.diagnosis.verdict.fault.as_ref().map(|fault| fault.code.class())
    }

    fn record(&self) -> TestRecord {
        TestRecord {
            at: self.tested_at,
            status: self.status,
            message: self.message.clone(),
            class: self.class(),
            latency: self.diagnosis.millis(),
        }
    }

    /// What the log keeps: names and numbers, none of them a secret.
    fn log(&self, ctx: Option<&Ctx>, host: Option<&str>, now: Instant) -> NewLog {
        let Diagnosis { verdict, provider_status, .. } = &self.diagnosis;
        let Integration { id, provider, environment, .. } = &self.integration;
        let fault = verdict.fault.as_ref();
        let entry = NewLog::new(*id, Action::Test, self.status, &self.message, now);
        NewLog {
            request: Some(json!({
                "provider": provider.as_str(), "environment": environment.as_str(), "host": host,
            })),
            response: provider_status
                .map(|status| json!({ "status": status, "account": verdict.account, "warnings": verdict.warnings })),
            class: self.class(),
            error: fault.map(|fault| json!({ "code": fault.code.as_str(), "status": provider_status })),
            duration: Some(self.diagnosis.millis()),
            ..match ctx {
                Some(ctx) => entry.by(ctx),
                None => entry,
            }
        }
    }
}

impl Hub {
    /// Asks an integration's provider whether it works.
    pub async fn test_connection(&self, ctx: &Ctx, id: Uuid) -> Result<ConnectionTest> {
        let found = storage::integration::find(self.store.read(), id).await?;
        found.ok_or(Error::NotFound { what: "integration" })?;
        self.limits.check_connection_test(id)?;
        self.test_integration(Some(ctx), id).await
    }

    async fn test_integration(&self, ctx: Option<&Ctx>, id: Uuid) -> Result<ConnectionTest> {
        let (integration, host, diagnosis, is_unreadable) = match self.integration_with_credentials(id).await {
            Ok((integration, credentials)) => {
                let account = Account {
                    provider: integration.provider,
                    environment: integration.environment,
                    base_url: integration.base_url.clone(),
                    credentials,
                    now: self.now(),
                };
                let diagnosis = match self.addresses.refusal(&integration) {
                    Some(why) => led_away(integration.provider, &why),
                    None => self.providers.test(&account).await,
                };
                (integration, account.host().map(str::to_owned), diagnosis, false)
            }
            Err(Error::State { .. } | Error::Internal { .. }) => {
                let found = storage::integration::find(self.store.read(), id).await?;
                (found.ok_or(Error::NotFound { what: "integration" })?, None, unreadable(), true)
            }
            Err(error) => return Err(error),
        };
        let now = self.now();
        let test = ConnectionTest::new(integration, diagnosis, now);
        let mut logs = vec![test.log(ctx, host.as_deref(), now)];
        if is_unreadable {
            let entry = NewLog::new(id, Action::Error, LogStatus::Failed, &test.message, now);
            logs.push(NewLog { class: Some(FailureClass::Config), ..entry });
        }
        let input = (id, test.record(), logs);
        let before = self.store.write(input, |tx, (id, record, logs)| {
            Box::pin(async move {
                let before = connection::record(tx, *id, record).await?;
                if before.is_some() {
                    storage::integration_log::record(tx, logs).await?;
                }
                Ok(before)
            })
        });
        // One that was deleted while it was tested has nothing to keep it with.
        let before = before.await?.ok_or(Error::NotFound { what: "integration" })?;
        notice(&test, before);
        Ok(test)
    }

    /// Asks for the tests of integrations whose turn it is, unless another hub has.
    pub async fn schedule_connection_tests(&self, interval: Duration) -> Result<()> {
        let now = self.now();
        let slot = now.timestamp_millis() / LOOK.num_milliseconds();
        let before = now - TimeDelta::from_std(interval).unwrap_or(TimeDelta::MAX);
        self.store
            .write((slot, before, now), |tx, (slot, before, now)| {
                Box::pin(async move {
                    if !storage::job::take_slot(tx, SCHEDULE, *slot).await? {
                        return Ok(());
                    }
                    let due = connection::list_due(tx.reader(), *before, BATCH).await?;
                    let step = LOOK / (due.len().max(1) as i32);
                    for (place, id) in due.iter().enumerate() {
                        let payload = json!({ "unless_since": before });
                        let test = NewJob::new(JobKind::ConnectionTest, id.to_string(), payload, *now);
                        let run_at = (place > 0).then(|| *now + step * (place as i32));
                        // Not tried again: a provider may have seen the password already.
                        tx.enqueue(NewJob { run_at, max_retries: Some(0), ..test }.unique(id.to_string()));
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The scheduled test of an integration, if it still has to be.
    pub(super) async fn retest(&self, job: &Job) -> Outcome {
        match self.retest_due(job).await {
            Ok(answer) => Outcome::Done(answer),
            Err(Error::NotFound { .. }) => Outcome::Done(None),
            Err(error) => {
                tracing::warn!(job = %job.id, %error, context = ?error, "a connection could not be tested");
                Outcome::retry(error)
            }
        }
    }

    async fn retest_due(&self, job: &Job) -> Result<Option<Json>> {
        let Ok(id) = Uuid::parse_str(&job.key) else { return Ok(None) };
        let since = job.payload.get("unless_since").cloned().and_then(|at| serde_json::from_value::<Instant>(at).ok());
        let Some(integration) = storage::integration::find(self.store.read(), id).await? else { return Ok(None) };
        let is_tested = integration.last_test.as_ref().zip(since).is_some_and(|(last, since)| last.at >= since);
        if is_tested
            || !integration.is_active
            || !storage::partner::is_active(self.store.read(), integration.partner_id).await?
        {
            return Ok(None);
        }
        let test = self.test_integration(None, id).await?;
        Ok(Some(json!({ "status": test.status.as_str(), "class": test.class().map(FailureClass::as_str) })))
    }
}

/// The credentials do not open.
fn unreadable() -> Diagnosis {
    let hint = "the credentials cannot be decrypted; give them anew, or configure the key they are encrypted with";
    let verdict = Verdict::from(Fault::new(FaultCode::Configuration, hint));
    Diagnosis { verdict, provider_status: None, latency: Duration::ZERO }
}

/// The address is none where the credentials may be shown any more.
fn led_away(provider: Provider, why: &str) -> Diagnosis {
    let hint = format!("the base URL of {} {why}", provider.spec().name);
    let verdict = Verdict::from(Fault::new(FaultCode::BlockedTarget, hint));
    Diagnosis { verdict, provider_status: None, latency: Duration::ZERO }
}

/// Tells the operator when a connection that worked does so no more, and when it does again.
fn notice(test: &ConnectionTest, before: connection::Before) {
    let Integration { id, provider, .. } = &test.integration;
    match (before, test.status) {
        (Some(LogStatus::Success), LogStatus::Failed) => {
            let class = test.class().map(FailureClass::as_str);
            tracing::warn!(integration_id = %id, provider = provider.as_str(), class, "an integration works no more");
        }
        (Some(LogStatus::Failed), LogStatus::Success) => {
            tracing::info!(integration_id = %id, provider = provider.as_str(), "an integration works again");
        }
        _ => {}
    }
}
