//! QueueService.

use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status};
use upbridge_proto::v1::queue_service_server::QueueService;
use upbridge_proto::v1::{self, *};

use super::convert::number;
use super::{Door, convert, status};
use crate::domain::monitor::Sighting;
use crate::domain::queue::Drill;
use crate::model::job as model;
use crate::model::page::Page;
use crate::model::queue::{JobCounts, ProcessingTime, QueueReport, Worker};
use crate::model::transition::TransitionFilter;
use crate::model::{Instant, Json};

/// Dead letters that are driven again when nobody says how many.
const REDRIVEN: i32 = 1_000;
/// Ids of driven dead letters in an answer, at most.
const REDRIVEN_SHOWN: usize = 1_000;

#[tonic::async_trait]
impl QueueService for Door {
    async fn get_queue_stats(
        &self,
        request: Request<GetQueueStatsRequest>,
    ) -> Result<Response<GetQueueStatsResponse>, Status> {
        convert::open(request)?;
        let report = self.hub.queue_report().await.map_err(status)?;
        Ok(Response::new(stats(report)))
    }

    async fn list_jobs(&self, request: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let state = message.state.and_then(|number| convert::value(model::JobState::ALL, number));
        let filter = model::JobFilter {
            state,
            kind: message.kind.and_then(kind).map(Into::into),
            key: message.key,
            before: None,
        };
        let bound = format!("jobs {filter:?}");
        let page = Page::parse(message.page_size, message.page_token.as_deref(), &bound).map_err(status)?;
        let listed = self.hub.list_jobs(filter, &page).await.map_err(status)?;
        let jobs = listed.items.iter().map(summary).collect();
        Ok(Response::new(ListJobsResponse { jobs, next_page_token: listed.next }))
    }

    async fn get_job(&self, request: Request<GetJobRequest>) -> Result<Response<GetJobResponse>, Status> {
        let (_, message) = convert::open(request)?;
        let id = convert::uuid(&message.job_id, "job_id").map_err(status)?;
        let found = self.hub.get_job(id).await.map_err(status)?;
        Ok(Response::new(GetJobResponse { job: Some(job(&found)) }))
    }

