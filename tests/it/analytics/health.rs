//! Health and alerts: thresholds to the tenth, transitions once, and a database that goes and comes back.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ConnectionTrait, Database};
use serde_json::{Value, json};
use upbridge_client::v1;

use super::{get, lonely, tally};
use crate::harness::{HubProcess, Setup, TestDatabase, TestHub, eventually, noon};

fn checked_often() -> Setup {
    Setup::default().set("HEALTH_CHECK_INTERVAL", "30")
}

/// Codes of the alerts that are open.
async fn open(hub: &TestHub) -> Vec<String> {
    let health = get(hub, "health").await;
    health["alerts"].as_array().unwrap().iter().map(|alert| alert["code"].as_str().unwrap().to_owned()).collect()
}

async fn metric(hub: &TestHub, code: &str) -> bool {
    let text = reqwest::get(hub.url("/metrics")).await.unwrap().text().await.unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("upbridge_alert{{code=\"{code}\"}}")));
    line.unwrap_or_else(|| panic!("no gauge of {code}")).ends_with(" 1")
}

/// Lets an instant pass; says which it is now.
fn tick(hub: &TestHub) -> DateTime<Utc> {
    hub.clock.advance(TimeDelta::microseconds(1));
    hub.clock.now()
}

/// Waits for a check that began after now.
async fn checked(hub: &TestHub) {
    let token = super::token(hub).await;
    let checked_at = async || -> DateTime<Utc> {
        let request = reqwest::Client::new().get(hub.url("/api/v1/admin/analytics/health")).bearer_auth(&token);
        let (_, answer) = crate::harness::json(request).await;
        answer["data"]["checked_at"].as_str().unwrap().parse().unwrap()
    };
    // Before the first check what is known is said to be of the instant of the answer; after it, of an earlier one until
    // the next.
    eventually("a check", async || {
        let now = tick(hub);
        checked_at().await < now
    })
    .await;
    let after = tick(hub);
    eventually("a check after the change", async || checked_at().await >= after).await;
}

use upbridge_server::model::Clock;

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_hub_says_what_it_runs_on() {
    let hub = checked_often().start().await;
    let client = hub.admin().await;
    let health = client.analytics().get_system_health(v1::GetSystemHealthRequest {}).await.unwrap().into_inner();
    assert_eq!(health.status, v1::HealthStatus::Healthy as i32, "{health:?}");
    let (database, queue) = (health.database.unwrap(), health.queue.unwrap());
    assert!(database.connected && database.latency_ms.unwrap() > 0.0 && database.size_bytes.unwrap() > 0);
    assert_eq!(database.kind, if hub.database.is_postgres() { "postgres" } else { "sqlite" });
    assert_eq!((queue.backend.as_str(), queue.connected, queue.redis), ("embedded", true, false));
    assert!(queue.counts.unwrap().available && queue.paused.is_empty());
    let creatorup = health.creatorup_api.unwrap();
    assert_eq!((creatorup.configured, creatorup.reachable), (false, None));
    assert!(health.checked_at.is_some() && health.as_of.is_some() && health.alerts.is_empty());
    assert_eq!(get(&hub, "health").await["status"], json!("healthy"));
}

