//! The live view, over gRPC and as server-sent events.

use std::time::Duration;

use reqwest::Client as Http;
use serde_json::{Value, json};
use tokio::time::timeout;
use upbridge_client::{Code, v1};

use super::{lonely, swept, tally, token};
use crate::harness::{Setup, TestHub, eventually, fault, record, refusal, usage};

const LONG: Duration = Duration::from_secs(60);
const PATH: &str = "/api/v1/admin/analytics/activity";

/// A reader of server-sent events.
struct Events {
    answer: reqwest::Response,
    read: String,
}

/// One event: its id, its name, and its data.
#[derive(Debug)]
struct Event {
    id: Option<String>,
    name: Option<String>,
    data: Value,
}

impl Events {
    async fn open(hub: &TestHub, token: &str, query: &str, last: Option<&str>) -> Events {
        let mut request = Http::new().get(hub.url(&format!("{PATH}{query}"))).bearer_auth(token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = timeout(LONG, request.send()).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Events { answer, read: String::new() }
    }

    /// The next event; nothing at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.read.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
                if let Some(data) = field("data") {
                    let data = serde_json::from_str(data).unwrap();
                    return Some(Event {
                        id: field("id").map(str::to_owned),
                        name: field("event").map(str::to_owned),
                        data,
                    });
                }
            }
            let chunk = timeout(LONG, self.answer.chunk()).await.expect("the stream says something").unwrap()?;
            self.read += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// The next events until one fits.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            let found = fits(&event.data);
            seen.push(event);
            if found {
                return seen;
            }
        }
    }
}

