//! What the queue's jobs do: one arm per kind, each a function of its noun.

use std::time::Duration;

use futures::future::BoxFuture;

use super::Hub;
use crate::model::Result;
use crate::model::job::{Job, JobKind, Outcome};
use crate::queue::Handler;
use crate::storage::WriteTx;

impl Handler for Hub {
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match JobKind::of(job.kind) {
                Some(JobKind::SubscriptionSync) => self.apply_subscription(job).await,
                Some(JobKind::UserSync) => self.push_user(job).await,
                Some(JobKind::UsageSync) => self.apply_usage(job).await,
                Some(JobKind::UserSweep) => self.sweep_users(job).await,
                Some(JobKind::Cleanup) => self.clean_up(job).await,
                Some(JobKind::Probe) => probe(job).await,
                Some(JobKind::ConnectionTest) => self.retest(job).await,
                Some(JobKind::WebhookDelivery) => self.tell_webhook(job).await,
                Some(JobKind::DevopsNotice) => self.tell_devops(job).await,
                // The store reads no other kind.
                None => Outcome::dead("the hub does no such jobs"),
            }
        })
    }

    fn died<'a>(&'a self, tx: &'a mut WriteTx, job: &'a Job, error: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match JobKind::of(job.kind) {
                Some(JobKind::SubscriptionSync | JobKind::UsageSync) => self.webhook_died(tx, job, error).await,
                Some(JobKind::UserSync) => self.push_died(tx, job, error).await,
                Some(JobKind::WebhookDelivery) => {
                    self.webhook_job_died(tx, &job.key);
                    Ok(())
                }
                // Nobody waits for these: the next one does their work, or there is nothing that stands and falls with them.
                Some(
                    JobKind::UserSweep
                    | JobKind::Cleanup
                    | JobKind::Probe
                    | JobKind::ConnectionTest
                    | JobKind::DevopsNotice,
                )
                | None => Ok(()),
            }
        })
    }
}

/// A drill: takes `millis`, and while it has failed fewer than `fails` times it fails once more, by a panic when
/// `panics`.
async fn probe(job: &Job) -> Outcome {
    let number = |name: &str| job.payload.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    if number("millis") > 0 {
        tokio::time::sleep(Duration::from_millis(number("millis"))).await;
    }
    if (job.attempts as u64) < number("fails") {
        if job.payload.get("panics").is_some_and(|panics| panics == true) {
            panic!("a drill was told to panic");
        }
        return Outcome::retry("a drill was told to fail");
    }
    Outcome::Done(None)
}
