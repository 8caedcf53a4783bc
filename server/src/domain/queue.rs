//! The queue as administrators see it, and what they do to it.

use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use uuid::Uuid;

use super::Hub;
use crate::model::job::{JobFilter, JobKind, JobState, JobView, Kind, NewJob, Redrive};
use crate::model::page::{Page, Paged, Place};
use crate::model::queue::{self, JobCounts, KindStats, ProcessingTime, QueueReport, QueueStats};
use crate::model::tally::{Metric, Span};
use crate::model::{Ctx, Error, Instant, Json, JsonText, Result};
use crate::storage::{self, WriteTx, tally};

/// Dead letters counted at most: the queue keeps far fewer.
const COUNTED: u64 = 100_000;

const NO_JOB: Error = Error::NotFound { what: "job" };

/// Jobs that touch nothing, for drills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// How many.
    pub count: usize,
    /// Whose turn they take.
    pub key: String,
    /// How long until they are ready.
    pub delay: Duration,
    /// How long each takes.
    pub work: Duration,
    /// How often each fails before it succeeds.
    pub failures: u32,
    /// Tries after the first; what the hub is configured with when absent.
    pub max_retries: Option<i32>,
}

impl Hub {
    /// The queue in numbers. What it costs does not depend on how much waits or ever was done.
    pub async fn queue_stats(&self) -> Result<QueueStats> {
        let (store, now) = (&self.store, self.now());
        let (read, dialect, all) = (store.read(), store.dialect(), store.kinds());
        let sums = tally::sums(read, dialect, (Metric::Jobs, Span::Total), (0, 1), false).await?;
        let since = Span::Hour.start(now - TimeDelta::hours(1));
        let times = tally::sums(read, dialect, (Metric::JobTimes, Span::Hour), (since, i64::MAX), false).await?;
        let paused = storage::job::paused(read, dialect, all).await?;
        let kind = |kind: &Kind| KindStats {
            kind: *kind,
            counts: JobCounts::of(*kind, &sums),
            paused_since: paused.iter().find(|(paused, _)| paused == kind).map(|(_, since)| *since),
        };
        let kinds: Vec<KindStats> = all.iter().map(kind).collect();
        Ok(QueueStats {
            as_of: now,
            counts: kinds.iter().map(|kind| kind.counts).sum(),
            dead: storage::job::count_dead(read, dialect, COUNTED).await?,
            oldest_ready: storage::job::oldest_ready(read, dialect, all).await?,
            processing_time: ProcessingTime::of(&times),
            kinds,
        })
    }

    /// The queue in more detail: by kind, with workers and the times of a day.
    pub async fn queue_report(&self) -> Result<QueueReport> {
        let (read, dialect, all) = (self.store.read(), self.store.dialect(), self.store.kinds());
        let stats = self.queue_stats().await?;
        let since = Span::Hour.start(stats.as_of - TimeDelta::hours(24));
        let times = tally::sums(read, dialect, (Metric::JobTimes, Span::Hour), (since, i64::MAX), false).await?;
        let of_kind = |kind: &Kind| ProcessingTime::of(&queue::of_kind(*kind, &times));
        let dead = storage::job::dead_by_kind(read, dialect, all).await?;
        let dead_of = |kind: &Kind| dead.iter().find(|(dead, _)| dead == kind).map_or(0, |(_, count)| *count);
        Ok(QueueReport {
            times: (ProcessingTime::of(&times), all.iter().map(of_kind).collect()),
            dead: all.iter().map(dead_of).collect(),
            workers: storage::job::workers(read, dialect).await?,
            backend: dialect.name(),
            bytes: storage::status::queue_bytes(read, dialect).await?,
            stats,
        })
    }

    /// A page of jobs, newest first.
    pub async fn list_jobs(&self, filter: JobFilter, page: &Page) -> Result<Paged<JobView>> {
        let filter = JobFilter { before: page.after.as_ref().map(|place| place.id), ..filter };
        let most = u64::from(page.size) + 1;
        let jobs =
            storage::job::list(self.store.read(), self.store.dialect(), self.store.kinds(), &filter, most).await?;
        Ok(page.cut(jobs, |view| Place { group: String::new(), id: view.job.id }))
    }

    /// One job.
    pub async fn get_job(&self, id: Uuid) -> Result<JobView> {
        self.find_job(id).await?.ok_or(NO_JOB)
    }

    async fn find_job(&self, id: Uuid) -> Result<Option<JobView>> {
        storage::job::find(self.store.read(), self.store.dialect(), self.store.kinds(), id).await
    }

    /// Tries a scheduled job at once, or a dead letter anew; answers with the id it is tried under, and the job
    /// unless another of its unique key does its work.
    pub async fn retry_job(&self, ctx: &Ctx, id: Uuid) -> Result<(Uuid, Option<JobView>)> {
        let input = (ctx.clone(), id, self.now());
        let tried = self.store.write(input, |tx, (ctx, id, now)| {
            Box::pin(async move {
                let found = storage::job::find(tx.reader(), tx.dialect(), tx.kinds(), *id).await?.ok_or(NO_JOB)?;
                let tried = match found.state {
                    JobState::Scheduled => storage::job::retry_now(tx, *id, *now).await?.then_some(*id),
                    JobState::Dead => {
                        let which = Redrive { id: Some(*id), most: 1, ..Redrive::default() };
                        let redriven = storage::job::redrive(tx, &which, Duration::ZERO, *now).await?;
                        redriven.first().map(|(_, again)| *again)
                    }
                    _ => None,
                };
                let tried = tried
                    .ok_or(Error::State { message: "only a scheduled job or a dead letter can be tried again" })?;
                audit(
                    tx,
                    ctx,
                    ("job.retried", "job", id.to_string()),
                    json!({ "kind": found.job.kind.as_str(), "tried_as": tried }),
                    *now,
                )
                .await?;
                Ok(tried)
            })
        });
        let tried = tried.await?;
        Ok((tried, self.find_job(tried).await?))
    }