fn is_of<'a>(user_id: &'a str, status: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |data| data["sync_event"]["user_id"] == user_id && data["sync_event"]["status"] == status
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_streamed_and_goes_on_where_it_was_left() {
    let hub = swept(lonely()).await;
    hub.member().await;
    super::settled(&hub.database).await;
    // That CreatorUp is not there is news too, until the first check has found it.
    let alerts = "SELECT COUNT(*) FROM alerts";
    eventually("nobody is there", async || hub.database.count(alerts).await == 1).await;
    let token = token(&hub).await;
    let mut events = Events::open(&hub, &token, "", None).await;
    let member = hub.member().await;
    let seen = events.until(is_of(&member.id, "failed")).await;
    // Two changes in quick succession may be told as one, the last of them.
    assert_eq!(seen[0].data["sync_event"]["user_id"], json!(member.id), "what was before is not news");
    assert!(seen.iter().all(|event| event.id.as_deref() == event.data["event_id"].as_str() && event.name.is_none()));
    assert!(seen.iter().all(|event| event.data["gap"] == false && event.data["alert"].is_null()));
    let last = &seen.last().unwrap().data;
    assert!(last["sync_event"]["error_message"].as_str().is_some_and(|error| !error.is_empty()), "{last}");
    drop(events);

    // Whoever comes back, misses nothing and hears nothing twice.
    let missed = hub.member().await;
    super::settled(&hub.database).await;
    let mut resumed = Events::open(&hub, &token, "", seen[0].id.as_deref()).await;
    let again = resumed.until(is_of(&missed.id, "failed")).await;
    let ids = |events: &[Event]| events.iter().map(|event| event.id.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(&again)[..seen.len() - 1], ids(&seen)[1..]);
    let mut distinct = ids(&again);
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), again.len());
    // The address a browser repeats says the same as the header, which wins.
    let query = format!("?last_event_id={}", seen[0].id.as_deref().unwrap());
    let mut both = Events::open(&hub, &token, &query, again.last().unwrap().id.as_deref()).await;
    let next = hub.member().await;
    assert_eq!(both.next().await.unwrap().data["sync_event"]["user_id"], json!(next.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_never_saw_the_last_event_reads_the_table() {
    let hub = Setup::default().start().await;
    let token_before = token(&hub).await;
    let mut events = Events::open(&hub, &token_before, "", None).await;
    let member = hub.member().await;
    let first = events.next().await.unwrap();
    assert!(is_of(&member.id, "pending")(&first.data));
    drop(events);
    let database = hub.stop().await;
    let hub = Setup::default().start_on(database).await;
    let missed = hub.member().await;
    let mut resumed = Events::open(&hub, &token(&hub).await, "", first.id.as_deref()).await;
    let seen = resumed.until(is_of(&missed.id, "pending")).await;
    assert!(seen.iter().all(|event| event.id != first.id), "the last one is known");
    let next = hub.member().await;
    assert!(is_of(&next.id, "pending")(&resumed.next().await.unwrap().data), "and it goes on, nothing twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_the_same_of_one_type_alone() {
    let hub = TestHub::start().await;
    let client = hub.admin().await;
    let member = hub.subscriber(3).await;
    let request = v1::WatchActivityRequest { event_type: Some("usage_sync".into()), ..Default::default() };
    let mut changes = client.analytics().watch_activity(request).await.unwrap().into_inner();
    hub.member().await;
    member.client.usage().record_usage(record(usage("batch"))).await.unwrap();
    let change = timeout(LONG, changes.message()).await.unwrap().unwrap().unwrap();
    let event = change.sync_event.unwrap();
    assert_eq!((event.event_type.as_str(), event.status.as_str()), ("usage_sync", "completed"));
    assert_eq!(
        (event.user_id.as_deref(), change.at),
        (Some(member.id.as_str()), crate::harness::at("2026-03-15T12:00:00Z"))
    );

    let bad = |last: &str| v1::WatchActivityRequest { last_event_id: Some(last.into()), ..Default::default() };
    assert_eq!(fault(client.analytics().watch_activity(bad("nonsense")).await), "last_event_id");
    let nobody = member.client.analytics().watch_activity(v1::WatchActivityRequest::default()).await;
    assert_eq!(refusal(nobody), (Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_in_the_stream() {
    let hub = Setup::default().set("HEALTH_CHECK_INTERVAL", "30").start().await;
    let mut events = Events::open(&hub, &token(&hub).await, "", None).await;
    tally(&hub.database, "jobs", "total", 0, "probe.ready", 101).await;
    let opened = events.until(|data| data["alert"]["code"] == "queue_backlog").await.pop().unwrap();
    assert_eq!(opened.data["alert"]["cleared_at"], Value::Null);
    tally(&hub.database, "jobs", "total", 0, "probe.ready", 0).await;
    let cleared = events.next().await.unwrap();
    assert_eq!(cleared.data["alert"]["id"], opened.data["alert"]["id"]);
    assert_eq!(cleared.data["alert"]["cleared_at"], json!("2026-03-15T12:00:00Z"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_ends_with_the_session_and_with_the_hub() {
    let hub = TestHub::start().await;
    let (leaving, staying) = (token(&hub).await, token(&hub).await);
    let mut left = Events::open(&hub, &leaving, "", None).await;
    let mut stayed = Events::open(&hub, &staying, "", None).await;
    hub.client().await.with_bearer(&leaving).auth().logout(v1::LogoutRequest {}).await.unwrap();
    let end = left.next().await.unwrap();
    assert_eq!((end.name.as_deref(), &end.data["error"]["reason"]), (Some("error"), &json!("SESSION_REVOKED")));
    assert!(left.next().await.is_none());
    hub.begin_stop();
    let end = stayed.next().await.unwrap();
    assert_eq!((end.name.as_deref(), &end.data["error"]["code"]), (Some("error"), &json!("UNAVAILABLE")));
    assert!(stayed.next().await.is_none());
    // Nobody waits for the drain timeout of 20 s because somebody watched.
    timeout(Duration::from_secs(15), hub.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_before_the_stream_is_an_answer_like_any_other() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    for (token, code) in [(None, 401), (Some(&member.token), 403)] {
        let mut request = Http::new().get(hub.url(PATH));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let (status, answer) = crate::harness::json(request).await;
        assert_eq!((status, &answer["success"]), (code, &json!(false)), "{answer}");
    }
    let request = Http::new().get(hub.url(&format!("{PATH}?event_type=nonsense"))).bearer_auth(token(&hub).await);
    let (status, answer) = crate::harness::json(request).await;
    assert_eq!((status, &answer["error"]["details"][0]["field"]), (400, &json!("event_type")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queues_monitor_streams_over_http_too() {
    let hub = TestHub::start().await;
    let token = token(&hub).await;
    let request = Http::new().get(hub.url("/api/v1/admin/queue/monitor?kind=probe")).bearer_auth(&token);
    let answer = timeout(LONG, request.send()).await.unwrap().unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let mut events = Events { answer, read: String::new() };
    assert_eq!(events.next().await.unwrap().data["transition"], Value::Null, "the watch begins");
    let probe = v1::EnqueueProbeRequest::default();
    hub.admin().await.queue().enqueue_probe(probe).await.unwrap();
    let seen = events.until(|data| data["transition"]["step"] == "done").await;
    assert!(seen.iter().all(|event| event.data["transition"]["kind"] == "probe"), "{seen:?}");
}