    async fn retry_job(&self, request: Request<RetryJobRequest>) -> Result<Response<RetryJobResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.job_id, "job_id").map_err(status)?;
        let (tried, found) = self.hub.retry_job(&ctx, id).await.map_err(status)?;
        Ok(Response::new(RetryJobResponse { job_id: tried.to_string(), job: found.as_ref().map(job) }))
    }

    async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Result<Response<CancelJobResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let id = convert::uuid(&message.job_id, "job_id").map_err(status)?;
        let cancelled = self.hub.cancel_job(&ctx, id).await.map_err(status)?;
        Ok(Response::new(CancelJobResponse { job: Some(job(&cancelled)) }))
    }

    async fn pause_kind(&self, request: Request<PauseKindRequest>) -> Result<Response<PauseKindResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let kind = convert::known(model::JobKind::ALL, message.kind, "kind").map_err(status)?;
        let changed = self.hub.pause_kind(&ctx, kind).await.map_err(status)?;
        Ok(Response::new(PauseKindResponse { changed }))
    }

    async fn resume_kind(&self, request: Request<ResumeKindRequest>) -> Result<Response<ResumeKindResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let kind = convert::known(model::JobKind::ALL, message.kind, "kind").map_err(status)?;
        let changed = self.hub.resume_kind(&ctx, kind).await.map_err(status)?;
        Ok(Response::new(ResumeKindResponse { changed }))
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> Result<Response<RedriveDeadLettersResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let which = model::Redrive {
            id: convert::uuid_or_none(message.job_id.as_deref(), "job_id").map_err(status)?,
            kind: message.kind.and_then(kind).map(Into::into),
            key: message.key,
            most: message.max.unwrap_or(REDRIVEN).max(0) as u64,
        };
        let rate = message.per_second.map(i32::unsigned_abs);
        let redriven = self.hub.redrive_dead_letters(&ctx, which, rate).await.map_err(status)?;
        let shown = redriven.iter().take(REDRIVEN_SHOWN);
        let jobs = shown.map(|(letter, again)| Redriven { dead_job_id: letter.to_string(), job_id: again.to_string() });
        Ok(Response::new(RedriveDeadLettersResponse { jobs: jobs.collect(), redriven: redriven.len() as i64 }))
    }

    async fn enqueue_probe(
        &self,
        request: Request<EnqueueProbeRequest>,
    ) -> Result<Response<EnqueueProbeResponse>, Status> {
        let (ctx, message) = convert::open(request)?;
        let millis = |value: Option<i64>| Duration::from_millis(value.unwrap_or(0).max(0) as u64);
        let drill = Drill {
            count: message.count.unwrap_or(1).max(0) as usize,
            key: message.key.unwrap_or_else(|| "probe".to_owned()),
            delay: millis(message.delay_ms),
            work: millis(message.work_ms),
            failures: message.failures.unwrap_or(0).unsigned_abs(),
            max_retries: message.max_retries,
        };
        let ids = self.hub.enqueue_probe(&ctx, drill).await.map_err(status)?;
        Ok(Response::new(EnqueueProbeResponse { job_ids: ids.iter().map(ToString::to_string).collect() }))
    }

    async fn ping_queue(&self, request: Request<PingQueueRequest>) -> Result<Response<PingQueueResponse>, Status> {
        convert::open(request)?;
        let (backend, took) = self.hub.ping_queue().await.map_err(status)?;
        Ok(Response::new(PingQueueResponse {
            answer: "PONG".to_owned(),
            backend: backend.to_owned(),
            round_trip_us: took.as_micros() as i64,
        }))
    }

    type MonitorQueueStream = BoxStream<'static, Result<MonitorQueueResponse, Status>>;

    async fn monitor_queue(
        &self,
        request: Request<MonitorQueueRequest>,
    ) -> Result<Response<Self::MonitorQueueStream>, Status> {
        let (ctx, message) = convert::open(request)?;
        let filter = TransitionFilter {
            id: convert::uuid_or_none(message.job_id.as_deref(), "job_id").map_err(status)?,
            kind: message.kind.and_then(kind).map(Into::into),
            key: message.key,
        };
        let monitor = self.hub.monitor_queue(ctx, filter).map_err(status)?;
        let sightings = stream::unfold(monitor, |mut monitor| async move {
            let sighting = monitor.next().await?;
            Some((sighting.map(seen).map_err(status), monitor))
        });
        Ok(Response::new(sightings.boxed()))
    }
}

/// The contract's number of a kind; 0 for what the hub never enqueues.
fn kind_number(kind: model::Kind) -> i32 {
    model::JobKind::of(kind).map_or(0, |kind| number!(kind))
}

fn kind(number: i32) -> Option<model::JobKind> {
    convert::value(model::JobKind::ALL, number)
}

fn seen(sighting: Sighting) -> MonitorQueueResponse {
    let transition = sighting.transition.map(|(at, transition)| JobTransition {
        at: Some(convert::timestamp(at)),
        step: number!(transition.step),
        job_id: transition.id.to_string(),
        kind: kind_number(transition.kind),
        key: transition.key,
        attempts: transition.attempts,
        lease: transition.lease,
        worker_id: transition.worker_id.map(|id| id.to_string()),
        error: transition.error,
    });
    MonitorQueueResponse { transition, missed: sighting.missed as i64 }
}

