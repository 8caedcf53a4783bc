//! The queue as administrators see it: every rpc over gRPC and over HTTP, on a hub with its worker.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use reqwest::Client as Http;
use serde_json::{Value, json};
use tokio::time::timeout;
use upbridge_client::{Client, Code, v1};
use upbridge_server::model::job::JobKind;
use uuid::Uuid;

use crate::harness::{self, ADMIN_EMAIL, ADMIN_PASSWORD, Setup, TestHub, eventually, fault, refusal};

/// Nothing a test waits for takes this long.
const LONG: Duration = Duration::from_secs(20);
const PROBE: i32 = v1::JobKind::Probe as i32;

/// A hub and an administrator of it.
struct Office {
    hub: TestHub,
    admin: Client,
    token: String,
}

impl Office {
    async fn open(setup: Setup) -> Office {
        let hub = setup.start().await;
        let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let token = hub.client().await.auth().login(login).await.unwrap().into_inner().token;
        Office { admin: hub.client().await.with_bearer(&token), hub, token }
    }

    async fn probe(&self, request: v1::EnqueueProbeRequest) -> Vec<String> {
        self.admin.queue().enqueue_probe(request).await.unwrap().into_inner().job_ids
    }

    async fn job(&self, id: &str) -> v1::Job {
        let request = v1::GetJobRequest { job_id: id.into() };
        self.admin.queue().get_job(request).await.unwrap().into_inner().job.unwrap()
    }

    async fn stats(&self) -> v1::GetQueueStatsResponse {
        self.admin.queue().get_queue_stats(v1::GetQueueStatsRequest {}).await.unwrap().into_inner()
    }

    /// Of the probes alone: a hub has jobs of its own.
    async fn probes(&self) -> v1::KindStats {
        self.stats().await.kinds.into_iter().find(|kind| kind.kind == PROBE).unwrap()
    }

    async fn counts(&self) -> v1::JobCounts {
        self.probes().await.counts.unwrap()
    }

    /// Waits until the probes are counted like this.
    async fn becomes(&self, what: &str, holds: impl Fn(&v1::JobCounts) -> bool) -> v1::JobCounts {
        eventually(what, async || holds(&self.counts().await)).await;
        self.counts().await
    }

    async fn pause(&self) {
        self.admin.queue().pause_kind(v1::PauseKindRequest { kind: PROBE }).await.unwrap();
    }

    async fn resume(&self) {
        self.admin.queue().resume_kind(v1::ResumeKindRequest { kind: PROBE }).await.unwrap();
    }

