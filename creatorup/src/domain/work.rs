//! What the queue's jobs are, and who does them.

use std::time::Duration;

use futures::future::BoxFuture;
use upbridge_service::model::job::{Job, Kind, KindRule, KindSpec, Kinds, Outcome};
use upbridge_service::queue::Handler;
use uuid::Uuid;

use super::CreatorUp;
use crate::model::{Error, Result};
use crate::storage::WriteTx;

/// Sends a webhook. One runs at a time per user. What waits to be tried again may be overtaken by what came later; of
/// two that say something else of the same, the `occurred_at` in them decides at the hub.
pub const WEBHOOK: Kind = Kind::new(&KindSpec {
    word: "webhook",
    rule: KindRule {
        priority: 10,
        deadline: Duration::from_secs(120),
        per_key: Some(1),
        leaves_a_slot: false,
        is_apart: false,
    },
});
/// Has a batch counted that could not be when it was created.
pub const USAGE_REPORT: Kind = Kind::new(&KindSpec {
    word: "usage_report",
    rule: KindRule {
        priority: 20,
        deadline: Duration::from_secs(120),
        per_key: None,
        leaves_a_slot: false,
        is_apart: false,
    },
});
/// Processes a batch. One of a user at a time, so that nobody waits for another's films; however many there are, they leave a slot to the others, which take moments. Each input has a time
/// limit of its own; this one is for a run that hangs all the same.
pub const VIDEO: Kind = Kind::new(&KindSpec {
    word: "video",
    rule: KindRule {
        priority: 30,
        deadline: Duration::from_secs(7 * 86_400),
        per_key: Some(1),
        leaves_a_slot: true,
        is_apart: false,
    },
});
/// All of them, in the order of importance.
pub const ALL: Kinds = &[WEBHOOK, USAGE_REPORT, VIDEO];

impl Handler for CreatorUp {
    fn run<'a>(&'a self, job: &'a Job) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            match job.kind {
                kind if kind == WEBHOOK => self.run_webhook(job).await,
                kind if kind == USAGE_REPORT => self.run_report(job).await,
                kind if kind == VIDEO => self.run_video(job).await,
                _ => Outcome::dead("a job of an unknown kind"),
            }
        })
    }

    fn died<'a>(&'a self, tx: &'a mut WriteTx, job: &'a Job, error: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match job.kind {
                kind if kind == VIDEO => self.video_died(tx, job, error).await,
                kind if kind == USAGE_REPORT => self.report_died(tx, job).await,
                kind if kind == WEBHOOK => self.webhook_died(tx, job, error).await,
                _ => Ok(()),
            }
        })
    }
}

/// An id in a job's payload.
pub(super) fn id(job: &Job, name: &str) -> Option<Uuid> {
    Uuid::parse_str(job.payload.get(name)?.as_str()?).ok()
}

/// A try that failed and may succeed later, with what only we may see.
pub(super) fn again(error: Error) -> Outcome {
    match &error {
        Error::Away { context, .. } | Error::Unavailable { context } | Error::Internal { context } => {
            Outcome::retry(format!("{error}: {context}"))
        }
        Error::Exhausted { retry_after, .. } => Outcome::Retry { error: error.to_string(), after: *retry_after },
        _ => Outcome::retry(error),
    }
}