fn stats(report: QueueReport) -> GetQueueStatsResponse {
    let QueueReport { stats, times: (time, times), dead, workers, backend, bytes } = report;
    let age = stats.oldest_ready_age().unwrap_or_default();
    let kinds = stats.kinds.iter().zip(times).zip(&dead).map(|((kind, time), dead)| KindStats {
        kind: kind_number(kind.kind),
        counts: Some(counts(&kind.counts, *dead)),
        paused_since: kind.paused_since.map(convert::timestamp),
        processing_time: Some(processing_time(time)),
    });
    let paused = stats.kinds.iter().filter(|kind| kind.paused_since.is_some());
    GetQueueStatsResponse {
        as_of: Some(convert::timestamp(stats.as_of)),
        total: Some(counts(&stats.counts, dead.iter().sum())),
        kinds: kinds.collect(),
        oldest_ready_at: stats.oldest_ready.map(convert::timestamp),
        oldest_ready_age_ms: age.as_millis() as i64,
        processing_time: Some(processing_time(time)),
        paused_kinds: paused.map(|kind| kind_number(kind.kind)).collect(),
        workers: workers.into_iter().map(worker).collect(),
        backend: backend.to_owned(),
        store_bytes: bytes,
    }
}

fn counts(counts: &JobCounts, dead: i64) -> v1::JobCounts {
    v1::JobCounts {
        waiting: counts.waiting,
        active: counts.active,
        delayed: counts.delayed,
        held: counts.held,
        completed: counts.completed,
        failed: counts.failed,
        cancelled: counts.cancelled,
        dead,
    }
}

fn processing_time(time: Option<ProcessingTime>) -> v1::ProcessingTime {
    let micros = |read: fn(&ProcessingTime) -> Duration| time.as_ref().map(|time| read(time).as_micros() as i64);
    v1::ProcessingTime {
        count: time.map_or(0, |time| time.tries),
        avg_us: micros(|time| time.mean),
        p50_us: micros(|time| time.p50),
        p95_us: micros(|time| time.p95),
    }
}

fn worker(worker: Worker) -> QueueWorker {
    QueueWorker {
        id: worker.id.to_string(),
        name: worker.name,
        started_at: Some(convert::timestamp(worker.started_at)),
        last_heartbeat_at: Some(convert::timestamp(worker.beat_at)),
        last_heartbeat_age_ms: worker.silent.as_millis() as i64,
        active: worker.active,
    }
}

/// A job as one of a list.
fn summary(view: &model::JobView) -> v1::Job {
    let last_error = errors(view.job.errors.as_ref()).last().map(|last| last.error.clone());
    v1::Job {
        id: view.job.id.to_string(),
        kind: kind_number(view.job.kind),
        key: view.job.key.clone(),
        unique_key: view.job.unique_key.clone(),
        state: number!(view.state),
        priority: view.priority,
        attempts: view.job.attempts,
        max_retries: view.job.max_retries,
        rescues: view.job.rescues,
        lease: view.job.lease,
        worker_id: view.worker_id.map(|id| id.to_string()),
        event_id: view.job.event_id.map(|id| id.to_string()),
        created_at: Some(convert::timestamp(view.job.created_at)),
        run_at: view.run_at.map(convert::timestamp),
        started_at: view.started_at.map(convert::timestamp),
        finished_at: view.finished_at.map(convert::timestamp),
        last_error,
        errors: Vec::new(),
        payload: None,
    }
}

/// A job with everything that is known of it.
fn job(view: &model::JobView) -> v1::Job {
    v1::Job {
        errors: errors(view.job.errors.as_ref()),
        payload: convert::structure(&view.job.payload),
        ..summary(view)
    }
}

fn errors(history: Option<&Json>) -> Vec<JobError> {
    let read = |error: &Json| {
        Some(JobError {
            at: error.get("at")?.as_str()?.parse::<Instant>().ok().map(convert::timestamp),
            attempt: error.get("attempt")?.as_i64()? as i32,
            lease: error.get("lease")?.as_i64()?,
            error: error.get("error")?.as_str()?.to_owned(),
        })
    };
    history.and_then(Json::as_array).map(|list| list.iter().filter_map(read).collect()).unwrap_or_default()
}