    /// Makes dead letters of these keys, in their order.
    async fn bury(&self, keys: &[&str]) {
        for (place, key) in keys.iter().enumerate() {
            self.probe(dying(key)).await;
            let buried = place as i64 + 1;
            self.becomes("a dead letter", |counts| counts.dead == buried).await;
            self.hub.clock.advance(TimeDelta::seconds(1));
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        harness::json(Http::new().get(self.url(path)).bearer_auth(&self.token)).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        harness::json(Http::new().post(self.url(path)).bearer_auth(&self.token).json(&body)).await
    }

    fn url(&self, path: &str) -> String {
        self.hub.url(&format!("/api/v1/admin/queue/{path}"))
    }

    /// What administrators did, oldest first.
    async fn audited(&self) -> Vec<String> {
        let sql = "SELECT action FROM audit_log WHERE action LIKE 'job.%' OR action LIKE 'queue.%' ORDER BY id";
        self.hub.database.texts(sql).await
    }

    /// The running counts of what is not over are what counting the rows says.
    async fn adds_up(&self) {
        let rows = "SELECT kind || '.' || state || '=' || COUNT(*) FROM jobs GROUP BY kind, state ORDER BY 1";
        let counts = "SELECT label || '=' || SUM(count) FROM tallies WHERE metric = 'jobs' AND label NOT LIKE '%.done' \
                      AND label NOT LIKE '%.dead' AND label NOT LIKE '%.cancelled' GROUP BY label \
                      HAVING SUM(count) <> 0 ORDER BY 1";
        assert_eq!(self.hub.database.texts(counts).await, self.hub.database.texts(rows).await);
    }
}

/// A probe that dies at its first try.
fn dying(key: &str) -> v1::EnqueueProbeRequest {
    v1::EnqueueProbeRequest { key: Some(key.into()), failures: Some(1), max_retries: Some(0), ..Default::default() }
}

fn probes(count: i32, key: &str) -> v1::EnqueueProbeRequest {
    v1::EnqueueProbeRequest { count: Some(count), key: Some(key.into()), ..Default::default() }
}

fn state(job: &v1::Job) -> v1::JobState {
    v1::JobState::try_from(job.state).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_answers_a_ping_with_where_it_is_kept() {
    let office = Office::open(Setup::default()).await;
    let pong = office.admin.queue().ping_queue(v1::PingQueueRequest {}).await.unwrap().into_inner();
    let backend = if office.hub.database.is_postgres() { "postgres" } else { "sqlite" };
    assert_eq!((pong.answer.as_str(), pong.backend.as_str(), pong.round_trip_us > 0), ("PONG", backend, true));
    let (code, answer) = office.get("ping").await;
    assert_eq!((code, &answer["data"]["answer"], &answer["data"]["backend"]), (200, &json!("PONG"), &json!(backend)));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_run_and_are_counted_in_every_place_they_pass() {
    let office = Office::open(Setup::default().set("JWT_LIFETIME_SECONDS", "604800")).await;
    office.pause().await;
    office.probe(probes(3, "now")).await;
    office.probe(v1::EnqueueProbeRequest { delay_ms: Some(60_000), ..probes(2, "later") }).await;
    let counts = office.counts().await;
    assert_eq!((counts.waiting, counts.delayed, counts.active, counts.completed), (3, 2, 0, 0));
    office.adds_up().await;
    let stats = office.stats().await;
    assert_eq!((stats.paused_kinds, stats.oldest_ready_age_ms), (vec![PROBE], 0));
    assert_eq!(stats.oldest_ready_at, stats.as_of, "the clock stands still");
    office.hub.clock.advance(TimeDelta::seconds(7));
    assert_eq!(office.stats().await.oldest_ready_age_ms, 7_000);
    office.resume().await;
    office.becomes("three are done", |counts| counts.completed == 3).await;
    office.hub.clock.advance(TimeDelta::seconds(60));
    let counts = office.becomes("all are done", |counts| counts.completed == 5).await;
    assert_eq!((counts.waiting, counts.delayed, counts.active, counts.failed, counts.dead), (0, 0, 0, 0, 0));
    office.adds_up().await;
    let time = office.probes().await.processing_time.unwrap();
    assert_eq!((time.count, time.avg_us > Some(0), time.p50_us <= time.p95_us), (5, true, true), "{time:?}");
    eventually("nothing waits", async || office.stats().await.oldest_ready_at.is_none()).await;
    let stats = office.stats().await;
    assert!(stats.total.unwrap().completed >= 5 && stats.processing_time.unwrap().count >= 5, "{stats:?}");
    assert_eq!(stats.paused_kinds.len(), 0);
    assert_eq!((stats.kinds.len(), stats.workers.len()), (JobKind::ALL.len(), 1));
    assert!(stats.workers[0].last_heartbeat_age_ms < 60_000 && stats.workers[0].name.contains('@'), "{stats:?}");
    assert_eq!(stats.store_bytes.is_some(), office.hub.database.is_postgres());
    // Times of yesterday are not today's.
    office.hub.clock.advance(TimeDelta::hours(26));
    assert_eq!(office.probes().await.processing_time.unwrap(), v1::ProcessingTime::default());
    let (code, answer) = office.get("stats").await;
    let kind = &answer["data"]["kinds"][5];
    assert_eq!((code, &kind["kind"], &kind["counts"]["completed"]), (200, &json!("probe"), &json!(5)));
    assert_eq!(kind["processing_time"]["p95_us"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_listed_newest_first_in_pages_that_are_bound_to_their_filters() {
    let office = Office::open(Setup::default()).await;
    office.bury(&["dead"]).await;
    office.pause().await;
    let old = office.probe(probes(3, "a")).await;
    let new = office.probe(probes(2, "b")).await;
    let list = async |request: v1::ListJobsRequest| {
        let listed = office.admin.queue().list_jobs(request).await.map(tonic::Response::into_inner)?;
        let keys = listed.jobs.iter().map(|job| job.key.clone()).collect::<Vec<_>>().join("");
        Ok::<_, upbridge_client::Status>((keys, listed.next_page_token))
    };
    let all = || v1::ListJobsRequest { kind: Some(PROBE), ..Default::default() };
    assert_eq!(list(all()).await.unwrap(), ("bbaaadead".into(), String::new()));
    let key = |key: &str| v1::ListJobsRequest { key: Some(key.into()), ..all() };
    let in_state = |state: v1::JobState| v1::ListJobsRequest { state: Some(state.into()), ..all() };
    let kind = |kind: v1::JobKind| v1::ListJobsRequest { kind: Some(kind.into()), ..Default::default() };
    for (filter, found) in [
        (key("b"), "bb"),
        (key("nobody"), ""),
        (in_state(v1::JobState::Ready), "bbaaa"),
        (in_state(v1::JobState::Dead), "dead"),
        (in_state(v1::JobState::Running), ""),
        (kind(v1::JobKind::Probe), "bbaaadead"),
        (kind(v1::JobKind::UserSync), ""),
    ] {
        assert_eq!(list(filter.clone()).await.unwrap().0, found, "{filter:?}");
    }
    let mut page = v1::ListJobsRequest { page_size: Some(4), ..all() };
    let (first, next) = list(page.clone()).await.unwrap();
    page.page_token = Some(next);
    // What is enqueued while somebody turns pages is on the first page.
    office.probe(probes(1, "late")).await;
    assert_eq!((first.as_str(), list(page.clone()).await.unwrap()), ("bbaa", ("adead".into(), String::new())));
    for other in [
        v1::ListJobsRequest { key: Some("a".into()), ..page.clone() },
        v1::ListJobsRequest { state: Some(v1::JobState::Ready.into()), ..page.clone() },
        v1::ListJobsRequest { page_token: Some("nonsense".into()), ..page.clone() },
    ] {
        assert_eq!(fault(list(other).await), "page_token");
    }
    assert_eq!(fault(list(v1::ListJobsRequest { page_size: Some(0), ..all() }).await), "page_size");
    assert_eq!(fault(list(v1::ListJobsRequest { state: Some(99), ..all() }).await), "state");
    // The same over HTTP.
    let (code, answer) = office.get("jobs?state=ready&key=a&page_size=2").await;
    assert_eq!((code, answer["data"].as_array().unwrap().len()), (200, 2));
    assert_eq!((&answer["data"][0]["id"], &answer["data"][0]["state"]), (&json!(old[2]), &json!("ready")));
    let next = answer["next_page_token"].as_str().unwrap();
    let (_, answer) = office.get(&format!("jobs?state=ready&key=a&page_size=2&page_token={next}")).await;
    assert_eq!((&answer["data"][0]["id"], &answer["next_page_token"]), (&json!(old[0]), &json!("")));
    let (code, answer) = office.get("jobs?state=lost").await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("state")));
    let (code, answer) = office.get(&format!("jobs/{}", new[0])).await;
    assert_eq!((code, &answer["data"]["key"], &answer["data"]["payload"]["fails"]), (200, &json!("b"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_shows_what_went_wrong_and_who_has_it() {
    let office = Office::open(Setup::default()).await;
    let failing = v1::EnqueueProbeRequest { failures: Some(2), max_retries: Some(1), ..probes(1, "bad") };
    let id = office.probe(failing).await.remove(0);
    office.becomes("it waits for its second try", |counts| counts.delayed == 1).await;
    let job = office.job(&id).await;
    assert_eq!((state(&job), job.attempts, job.max_retries, job.lease), (v1::JobState::Scheduled, 1, 1, 1));
    assert_eq!((job.errors.len(), job.errors[0].attempt, job.errors[0].lease), (1, 1, 1));
    assert!(job.last_error.as_ref().is_some_and(|error| *error == job.errors[0].error), "{job:?}");
    assert!(job.run_at.is_some() && job.finished_at.is_none() && job.worker_id.is_none());
    office.hub.clock.advance(TimeDelta::minutes(5));
    office.becomes("it is a dead letter", |counts| counts.dead == 1).await;
    let job = office.job(&id).await;
    assert_eq!((state(&job), job.attempts, job.lease, job.errors.len()), (v1::JobState::Dead, 2, 2, 2));
    assert!(job.run_at.is_none() && job.started_at.is_some() && job.finished_at.is_some());
    let slow = v1::EnqueueProbeRequest { work_ms: Some(60_000), ..probes(1, "slow") };
    let running = office.probe(slow).await.remove(0);
    office.becomes("it runs", |counts| counts.active == 1).await;
    let worker = &office.stats().await.workers[0];
    assert_eq!((office.job(&running).await.worker_id.as_ref(), worker.active), (Some(&worker.id), 1));
    let nobody = v1::GetJobRequest { job_id: Uuid::now_v7().to_string() };
    assert_eq!(refusal(office.admin.queue().get_job(nobody).await), (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(fault(office.admin.queue().get_job(v1::GetJobRequest { job_id: "x".into() }).await), "job_id");
    let (code, answer) = office.get(&format!("jobs/{}", Uuid::now_v7())).await;
    assert_eq!((code, &answer["error"]["reason"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_job_is_tried_at_once_and_a_dead_letter_again() {
    let office = Office::open(Setup::default()).await;
    let retry = async |id: &str| {
        let tried = office.admin.queue().retry_job(v1::RetryJobRequest { job_id: id.into() }).await;
        tried.map(tonic::Response::into_inner)
    };
    let later = v1::EnqueueProbeRequest { delay_ms: Some(86_400_000), ..probes(2, "later") };
    let later = office.probe(later).await;
    assert_eq!(retry(&later[0]).await.unwrap().job_id, later[0], "under its own id");
    office.becomes("it is done", |counts| counts.completed == 1 && counts.delayed == 1).await;
    let state_refused = (Code::FailedPrecondition, "INVALID_STATE".to_owned());
    assert_eq!(refusal(retry(&later[0]).await), state_refused, "it is done");
    office.bury(&["bad"]).await;
    let request = v1::ListJobsRequest { state: Some(v1::JobState::Dead.into()), ..Default::default() };
    let letter = office.admin.queue().list_jobs(request).await.unwrap().into_inner().jobs.remove(0);
    office.pause().await;
    let tried = retry(&letter.id).await.unwrap();
    assert_ne!(tried.job_id, letter.id);
    let job = tried.job.unwrap();
    assert_eq!((&job.id, state(&job), job.attempts, job.key.as_str()), (&tried.job_id, v1::JobState::Ready, 0, "bad"));
    assert_eq!(refusal(retry(&letter.id).await).0, Code::NotFound, "it is no letter any more");
    assert_eq!(refusal(retry(&tried.job_id).await), state_refused, "it is ready");
    assert_eq!(refusal(retry(&Uuid::now_v7().to_string()).await).0, Code::NotFound);
    assert_eq!(fault(retry("x").await), "job_id");
    office.adds_up().await;
    let (code, answer) = office.post(&format!("jobs/{}/retry", later[1]), json!({})).await;
    assert_eq!((code, &answer["data"]["job"]["state"]), (200, &json!("ready")));
    let (code, answer) = office.post(&format!("jobs/{}/retry", later[1]), json!({})).await;
    assert_eq!((code, &answer["error"]["reason"]), (400, &json!("INVALID_STATE")));
    let audited = office.audited().await;
    assert_eq!(audited.iter().filter(|action| *action == "job.retried").count(), 3, "{audited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_called_off_while_it_waits_and_while_it_runs() {
    let office = Office::open(Setup::default().set("QUEUE_CONCURRENCY", "1")).await;
    let cancel = async |id: &str| {
        let cancelled = office.admin.queue().cancel_job(v1::CancelJobRequest { job_id: id.into() }).await;
        cancelled.map(|answer| answer.into_inner().job.unwrap())
    };
    let slow = v1::EnqueueProbeRequest { work_ms: Some(60_000), ..probes(1, "slow") };
    let running = office.probe(slow).await.remove(0);
    office.becomes("it runs", |counts| counts.active == 1).await;
    let waiting = office.probe(probes(2, "next")).await;
    let later = office.probe(v1::EnqueueProbeRequest { delay_ms: Some(60_000), ..probes(1, "later") }).await.remove(0);
    for id in [&waiting[0], &later] {
        assert_eq!(state(&cancel(id).await.unwrap()), v1::JobState::Cancelled);
    }
    assert_eq!(office.counts().await.completed, 0);
    // The only slot is free at once: its handler does not go on for a minute.
    let cancelled = cancel(&running).await.unwrap();
    assert_eq!((state(&cancelled), cancelled.worker_id), (v1::JobState::Cancelled, None));
    let counts = office.becomes("the next one is done", |counts| counts.completed == 1).await;
    assert_eq!((counts.cancelled, counts.active, counts.waiting, counts.failed), (3, 0, 0, 0));
    office.adds_up().await;
    let state_refused = (Code::FailedPrecondition, "INVALID_STATE".to_owned());
    assert_eq!(refusal(cancel(&running).await), state_refused, "it is over");
    assert_eq!(refusal(cancel(&waiting[1]).await), state_refused, "it is done");
    assert_eq!(refusal(cancel(&Uuid::now_v7().to_string()).await).0, Code::NotFound);
    assert_eq!(fault(cancel("x").await), "job_id");
    office.pause().await;
    let id = office.probe(probes(1, "http")).await.remove(0);
    let (code, answer) = office.post(&format!("jobs/{id}/cancel"), json!({})).await;
    assert_eq!((code, &answer["data"]["state"]), (200, &json!("cancelled")));
    let (code, answer) = office.post(&format!("jobs/{id}/cancel"), json!({})).await;
    assert_eq!((code, &answer["error"]["reason"]), (400, &json!("INVALID_STATE")));
    assert_eq!(office.audited().await.iter().filter(|action| *action == "job.cancelled").count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_paused_waits_until_it_is_resumed() {
    let office = Office::open(Setup::default()).await;
    let pause = async || {
        let paused = office.admin.queue().pause_kind(v1::PauseKindRequest { kind: PROBE }).await;
        paused.unwrap().into_inner().changed
    };
    let resume = async || {
        let resumed = office.admin.queue().resume_kind(v1::ResumeKindRequest { kind: PROBE }).await;
        resumed.unwrap().into_inner().changed
    };
    assert_eq!((pause().await, pause().await), (true, false));
    office.probe(probes(4, "held back")).await;
    let stats = office.stats().await;
    let kind = stats.kinds.iter().find(|kind| kind.kind == PROBE).unwrap();
    assert_eq!((kind.paused_since, stats.paused_kinds), (stats.as_of, vec![PROBE]));
    assert_eq!(office.counts().await.waiting, 4);
    assert_eq!((resume().await, resume().await), (true, false));
    office.becomes("all are done", |counts| counts.completed == 4).await;
    assert_eq!(fault(office.admin.queue().pause_kind(v1::PauseKindRequest::default()).await), "kind");
    assert_eq!(fault(office.admin.queue().resume_kind(v1::ResumeKindRequest { kind: 99 }).await), "kind");
    let (code, answer) = office.post("kinds/user_sync/pause", json!({})).await;
    assert_eq!((code, &answer["data"]["changed"]), (200, &json!(true)));
    let (code, answer) = office.post("kinds/user_sync/resume", json!({})).await;
    assert_eq!((code, &answer["data"]["changed"]), (200, &json!(true)));
    assert_eq!(office.post("kinds/nothing/pause", json!({})).await.0, 400);
    let expected = ["queue.paused", "queue.probed", "queue.resumed", "queue.paused", "queue.resumed"];
    assert_eq!(office.audited().await, expected, "what changed nothing is not told");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_driven_again_by_filter_and_at_a_rate() {
    let office = Office::open(Setup::default()).await;
    office.bury(&["a", "b", "c", "d", "e"]).await;
    office.pause().await;
    let redrive = async |request: v1::RedriveDeadLettersRequest| {
        let redriven = office.admin.queue().redrive_dead_letters(request).await;
        redriven.map(tonic::Response::into_inner)
    };
    let all = v1::RedriveDeadLettersRequest::default;
    let none = redrive(v1::RedriveDeadLettersRequest { key: Some("x".into()), ..all() }).await.unwrap();
    assert_eq!((none.redriven, none.jobs.len()), (0, 0));
    let kind = Some(v1::JobKind::UserSync.into());
    assert_eq!(redrive(v1::RedriveDeadLettersRequest { kind, ..all() }).await.unwrap().redriven, 0);
    let one = redrive(v1::RedriveDeadLettersRequest { key: Some("c".into()), ..all() }).await.unwrap();
    assert_eq!(office.job(&one.jobs[0].job_id).await.key, "c");
    let rated = v1::RedriveDeadLettersRequest { max: Some(3), per_second: Some(2), kind: Some(PROBE), ..all() };
    let rated = redrive(rated).await.unwrap();
    assert_eq!((rated.redriven, office.counts().await.dead), (3, 1));
    let now = office.stats().await.as_of.unwrap();
    let mut waits = Vec::new();
    for redriven in &rated.jobs {
        let job = office.job(&redriven.job_id).await;
        let at = job.run_at.unwrap();
        waits.push((job.key, (at.seconds - now.seconds) * 1_000 + i64::from(at.nanos - now.nanos) / 1_000_000));
    }
    assert_eq!(waits, [("a".into(), 0), ("b".into(), 500), ("d".into(), 1_000)], "oldest first, two in a second");
    let counts = office.counts().await;
    assert_eq!((counts.waiting, counts.delayed, counts.dead), (2, 2, 1));
    office.adds_up().await;
    for (request, field) in [
        (v1::RedriveDeadLettersRequest { max: Some(0), ..all() }, "max"),
        (v1::RedriveDeadLettersRequest { per_second: Some(0), ..all() }, "per_second"),
        (v1::RedriveDeadLettersRequest { job_id: Some("x".into()), ..all() }, "job_id"),
        (v1::RedriveDeadLettersRequest { kind: Some(0), ..all() }, "kind"),
    ] {
        assert_eq!(fault(redrive(request).await), field);
    }
    let (code, answer) = office.post("dead-letters/redrive", json!({ "max": 10 })).await;
    assert_eq!((code, &answer["data"]["redriven"]), (200, &json!(1)));
    // They die again, and nothing of them is lost.
    office.resume().await;
    office.hub.clock.advance(TimeDelta::seconds(2));
    office.becomes("all are dead again", |counts| counts.dead == 5 && counts.failed == 10).await;
    assert_eq!(office.audited().await.iter().filter(|action| *action == "queue.redriven").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_bounded() {
    let office = Office::open(Setup::default().set("QUEUE_CONCURRENCY", "100")).await;
    let all = v1::EnqueueProbeRequest::default;
    for (request, field) in [
        (v1::EnqueueProbeRequest { count: Some(0), ..all() }, "count"),
        (v1::EnqueueProbeRequest { count: Some(10_001), ..all() }, "count"),
        (v1::EnqueueProbeRequest { key: Some(String::new()), ..all() }, "key"),
        (v1::EnqueueProbeRequest { key: Some("k".repeat(256)), ..all() }, "key"),
        (v1::EnqueueProbeRequest { delay_ms: Some(-1), ..all() }, "delay_ms"),
        (v1::EnqueueProbeRequest { work_ms: Some(60_001), ..all() }, "work_ms"),
        (v1::EnqueueProbeRequest { failures: Some(11), ..all() }, "failures"),
        (v1::EnqueueProbeRequest { max_retries: Some(-1), ..all() }, "max_retries"),
    ] {
        assert_eq!(fault(office.admin.queue().enqueue_probe(request).await), field);
    }
    let (code, answer) = office.post("probe", json!({ "count": 2000, "key": "many" })).await;
    assert_eq!((code, answer["data"]["job_ids"].as_array().unwrap().len()), (200, 2_000));
    office.becomes("all are done", |counts| counts.completed == 2_000).await;
    office.adds_up().await;
    eventually("the newest hundred are kept", async || {
        office.hub.database.count("SELECT COUNT(*) FROM finished_jobs WHERE state = 'done'").await == 100
    })
    .await;
}

async fn next(sightings: &mut tonic::Streaming<v1::MonitorQueueResponse>) -> Option<v1::MonitorQueueResponse> {
    timeout(LONG, sightings.message()).await.expect("something is told").expect("the watch goes on")
}

/// Steps of each job, in the order they are told, until so many were.
async fn steps(
    sightings: &mut tonic::Streaming<v1::MonitorQueueResponse>,
    count: usize,
) -> BTreeMap<String, Vec<String>> {
    let mut steps: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for _ in 0..count {
        let told = next(sightings).await.expect("a sighting").transition.expect("a transition");
        let step = v1::JobStep::try_from(told.step).unwrap().as_str_name().replace("JOB_STEP_", "");
        steps.entry(told.job_id).or_default().push(step);
    }
    steps
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_happens_to_jobs_and_ends_with_the_hub() {
    let office = Office::open(Setup::default()).await;
    let mut queue = office.admin.queue();
    let all = v1::MonitorQueueRequest { kind: Some(PROBE), ..Default::default() };
    let mut all = queue.monitor_queue(all).await.unwrap().into_inner();
    let only = v1::MonitorQueueRequest { key: Some("b".into()), kind: Some(PROBE), ..Default::default() };
    let mut only = queue.monitor_queue(only).await.unwrap().into_inner();
    for sightings in [&mut all, &mut only] {
        assert_eq!(next(sightings).await.unwrap(), v1::MonitorQueueResponse::default(), "the watch begins");
    }
    let done = office.probe(probes(1, "a")).await.remove(0);
    let dead = office.probe(dying("b")).await.remove(0);
    let told = steps(&mut all, 6).await;
    assert_eq!(told[&done], ["ENQUEUED", "RUNNING", "DONE"]);
    assert_eq!(told[&dead], ["ENQUEUED", "RUNNING", "DEAD"]);
    assert_eq!(steps(&mut only, 3).await.into_keys().collect::<Vec<_>>(), [dead], "only what was asked for");
    office.pause().await;
    let id = office.probe(probes(1, "b")).await.remove(0);
    office.admin.queue().cancel_job(v1::CancelJobRequest { job_id: id.clone() }).await.unwrap();
    assert_eq!(steps(&mut only, 2).await[&id], ["ENQUEUED", "CANCELLED"]);
    assert_eq!(steps(&mut all, 2).await[&id], ["ENQUEUED", "CANCELLED"]);
    let bad = v1::MonitorQueueRequest { job_id: Some("x".into()), ..Default::default() };
    assert_eq!(fault(queue.monitor_queue(bad).await.map(drop)), "job_id");
    office.hub.begin_stop();
    assert_eq!(next(&mut all).await, None, "it ends, and does not break off");
    timeout(LONG, office.hub.stop()).await.expect("nobody who watches holds the hub up");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_over_http_is_a_stream_of_events() {
    let office = Office::open(Setup::default()).await;
    let request = Http::new().get(office.url("monitor?kind=probe&key=k")).bearer_auth(&office.token);
    let mut answer = request.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let mut text = String::new();
    let mut until = async |word: &str| {
        while !text.contains(word) {
            let chunk = timeout(LONG, answer.chunk()).await.expect("something is told").unwrap().expect("it goes on");
            text += std::str::from_utf8(&chunk).unwrap();
        }
        text.clone()
    };
    until("data: ").await;
    let id = office.probe(probes(1, "k")).await.remove(0);
    let text = until("\"done\"").await;
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
    assert_eq!(events[0], json!({ "transition": null, "missed": 0 }), "the watch begins");
    let steps: Vec<&str> = events[1..].iter().map(|event| event["transition"]["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["enqueued", "running", "done"]);
    assert!(events[1..].iter().all(|event| event["transition"]["job_id"] == id.as_str()), "{events:?}");
    let (code, answer) = office.get("monitor?kind=nothing").await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("kind")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_for_who_is_no_longer_an_administrator() {
    let office = Office::open(Setup::default()).await;
    let other = office.hub.another_admin().await;
    let mut sightings =
        other.client.queue().monitor_queue(v1::MonitorQueueRequest::default()).await.unwrap().into_inner();
    next(&mut sightings).await.unwrap();
    let role = Some(v1::Role::Member.into());
    let demote = v1::UpdateUserRequest { user_id: other.id.clone(), role, ..Default::default() };
    office.admin.users().update_user(demote).await.unwrap();
    let refused = timeout(LONG, sightings.message()).await.expect("soon").unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_watch_at_once() {
    let office = Office::open(Setup::default()).await;
    let mut queue = office.admin.queue();
    let mut watching = Vec::new();
    for _ in 0..32 {
        watching.push(queue.monitor_queue(v1::MonitorQueueRequest::default()).await.unwrap().into_inner());
    }
    let refused = queue.monitor_queue(v1::MonitorQueueRequest::default()).await.map(drop);
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    watching.pop();
    eventually("there is room again", async || {
        office.admin.queue().monitor_queue(v1::MonitorQueueRequest::default()).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_another_hub_does() {
    let office = Office::open(Setup::default()).await;
    if !office.hub.database.is_postgres() {
        return; // A SQLite file belongs to one hub.
    }
    let other =
        crate::harness::TestDatabase { url: office.hub.database.url.clone(), directory: tempfile::tempdir().unwrap() };
    let mut sightings =
        office.admin.queue().monitor_queue(v1::MonitorQueueRequest::default()).await.unwrap().into_inner();
    next(&mut sightings).await.unwrap();
    let other = Setup::default().start_on(other).await;
    let id = other.admin().await.queue().enqueue_probe(dying("theirs")).await.unwrap().into_inner().job_ids.remove(0);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|step| *step != v1::JobStep::Dead as i32) {
        let told = next(&mut sightings).await.unwrap().transition.unwrap();
        if told.job_id == id {
            seen.push(told.step);
        }
    }
    let mut once = seen.clone();
    once.dedup();
    assert_eq!(seen, once, "nothing is told twice");
}