#[tokio::test(flavor = "multi_thread")]
async fn five_percent_of_failures_is_well_and_a_tenth_more_is_an_alert() {
    let hub = checked_often().start().await;
    let today = noon().timestamp() - 12 * 3_600;
    hub.database.execute("DELETE FROM tallies WHERE metric = 'events'").await;
    for (metric, done, failed, code) in [
        ("events", "user_sync.completed", "user_sync.failed", "sync_error_rate"),
        ("webhooks", "usage-update.processed", "usage-update.failed", "webhook_error_rate"),
    ] {
        let fail = async |count: i64| {
            // No check may see a state between the two.
            let (all, metric) = (1_000 - count, metric);
            hub.database.execute(&format!(
                "INSERT INTO tallies (metric, span, starts_at, label, shard, count, amount) VALUES \
                 ('{metric}', 'day', {today}, '{done}', 99, {all}, 0), ('{metric}', 'day', {today}, '{failed}', 99, {count}, 0) \
                 ON CONFLICT (metric, span, starts_at, label, shard) DO UPDATE SET count = excluded.count"
            )).await;
        };
        fail(50).await;
        checked(&hub).await;
        assert_eq!(open(&hub).await, [""; 0], "{metric}: 5.0 % is well");
        fail(51).await;
        eventually("5.1 % is not", async || open(&hub).await == [code]).await;
        let health = get(&hub, "health").await;
        assert_eq!(health["status"], json!("degraded"));
        assert_eq!(health["alerts"][0]["details"], json!({ "failed": 51, "finished": 1000, "limit_percent": 5 }));
        eventually("the gauge says so", async || metric_of(&hub, code).await).await;
        fail(50).await;
        eventually("it clears at the threshold it opened at", async || open(&hub).await.is_empty()).await;
        eventually("the gauge says so", async || !metric_of(&hub, code).await).await;
    }
    // Of too few, a single failure would be more than five percent.
    hub.database.execute("DELETE FROM tallies WHERE metric IN ('events', 'webhooks')").await;
    tally(&hub.database, "events", "day", today, "user_sync.failed", 19).await;
    checked(&hub).await;
    assert_eq!(open(&hub).await, [""; 0]);
    tally(&hub.database, "events", "day", today, "user_sync.failed", 20).await;
    eventually("twenty are enough", async || open(&hub).await == ["sync_error_rate"]).await;
}

