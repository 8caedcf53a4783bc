//! How an integration is: the printed answer, the formula over any past, and that it is of this moment.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use upbridge_client::{Client, Code, v1};
use upbridge_server::model::failure::FailureClass;
use upbridge_server::model::integration::{Action, Counts, LogStatus, NewLog, failure_label};
use uuid::Uuid;

use super::book::{Book, Dice, execute, get, log, request};
use crate::harness::{TestDatabase, fault, noon};

/// Says when the integration was tested last, as a test does.
async fn tested(database: &TestDatabase, id: Uuid, at: DateTime<Utc>) {
    let sql = "UPDATE partner_integrations SET last_test_at = $1, last_test_status = 'success', \
               last_test_message = 'Connection successful', last_test_latency = 245 WHERE id = $2";
    execute(database, sql, vec![at.into(), id.into()]).await;
}

async fn health(client: &Client, id: Uuid, hours: Option<i32>) -> v1::GetIntegrationHealthResponse {
    let request = v1::GetIntegrationHealthRequest { integration_id: id.to_string(), hours };
    client.integrations().get_integration_health(request).await.expect("health").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_figures_are_answered_as_they_are_printed() {
    let book = Book::open().await;
    let id = book.integration().await;
    let class = |n: i64| match n {
        0..15 => Some(FailureClass::Timeout),
        15..20 => Some(FailureClass::Auth),
        _ => None,
    };
    // The failures are spread among what went well, hours ago.
    let minute = |n: i64| noon() - TimeDelta::minutes(120 + n % 500);
    let logs: Vec<NewLog> = (0..1_000).map(|n| request(id, class(n), 245, minute(n))).collect();
    book.write(&logs).await;
    let hub = book.close().await;
    tested(&hub.database, id, noon() - TimeDelta::minutes(330)).await;
    let (code, answer) = get(&hub, &format!("/api/admin/integrations/{id}/health")).await;
    let expected = json!({
        "success": true,
        "data": {
            "integrationId": id,
            "healthStatus": "healthy",
            "healthScore": 98,
            "metrics": {
                "totalRequests": 1000, "successCount": 980, "failedCount": 20, "successRate": 98, "avgResponseTime": 245,
                "uptime": 100,
            },
            "lastTest": {
                "testedAt": "2026-03-15T06:30:00Z", "status": "success", "message": "Connection successful",
                "daysSinceLastTest": 1,
            },
            "errorDistribution": [
                { "type": "Timeout error", "count": 15 }, { "type": "Authentication failed", "count": 5 },
            ],
            "recommendations": ["✅ Integration is healthy. No action required."],
            "checkedAt": "2026-03-15T12:00:00Z",
        },
        "formulaVersion": 1,
        "windowStart": "2026-03-14T12:00:00Z",
        "windowEnd": "2026-03-15T12:00:00Z",
    });
    assert_eq!((code, answer), (200, expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_data_health_is_unknown_and_no_figure_is_made_up() {
    let book = Book::open().await;
    let id = book.integration().await;
    // Neither of these is a request that ended, and the third is out of the window.
    book.write(&[
        log(id, Action::ConfigChange, LogStatus::Success, noon()),
        log(id, Action::Webhook, LogStatus::Pending, noon()),
        log(id, Action::Transaction, LogStatus::Failed, noon()),
        log(id, Action::Webhook, LogStatus::Success, noon() - TimeDelta::hours(24) - TimeDelta::microseconds(1)),
    ])
    .await;
    let hub = book.close().await;
    let (_, answer) = get(&hub, &format!("/api/admin/integrations/{id}/health")).await;
    let data = &answer["data"];
    assert_eq!((&data["healthStatus"], &data["healthScore"]), (&json!("unknown"), &json!(null)));
    let metrics = json!({
        "totalRequests": 0, "successCount": 0, "failedCount": 0, "successRate": null, "avgResponseTime": null,
        "uptime": null,
    });
    let never = json!({ "testedAt": null, "status": null, "message": null, "daysSinceLastTest": null });
    assert_eq!((&data["metrics"], &data["lastTest"]), (&metrics, &never));
    assert_eq!(data["errorDistribution"], json!([]));
    let said: Vec<&str> = data["recommendations"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("ℹ️ Nothing was asked") && said[1].contains("never tested"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_is_in_the_next_answer() {
    let book = Book::open().await;
    let id = book.integration().await;
    book.write(&[request(id, None, 100, noon())]).await;
    let hub = book.close().await;
    let client = hub.admin().await;
    assert_eq!(health(&client, id, None).await.health.unwrap().metrics.unwrap().success_rate, Some(100.0));
    // As another hub would, in one transaction.
    for (span, starts_at, minutes) in [("minute", noon().timestamp(), 0), ("hour", noon().timestamp(), 1)] {
        let sql = "INSERT INTO integration_counts (integration_id, span, starts_at, action, status, error_class, shard, \
                   count, timed, millis, minutes) VALUES ($1, $2, $3, 'test', 'failed', 'auth', 99, 1, 1, 300, $4)";
        execute(&hub.database, sql, vec![id.into(), span.into(), starts_at.into(), minutes.into()]).await;
    }
    let now = health(&client, id, None).await.health.unwrap();
    let metrics = now.metrics.unwrap();
    assert_eq!((metrics.success_rate, metrics.avg_response_time, metrics.uptime), (Some(50.0), Some(200), Some(100.0)));
    assert!(now.recommendations[0].starts_with("🔴 The credentials were refused once"), "{:?}", now.recommendations);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_are_hours_within_a_month_of_an_integration_there_is() {
    let book = Book::open().await;
    let id = book.integration().await;
    let hub = book.close().await;
    let client = hub.admin().await;
    let ask = |id: Uuid, hours| v1::GetIntegrationHealthRequest { integration_id: id.to_string(), hours };
    for hours in [0, 721, -1] {
        assert_eq!(fault(client.integrations().get_integration_health(ask(id, Some(hours))).await), "hours");
    }
    let unknown = client.integrations().get_integration_health(ask(Uuid::now_v7(), None)).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    let (code, answer) = get(&hub, &format!("/api/admin/integrations/{id}/health?hours=1")).await;
    assert_eq!((code, &answer["windowStart"]), (200, &json!("2026-03-15T11:00:00Z")));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_tell_nothing_are_recommended_to_be_mended() {
    let book = Book::open().await;
    let id = book.integration().await;
    book.write(&[request(id, None, 100, noon())]).await;
    let webhook = Uuid::now_v7();
    let insert = "INSERT INTO integration_webhooks (id, integration_id, webhook_url, webhook_secret, secret_key_id, \
                  secret_masked, events, is_active, disabled_at, disabled_reason) VALUES ($1, $2, \
                  'https://partner.example/hook?token=secret', 'v1', 'none', '••••', $3, FALSE, $4, '10 failed')";
    book.execute(insert, vec![webhook.into(), id.into(), json!([]).into(), noon().into()]).await;
    let insert = "INSERT INTO webhook_deliveries (id, webhook_id, integration_id, event, payload, status) \
                  VALUES ($1, $2, $3, 'payment.success', '{}', $4)";
    for status in ["held", "held", "failed"] {
        book.execute(insert, vec![Uuid::now_v7().into(), webhook.into(), id.into(), status.into()]).await;
    }
    let hub = book.close().await;
    tested(&hub.database, id, noon()).await;
    let said = health(&hub.admin().await, id, None).await.health.unwrap().recommendations;
    let disabled = "🟠 The webhook https://partner.example/hook was disabled by the hub, 2026-03-15 12:00 UTC: 10 failed. \
                    Repair what receives it, then enable it.";
    assert_eq!(
        said,
        [disabled, "🟡 2 deliveries are held for disabled webhooks. Enable them, then replay what is held."]
    );
}

/// Requests of 40 days, most of them of the last, at odd moments and at the bounds of minutes and hours.
fn past(id: Uuid, dice: &mut Dice) -> Vec<NewLog> {
    const CLASSES: [FailureClass; 3] = [FailureClass::Timeout, FailureClass::Auth, FailureClass::RateLimited];
    (0..4_000)
        .map(|n| {
            let scale = [3_600, 86_400, 3 * 86_400, 40 * 86_400][n % 4];
            let mut at = noon() - TimeDelta::microseconds(dice.roll(scale * 1_000_000));
            if dice.roll(5) == 0 {
                at = DateTime::from_timestamp(at.timestamp() - at.timestamp().rem_euclid(60), 0).unwrap();
            }
            let class = (dice.roll(3) == 0).then(|| dice.pick(&CLASSES));
            let action =
                dice.pick(&[Action::Webhook, Action::Webhook, Action::Test, Action::Error, Action::Transaction]);
            let status = if dice.roll(20) == 0 { LogStatus::Pending } else { request(id, class, 0, at).status };
            let class = class.filter(|_| status == LogStatus::Failed);
            let duration = (dice.roll(4) > 0).then(|| dice.roll(900) as i32);
            let counts = [Counts::Aside, Counts::Unproved, Counts::Request, Counts::Request, Counts::Request];
            NewLog { action, class, duration, counts: dice.pick(&counts), ..log(id, action, status, at) }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_window_is_what_counting_entry_by_entry_finds() {
    let book = Book::open().await;
    let id = book.integration().await;
    let mut dice = Dice::new(23);
    let logs = past(id, &mut dice);
    book.write(&logs).await;
    let hub = book.close().await;
    let client = hub.admin().await;
    for step in 0..12 {
        // Whole and odd minutes.
        hub.clock.advance(TimeDelta::seconds(if step == 0 { 0 } else { 307 }));
        for hours in [1, 2, 24, 25, 48, 49, 720] {
            compare(&health(&client, id, Some(hours)).await, &logs, hours);
        }
    }
}

fn compare(answer: &v1::GetIntegrationHealthResponse, logs: &[NewLog], hours: i32) {
    let start = answer.window_start.as_ref().unwrap();
    let start = DateTime::from_timestamp(start.seconds, 0).unwrap();
    let is_request = |log: &&NewLog| {
        log.at >= start
            && log.status != LogStatus::Pending
            && log.counts == Counts::Request
            && !matches!(log.action, Action::Transaction | Action::ConfigChange)
    };
    let requests: Vec<&NewLog> = logs.iter().filter(is_request).collect();
    let good: Vec<&&NewLog> = requests.iter().filter(|log| log.status == LogStatus::Success).collect();
    let minute = |log: &NewLog| log.at.timestamp().div_euclid(60);
    let observed: BTreeSet<i64> = requests.iter().map(|log| minute(log)).collect();
    let up: BTreeSet<i64> = good.iter().map(|log| minute(log)).collect();
    let timed: Vec<i64> = requests.iter().filter_map(|log| log.duration.map(i64::from)).collect();
    let health = answer.health.as_ref().unwrap();
    let metrics = health.metrics.as_ref().unwrap();
    let (total, success) = (requests.len() as i64, good.len() as i64);
    assert_eq!((metrics.total_requests, metrics.success_count), (total, success), "{hours} h from {start}");
    assert_eq!(metrics.failed_count, total - success);
    let average = timed.iter().sum::<i64>() as f64 / timed.len() as f64;
    assert_eq!(metrics.avg_response_time, Some((average + 0.5).floor() as i64), "{hours} h from {start}");
    let uptime = 100.0 * up.len() as f64 / observed.len() as f64;
    assert!((metrics.uptime.unwrap() - uptime).abs() <= 0.1, "{uptime} of {hours} h from {start}: {metrics:?}");
    let mut errors: BTreeMap<&str, i64> = BTreeMap::new();
    let classes = requests.iter().filter(|log| log.status == LogStatus::Failed).map(|log| log.class);
    classes.for_each(|class| *errors.entry(class.map_or("Unknown error", failure_label)).or_default() += 1);
    let told: BTreeMap<&str, i64> =
        health.error_distribution.iter().map(|one| (one.r#type.as_str(), one.count)).collect();
    assert_eq!(told, errors);
    assert_eq!(told.values().sum::<i64>(), metrics.failed_count);
    assert!(health.error_distribution.windows(2).all(|pair| pair[0].count >= pair[1].count));
}
