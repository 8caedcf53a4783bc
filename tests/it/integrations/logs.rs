//! What happened to an integration: listed, filtered, counted.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::json;
use upbridge_client::{Client, Code, v1};
use upbridge_server::model::failure::FailureClass;
use upbridge_server::model::integration::{Action, LogStatus, NewLog};
use uuid::Uuid;

use super::book::{Book, Dice, get, log};
use crate::harness::{TestHub, fault, noon};

const ACTIONS: [Action; 5] = [Action::Test, Action::Webhook, Action::Transaction, Action::Error, Action::ConfigChange];
const STATUSES: [LogStatus; 3] = [LogStatus::Success, LogStatus::Failed, LogStatus::Pending];

async fn list(client: &Client, request: v1::ListIntegrationLogsRequest) -> v1::ListIntegrationLogsResponse {
    client.integrations().list_integration_logs(request).await.expect("a page").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_the_log_has_the_printed_members_and_no_others() {
    let book = Book::open().await;
    let id = book.integration().await;
    let user = Uuid::now_v7();
    let full = NewLog {
        message: "Timeout".into(),
        request: Some(json!({ "url": "https://api.example/v1" })),
        response: Some(json!({ "status": 504 })),
        class: Some(FailureClass::Timeout),
        error: Some(json!({ "after_ms": 10_000 })),
        duration: Some(10_001),
        ip: Some("192.0.2.7".into()),
        user_agent: Some("curl/8".into()),
        user_id: Some(user),
        ..log(id, Action::Test, LogStatus::Failed, noon())
    };
    let bare = log(id, Action::ConfigChange, LogStatus::Success, noon() - TimeDelta::milliseconds(1));
    book.write(&[full.clone(), bare.clone()]).await;
    let hub = book.close().await;
    let (code, answer) = get(&hub, &format!("/api/admin/integrations/{id}/logs?page=1&limit=50")).await;
    let expected = json!({
        "success": true,
        "data": [
            {
                "id": full.id, "integrationId": id, "action": "test", "status": "failed", "message": "Timeout",
                "requestData": { "url": "https://api.example/v1" }, "responseData": { "status": 504 },
                "errorDetails": { "class": "timeout", "after_ms": 10_000 }, "duration": 10_001,
                "ipAddress": "192.0.2.7", "userAgent": "curl/8", "userId": user, "createdAt": "2026-03-15T12:00:00Z",
            },
            {
                "id": bare.id, "integrationId": id, "action": "config_change", "status": "success",
                "message": "config_change success", "requestData": null, "responseData": null, "errorDetails": null,
                "duration": null, "ipAddress": null, "userAgent": null, "userId": null,
                "createdAt": "2026-03-15T11:59:59.999Z",
            },
        ],
        "stats": [
            { "action": "test", "status": "failed", "count": 1 },
            { "action": "config_change", "status": "success", "count": 1 },
        ],
        "pagination": { "total": 2, "page": 1, "limit": 50, "totalPages": 1 },
    });
    assert_eq!((code, answer), (200, expected));
    // The total is of what was asked for, the statistics are of everything.
    let path = format!("/api/admin/integrations/{id}/logs?page=1&limit=50&action=config_change&status=success");
    let (_, answer) = get(&hub, &path).await;
    assert_eq!(answer["pagination"]["total"], 1);
    assert_eq!(answer["stats"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_counted_and_one_past_the_end_is_empty() {
    let book = Book::open().await;
    let (id, other) = (book.integration().await, book.integration().await);
    let at = |n: i64| noon() - TimeDelta::seconds(n);
    let logs: Vec<NewLog> = (0..150).map(|n| log(id, Action::Webhook, LogStatus::Success, at(n))).collect();
    book.write(&logs).await;
    book.write(&[log(other, Action::Test, LogStatus::Failed, noon())]).await;
    let hub = book.close().await;
    let client = hub.admin().await;
    let ask = |page: i32| v1::ListIntegrationLogsRequest {
        integration_id: id.to_string(),
        page: Some(page),
        ..Default::default()
    };
    let third = list(&client, ask(3)).await;
    let pagination = v1::IntegrationLogPagination { total: 150, page: 3, limit: 50, total_pages: 3 };
    assert_eq!((third.logs.len(), third.pagination), (50, Some(pagination)));
    assert_eq!(third.logs.last().map(|log| log.id.clone()), logs.last().map(|log| log.id.to_string()));
    let fourth = list(&client, ask(4)).await;
    assert_eq!(
        (fourth.logs.len(), fourth.pagination),
        (0, Some(v1::IntegrationLogPagination { page: 4, ..pagination }))
    );
    let last = list(&client, ask(1_000_000)).await;
    assert_eq!((last.logs.len(), last.pagination.unwrap().total), (0, 150));
    // Nothing ever happened here.
    let empty = v1::ListIntegrationLogsRequest { action: Some(v1::IntegrationAction::Error.into()), ..ask(1) };
    assert_eq!(list(&client, empty).await.pagination.unwrap().total_pages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_listed_is_refused_by_name() {
    let book = Book::open().await;
    let id = book.integration().await.to_string();
    let hub = book.close().await;
    let client = hub.admin().await;
    let mut calls = client.integrations();
    let plain = v1::ListIntegrationLogsRequest { integration_id: id.clone(), ..Default::default() };
    let text = |text: &str| Some(text.to_owned());
    let refused = [
        ("page", v1::ListIntegrationLogsRequest { page: Some(0), ..plain.clone() }),
        ("limit", v1::ListIntegrationLogsRequest { limit: Some(201), ..plain.clone() }),
        ("limit", v1::ListIntegrationLogsRequest { limit: Some(0), ..plain.clone() }),
        ("action", v1::ListIntegrationLogsRequest { action: Some(9), ..plain.clone() }),
        ("status", v1::ListIntegrationLogsRequest { status: Some(0), ..plain.clone() }),
        ("start_date", v1::ListIntegrationLogsRequest { start_date: text("21-02-2026"), ..plain.clone() }),
        ("end_date", v1::ListIntegrationLogsRequest { end_date: text("2026-02-30"), ..plain.clone() }),
        (
            "start_date",
            v1::ListIntegrationLogsRequest {
                start_date: text("2026-02-22"),
                end_date: text("2026-02-21"),
                ..plain.clone()
            },
        ),
        ("integration_id", v1::ListIntegrationLogsRequest { integration_id: "7".into(), ..plain.clone() }),
    ];
    for (field, request) in refused {
        let answer = calls.list_integration_logs(request.clone()).await;
        assert!(answer.is_err(), "{request:?}");
        assert_eq!(fault(answer), field);
    }
    let unknown = v1::ListIntegrationLogsRequest { integration_id: Uuid::now_v7().to_string(), ..plain };
    assert_eq!(calls.list_integration_logs(unknown).await.unwrap_err().code(), Code::NotFound);
    for query in ["action=nonsense", "status=ok", "startDate=yesterday", "limit=many"] {
        let (code, answer) = get(&hub, &format!("/api/admin/integrations/{id}/logs?{query}")).await;
        let field = query.split('=').next().unwrap();
        assert_eq!((code, answer["error"]["details"][0]["field"].as_str()), (400, Some(field)), "{answer}");
    }
    let crossed = format!("/api/admin/integrations/{id}/logs?startDate=2026-02-22&endDate=2026-02-21");
    let (code, answer) = get(&hub, &crossed).await;
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!((code, message), (400, "startDate must not be after endDate"), "in the spelling it was asked in");
}

const DAY: i64 = 86_400;

/// Where much happened: how many seconds ago it ended, and for how many it had gone on. Some of it is too old for counts
/// of minutes, and some for those of hours.
const PLACES: [(i64, i64); 8] = [
    (0, 3_600),
    (0, DAY),
    (0, 5 * DAY),
    (0, 60 * DAY),
    (0, 700 * DAY),
    (12 * DAY, 7_200),
    (40 * DAY, 7_200),
    (450 * DAY, 2 * DAY),
];

/// A past of 9,000 entries: many today, fewer in the days before, and now and then a busy hour or day.
fn past(id: Uuid, dice: &mut Dice) -> Vec<NewLog> {
    (0..9_000)
        .map(|_| {
            let whole = noon() - TimeDelta::seconds(place(dice));
            // Some at the very beginning of a minute, an hour or a day, some just before it.
            let at = match dice.roll(6) {
                0 => floor(whole, 60),
                1 => floor(whole, 3_600) - TimeDelta::microseconds(1),
                2 => floor(whole, DAY),
                _ => whole + TimeDelta::microseconds(dice.roll(1_000_000)),
            };
            let action = if dice.roll(3) > 0 { Action::Webhook } else { dice.pick(&ACTIONS) };
            let status = if dice.roll(4) > 0 { LogStatus::Success } else { dice.pick(&STATUSES) };
            log(id, action, status, at.min(noon()))
        })
        .collect()
}

/// A number of seconds ago.
fn place(dice: &mut Dice) -> i64 {
    let (ended, went_on) = dice.pick(&PLACES);
    ended + dice.roll(went_on)
}

fn floor(at: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp() - at.timestamp().rem_euclid(seconds), 0).unwrap()
}

/// Where a range begins and ends, and how that is asked for.
type Range = (Option<DateTime<Utc>>, Option<DateTime<Utc>>, Option<String>, Option<String>);

/// A range of days, times, or both, or none.
fn range(dice: &mut Dice) -> Range {
    let mut one = noon() - TimeDelta::seconds(place(dice)) - TimeDelta::microseconds(dice.roll(1_000_000));
    let mut other = match dice.roll(3) {
        // In the same minute or hour, or so near that it may be in the next; or there is nothing between them.
        0 => {
            let most = dice.pick(&[1, 60_000_000, 3_600_000_000, 7_200_000_000]);
            one + TimeDelta::microseconds(dice.roll(most))
        }
        _ => noon() - TimeDelta::seconds(place(dice)) - TimeDelta::microseconds(dice.roll(1_000_000)),
    };
    if dice.roll(3) == 0 {
        let step = dice.pick(&[60, 3_600, DAY]);
        (one, other) = (floor(one, step), floor(other, step));
    }
    let (from, to) = (one.min(other), one.max(other));
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let day = |at: DateTime<Utc>| at.format("%Y-%m-%d").to_string();
    match dice.roll(6) {
        0 => (None, None, None, None),
        1 => (Some(from), None, Some(time(from)), None),
        2 => (None, Some(to), None, Some(time(to))),
        3 => {
            let (first, last) = (floor(from, DAY), floor(to, DAY) + TimeDelta::days(1));
            (Some(first), Some(last), Some(day(from)), Some(day(to)))
        }
        _ => (Some(from), Some(to), Some(time(from)), Some(time(to))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_total_and_statistic_is_what_counting_entry_by_entry_finds() {
    let book = Book::open().await;
    let (id, other) = (book.integration().await, book.integration().await);
    let mut dice = Dice::new(17);
    let mut logs = past(id, &mut dice);
    book.write(&logs).await;
    let elsewhere: Vec<NewLog> =
        past(other, &mut dice).into_iter().filter(|log| log.at > noon() - TimeDelta::hours(40)).take(500).collect();
    book.write(&elsewhere).await;
    logs.sort_by_key(|log| std::cmp::Reverse((log.at, log.id)));
    let hub = book.close().await;
    let client = hub.admin().await;
    for _ in 0..250 {
        compare(&client, id, &logs, &mut dice).await;
    }
    explained(&hub).await;
    // What is removed is counted no more: after its time, and when somebody wants less to be kept.
    for days in [None, Some(13), Some(2)] {
        let cleanup = v1::CleanupOldDataRequest { days, dry_run: false };
        let cleaned = client.analytics().cleanup_old_data(cleanup).await.unwrap().into_inner();
        let before = logs.len();
        logs.retain(|log| log.at >= noon() - TimeDelta::days(days.unwrap_or(90).into()));
        assert_eq!(cleaned.deleted["integration_logs"], (before - logs.len()) as i64);
        assert!(!cleaned.more && logs.len() < before);
        for _ in 0..150 {
            compare(&client, id, &logs, &mut dice).await;
        }
    }
}

/// Asks for any page of any filter.
async fn compare(client: &Client, id: Uuid, logs: &[NewLog], dice: &mut Dice) {
    let (from, to, start_date, end_date) = range(dice);
    let action = (dice.roll(2) == 0).then(|| dice.pick(&ACTIONS));
    let status = (dice.roll(2) == 0).then(|| dice.pick(&STATUSES));
    let within = |log: &&NewLog| from.is_none_or(|from| log.at >= from) && to.is_none_or(|to| log.at < to);
    let dated: Vec<&NewLog> = logs.iter().filter(within).collect();
    let mut stats: BTreeMap<(Action, LogStatus), i64> = BTreeMap::new();
    dated.iter().for_each(|log| *stats.entry((log.action, log.status)).or_default() += 1);
    let chosen = |log: &&&NewLog| {
        action.is_none_or(|action| log.action == action) && status.is_none_or(|status| log.status == status)
    };
    let found: Vec<&&NewLog> = dated.iter().filter(chosen).collect();
    let limit = dice.pick(&[1, 7, 50, 200]);
    let pages = (found.len() as i64).div_euclid(limit) + 1;
    let page = if dice.roll(2) == 0 { 1 } else { 1 + dice.roll(pages + 1) };
    let request = v1::ListIntegrationLogsRequest {
        integration_id: id.to_string(),
        page: Some(page as i32),
        limit: Some(limit as i32),
        action: action.map(|action| action.place() as i32 + 1),
        status: status.map(|status| status.place() as i32 + 1),
        start_date,
        end_date,
    };
    let answer = list(client, request.clone()).await;
    let expected = found.iter().skip(((page - 1) * limit) as usize).take(limit as usize);
    let expected: Vec<String> = expected.map(|log| log.id.to_string()).collect();
    let ids: Vec<String> = answer.logs.into_iter().map(|log| log.id).collect();
    assert_eq!(ids, expected, "{request:?}");
    let pagination = answer.pagination.expect("pagination");
    assert_eq!(pagination.total, found.len() as i64, "{request:?}");
    assert_eq!(i64::from(pagination.total_pages), (found.len() as i64 + limit - 1) / limit);
    let told = answer.stats.iter().map(|stat| (stat.action, stat.status, stat.count)).collect::<Vec<_>>();
    let place = |((action, status), count): (&(Action, LogStatus), &i64)| {
        (action.place() as i32 + 1, status.place() as i32 + 1, *count)
    };
    assert_eq!(told, stats.iter().map(place).collect::<Vec<_>>(), "{request:?}");
}

/// SQLite says which index it takes; PostgreSQL's choice depends on how much there is.
async fn explained(hub: &TestHub) {
    if hub.database.is_postgres() {
        return;
    }
    let plan = async |sql: &str| {
        let connection = hub.database.connect().await;
        use sea_orm::ConnectionTrait;
        let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
        let rows = connection.query_all_raw(statement).await.unwrap();
        rows.iter().map(|row| row.try_get::<String>("", "detail").unwrap()).collect::<Vec<_>>().join("; ")
    };
    let explain = "EXPLAIN QUERY PLAN SELECT";
    let of = "FROM integration_logs WHERE integration_id = x'00'";
    for (filter, index) in [
        ("", "COVERING INDEX integration_logs_by_time"),
        (" AND created_at >= '2026' AND created_at < '2027'", "COVERING INDEX integration_logs_by_time"),
        (" AND action = 'test' AND action <> 'webhook'", "integration_logs_of_rare_actions"),
        (" AND status = 'failed' AND status <> 'success'", "integration_logs_not_well"),
        (" AND action = 'webhook' AND status = 'success'", "COVERING INDEX integration_logs_by_time"),
    ] {
        let plan =
            plan(&format!("{explain} id {of}{filter} ORDER BY created_at DESC, id DESC LIMIT 50 OFFSET 0")).await;
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{filter}: {plan}");
    }
    // The ends of a range are counted without the table, and only what did not go well is sorted.
    let counted = format!("{explain} action, status, COUNT(*) {of} AND created_at >= '2026' AND created_at < '2027'");
    for (filter, index) in [
        ("", "COVERING INDEX integration_logs_by_time"),
        (" AND status <> 'success' GROUP BY action, status", "COVERING INDEX integration_logs_not_well"),
        (
            " AND status = 'success' AND action <> 'webhook' AND action IN ('test', 'transaction', 'error', \
             'config_change') GROUP BY action, status",
            "COVERING INDEX integration_logs_of_rare_actions",
        ),
    ] {
        let plan = plan(&format!("{counted}{filter}")).await;
        let is_sorted = plan.contains("TEMP B-TREE");
        assert!(plan.contains(index) && is_sorted == filter.contains("<> 'success'"), "{filter}: {plan}");
    }
}