async fn metric_of(hub: &TestHub, code: &str) -> bool {
    metric(hub, code).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_opens_an_alert_that_clears_and_stays_in_the_history() {
    let hub = checked_often().start().await;
    tally(&hub.database, "jobs", "total", 0, "probe.ready", 60).await;
    tally(&hub.database, "jobs", "total", 0, "probe.held", 40).await;
    // Neither what runs nor what waits for its time is a backlog.
    tally(&hub.database, "jobs", "total", 0, "probe.running", 70).await;
    tally(&hub.database, "jobs", "total", 0, "probe.scheduled", 70).await;
    checked(&hub).await;
    assert_eq!(open(&hub).await, [""; 0], "a hundred are well");
    tally(&hub.database, "jobs", "total", 0, "probe.ready", 61).await;
    eventually("a hundred and one are not", async || open(&hub).await == ["queue_backlog"]).await;
    let opened_at = hub.clock.now();
    checked(&hub).await;
    hub.clock.advance(TimeDelta::minutes(3));
    tally(&hub.database, "jobs", "total", 0, "probe.ready", 60).await;
    eventually("it clears", async || open(&hub).await.is_empty()).await;

    let client = hub.admin().await;
    let list = async |open: bool| {
        let request = v1::ListAlertsRequest { open, ..Default::default() };
        client.analytics().list_alerts(request).await.unwrap().into_inner().alerts
    };
    assert_eq!(list(true).await, []);
    let [alert] = list(false).await.try_into().expect("one alert, however many checks saw it");
    assert_eq!((alert.code.as_str(), alert.severity.as_str()), ("queue_backlog", "warning"));
    let instant = |at: &Option<prost_types::Timestamp>| at.as_ref().map(|at| at.seconds).unwrap();
    assert_eq!(instant(&alert.opened_at), opened_at.timestamp());
    assert_eq!(instant(&alert.cleared_at), opened_at.timestamp() + 180);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transition_is_logged_once() {
    let database = TestDatabase::new().await;
    let mut command = HubProcess::command(&database);
    command.env("HEALTH_CHECK_INTERVAL", "30");
    let hub = HubProcess::run(&mut command);
    tally(&database, "jobs", "total", 0, "probe.ready", 101).await;
    let lines = |what: &str| hub.said().lines().filter(|line| line.contains(what)).count();
    eventually("it is logged", async || lines("an alert opened") == 1).await;
    tally(&database, "jobs", "total", 0, "probe.ready", 100).await;
    eventually("its end is logged", async || lines("an alert cleared") == 1).await;
    assert_eq!((lines("an alert opened"), lines("queue_backlog")), (1, 2), "{}", hub.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creatorup_that_does_not_answer_is_an_alert_until_it_does() {
    let hub = lonely().set("HEALTH_CHECK_INTERVAL", "30").start().await;
    eventually("nobody answers", async || open(&hub).await.contains(&"creatorup_unreachable".to_owned())).await;
    let health = get(&hub, "health").await;
    let creatorup = &health["creatorup_api"];
    assert_eq!((&creatorup["configured"], &creatorup["reachable"]), (&json!(true), &json!(false)));
    assert!(creatorup["error"].as_str().is_some_and(|error| !error.is_empty()), "{creatorup}");
    assert_eq!((&creatorup["response_time_ms"], health["status"] == "degraded"), (&Value::Null, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_an_alert_in_memory_and_history_when_it_is_back() {
    let Ok(server) = std::env::var("TEST_POSTGRES_URL") else { return }; // A file does not go away.
    let hub = checked_often().start().await;
    // What is last known is what a check has read.
    checked(&hub).await;
    let token = super::token(&hub).await;
    let health = async || {
        let request = reqwest::Client::new().get(hub.url("/api/v1/admin/analytics/health")).bearer_auth(&token);
        crate::harness::json(request).await
    };
    assert_eq!(health().await.1["data"]["status"], json!("healthy"));
    let name = hub.database.url.rsplit('/').next().unwrap().to_owned();
    let operator = Database::connect(&server).await.unwrap();
    let allow = async |allowed: bool| {
        operator.execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")).await.unwrap();
    };
    allow(false).await;
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    let gone_at = hub.clock.now();
    eventually("the alert is open", async || {
        // One that was just being opened may show itself late.
        operator.execute_unprepared(&kill).await.unwrap();
        let (code, answer) = health().await;
        let alerts = answer["data"]["alerts"].as_array().cloned().unwrap_or_default();
        code == 200 && alerts.iter().any(|alert| alert["code"] == "database_down")
    })
    .await;
    let (_, answer) = health().await;
    let data = &answer["data"];
    assert_eq!((&data["status"], &data["database"]["connected"]), (&json!("unhealthy"), &json!(false)), "{answer}");
    assert_eq!((&data["database"]["latency_ms"], &data["queue"]["connected"]), (&Value::Null, &json!(false)));
    assert!(data["error_rates"].is_object(), "what was last known: {answer}");
    eventually("the gauge says so", async || metric(&hub, "database_down").await).await;
    // Whoever the hub does not know, and whoever is no administrator, learns nothing.
    let stranger = reqwest::Client::new().get(hub.url("/api/v1/admin/analytics/health")).bearer_auth("a.b.c");
    assert_eq!(crate::harness::json(stranger).await.0, 401);
    hub.clock.advance(TimeDelta::minutes(2));
    allow(true).await;
    eventually("all is well again", async || health().await.1["data"]["status"] == "healthy").await;
    let history = "SELECT code || ' ' || CAST(extract(epoch FROM opened_at) AS BIGINT) || ' ' \
                   || CAST(extract(epoch FROM cleared_at) AS BIGINT) FROM alerts";
    let expected = format!("database_down {} {}", gone_at.timestamp(), gone_at.timestamp() + 120);
    assert_eq!(hub.database.texts(history).await, [expected], "with its true times, once");
    eventually("the gauge says so", async || !metric(&hub, "database_down").await).await;
    operator.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_open_one_alert() {
    let database = TestDatabase::new().await;
    if !database.is_postgres() {
        return; // A file belongs to one hub.
    }
    let start = || HubProcess::run(HubProcess::command(&database).env("HEALTH_CHECK_INTERVAL", "20"));
    let hubs = [start(), start()];
    for round in 1..=5 {
        tally(&database, "jobs", "total", 0, "probe.ready", 101).await;
        let open = "SELECT COUNT(*) FROM alerts WHERE cleared_at IS NULL";
        eventually("it opens", async || database.count(open).await == 1).await;
        tally(&database, "jobs", "total", 0, "probe.ready", 0).await;
        eventually("it clears", async || database.count(open).await == 0).await;
        assert_eq!(database.count("SELECT COUNT(*) FROM alerts").await, round);
    }
    let lines = |what: &str| -> usize {
        hubs.iter().map(|hub| hub.said().lines().filter(|line| line.contains(what)).count()).sum()
    };
    // What one hub tells may be heard before what the other told earlier.
    let told = || (lines("an alert opened"), lines("an alert cleared"));
    eventually("each is told by one of them", async || told() == (5, 5)).await;
}