    /// Calls a job off that is not over; the job as it is then.
    pub async fn cancel_job(&self, ctx: &Ctx, id: Uuid) -> Result<JobView> {
        let input = (ctx.clone(), id, self.now());
        let cancelled = self.store.write(input, |tx, (ctx, id, now)| {
            Box::pin(async move {
                let Some(job) = storage::job::cancel(tx, *id, *now).await? else {
                    storage::job::find(tx.reader(), tx.dialect(), tx.kinds(), *id).await?.ok_or(NO_JOB)?;
                    return Err(Error::State { message: "the job is over and cannot be called off" });
                };
                audit(
                    tx,
                    ctx,
                    ("job.cancelled", "job", id.to_string()),
                    json!({ "kind": job.kind.as_str(), "key": job.key }),
                    *now,
                )
                .await?;
                let view = storage::job::find(tx.reader(), tx.dialect(), tx.kinds(), *id).await?;
                view.ok_or_else(|| Error::internal("a cancelled job is not among the finished"))
            })
        });
        cancelled.await
    }

    /// Stops claims of a kind, on every hub; false when they were stopped before.
    pub async fn pause_kind(&self, ctx: &Ctx, kind: JobKind) -> Result<bool> {
        let input = (ctx.clone(), kind, self.now());
        let paused = self.store.write(input, |tx, (ctx, kind, now)| {
            Box::pin(async move {
                let changed = storage::job::pause(tx, *kind, *now).await?;
                if changed {
                    audit(tx, ctx, ("queue.paused", "job_kind", kind.as_str().to_owned()), json!({}), *now).await?;
                }
                Ok(changed)
            })
        });
        paused.await
    }

    /// Lets claims of a kind go on; false when they were not stopped.
    pub async fn resume_kind(&self, ctx: &Ctx, kind: JobKind) -> Result<bool> {
        let input = (ctx.clone(), kind, self.now());
        let resumed = self.store.write(input, |tx, (ctx, kind, now)| {
            Box::pin(async move {
                let changed = storage::job::resume(tx, *kind).await?;
                if changed {
                    audit(tx, ctx, ("queue.resumed", "job_kind", kind.as_str().to_owned()), json!({}), *now).await?;
                }
                Ok(changed)
            })
        });
        resumed.await
    }

    /// Enqueues dead letters anew, `per_second` at most becoming ready in a second; answers with each letter's id and
    /// the id it is tried under.
    pub async fn redrive_dead_letters(
        &self,
        ctx: &Ctx,
        which: Redrive,
        per_second: Option<u32>,
    ) -> Result<Vec<(Uuid, Uuid)>> {
        let spread = per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        let input = (ctx.clone(), which, spread, self.now());
        let redriven = self.store.write(input, |tx, (ctx, which, spread, now)| {
            Box::pin(async move {
                let redriven = storage::job::redrive(tx, which, *spread, *now).await?;
                let ids: Vec<(Uuid, Uuid)> = redriven.iter().map(|(letter, again)| (letter.id, *again)).collect();
                if !ids.is_empty() {
                    let changes = json!({
                        "redriven": ids.len(), "id": which.id, "kind": which.kind.map(Kind::as_str), "key": which.key,
                    });
                    audit(tx, ctx, ("queue.redriven", "dead_letters", String::new()), changes, *now).await?;
                }
                Ok(ids)
            })
        });
        redriven.await
    }

    /// Asks the queue's store for a sign of life; answers with its name and how long it took.
    pub async fn ping_queue(&self) -> Result<(&'static str, Duration)> {
        Ok((self.store.dialect().name(), self.store.ping().await?))
    }

    /// Enqueues jobs that touch nothing.
    pub async fn enqueue_probe(&self, ctx: &Ctx, drill: Drill) -> Result<Vec<Uuid>> {
        let now = self.now();
        let run_at = (!drill.delay.is_zero()).then(|| now + drill.delay);
        let payload = JsonText::from(json!({ "millis": drill.work.as_millis() as u64, "fails": drill.failures }));
        let probe = || NewJob {
            run_at,
            max_retries: drill.max_retries,
            ..NewJob::new(JobKind::Probe, drill.key.clone(), payload.clone(), now)
        };
        let jobs: Vec<NewJob> = (0..drill.count).map(|_| probe()).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        let enqueued = self.store.write((ctx.clone(), jobs, now), |tx, (ctx, jobs, now)| {
            Box::pin(async move {
                jobs.iter().for_each(|job| tx.enqueue(job.clone()));
                audit(
                    tx,
                    ctx,
                    ("queue.probed", "job_kind", JobKind::Probe.as_str().to_owned()),
                    json!({ "jobs": jobs.len() }),
                    *now,
                )
                .await
            })
        });
        enqueued.await?;
        Ok(ids)
    }
}

async fn audit(
    tx: &mut WriteTx,
    ctx: &Ctx,
    (action, target_kind, target_id): (&'static str, &'static str, String),
    changes: Json,
    now: Instant,
) -> Result<()> {
    storage::audit::insert(tx, ctx, storage::audit::Entry { action, target_kind, target_id, changes }, now).await
}
