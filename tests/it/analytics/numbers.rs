//! The numbers: each block against the tables it counts, and the edges of periods.

use chrono::TimeDelta;
use reqwest::Client as Http;
use serde_json::{Value, json};
use upbridge_client::{Code, v1};

use super::{get, lonely, settled, swept, token};
use crate::harness::{HubProcess, Peer, Setup, TestHub, eventually, fault, json, keyed, record, refusal, usage};

#[tokio::test(flavor = "multi_thread")]
async fn every_block_says_what_the_tables_say() {
    let hub = swept(lonely()).await;
    let members = [hub.subscriber(3).await, hub.subscriber(3).await, hub.member().await];
    for name in ["one", "two", "three"] {
        members[0].client.usage().record_usage(record(usage(name))).await.unwrap();
    }
    let cloud = v1::UsageData { usage_type: "cloud_rendering".into(), usage_amount: Some(7), ..usage("four") };
    members[1].client.usage().record_usage(record(cloud)).await.unwrap();
    settled(&hub.database).await;

    let client = hub.admin().await;
    let numbers = client.analytics().get_sync_analytics(v1::GetSyncAnalyticsRequest::default()).await.unwrap();
    let numbers = numbers.into_inner();
    assert_eq!((numbers.period.as_str(), numbers.as_of), ("30d", crate::harness::at("2026-03-15T12:00:00Z")));
    let count = async |sql: &str| hub.database.count(&format!("SELECT COUNT(*) FROM {sql}")).await;
    let users = numbers.users.unwrap();
    assert_eq!(users.total, count("users").await);
    for (status, counted) in [("synced", users.synced), ("pending", users.pending), ("error", users.error)] {
        assert_eq!(counted, count(&format!("users WHERE sync_status = '{status}'")).await, "{status}");
    }
    assert!(users.error >= 3, "nobody could be pushed: {users:?}");
    let events = numbers.events.unwrap();
    assert_eq!(events.total, count("sync_events").await);
    for (status, counted) in [("completed", events.completed), ("failed", events.failed), ("pending", events.pending)] {
        assert_eq!(counted, count(&format!("sync_events WHERE status = '{status}'")).await, "{status}");
    }
    assert_eq!((events.completed, events.pending), (4, 0), "usage needs no push, and everything else was tried");
    let rate = 4.0 / (4 + events.failed) as f64;
    assert_eq!(events.success_rate, Some(rate));
    let types: i64 = events.by_type.values().map(|counts| counts.total).sum();
    assert_eq!((types, events.by_type["usage_sync"].completed), (events.total, 4));

    let found = numbers.usage.unwrap();
    assert_eq!((found.total_records, found.total_amount), (4, 10));
    assert_eq!(found.all_time, Some(v1::UsageSum { records: 4, amount: 10 }));
    assert_eq!(found.monthly, [("2026-03".to_owned(), v1::UsageSum { records: 4, amount: 10 })].into());
    assert_eq!(found.daily, [("2026-03-15".to_owned(), v1::UsageSum { records: 4, amount: 10 })].into());
    assert_eq!(found.by_type["cloud_rendering"], v1::UsageSum { records: 1, amount: 7 });
    let queue = numbers.queue.unwrap();
    assert!(queue.available && queue.failed > 0 && queue.dead == queue.failed, "{queue:?}");
    assert_eq!((queue.waiting, queue.active, queue.delayed, queue.oldest_ready_seconds), (0, 0, 0, None));
    assert!(queue.processing_p50_ms.unwrap() > 0.0 && queue.processing_p95_ms >= queue.processing_p50_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_counted_where_their_copies_stand() {
    let peer = Peer::start().await;
    let hub = Setup::default().set("CREATORUP_API_URL", peer.url()).start().await;
    let members = [hub.member().await, hub.member().await];
    let standing = async || {
        let users = get(&hub, "sync").await["users"].take();
        ["total", "synced", "pending", "error"].map(|status| users[status].as_i64().unwrap())
    };
    eventually("all are synced", async || standing().await == [3, 3, 0, 0]).await;
    // A push that is still under way would tell the next change, paused or not.
    settled(&hub.database).await;
    hub.database.execute("INSERT INTO paused_kinds (kind, paused_at) VALUES ('user_sync', CURRENT_TIMESTAMP)").await;
    let rename =
        v1::UpdateUserRequest { user_id: members[0].id.clone(), name: Some("Another".into()), ..Default::default() };
    hub.admin().await.users().update_user(rename).await.unwrap();
    assert_eq!(standing().await, [3, 2, 1, 0]);
    let delete = v1::DeleteUserRequest { user_id: members[0].id.clone() };
    hub.admin().await.users().delete_user(delete).await.unwrap();
    assert_eq!(standing().await, [2, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_queue_the_rest_is_still_answered() {
    let hub = TestHub::start().await;
    hub.database.execute("DROP TABLE paused_kinds").await;
    let numbers = get(&hub, "sync").await;
    assert_eq!((&numbers["queue"]["available"], &numbers["users"]["total"]), (&json!(false), &json!(1)));
    let health = get(&hub, "health").await;
    assert_eq!((&health["queue"]["connected"], &health["database"]["connected"]), (&json!(false), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_nothing_has_no_rate() {
    let hub = TestHub::start().await;
    hub.database.execute("DELETE FROM tallies WHERE metric = 'events'").await;
    let numbers = get(&hub, "sync?period=24h").await;
    assert_eq!((&numbers["events"]["total"], &numbers["events"]["success_rate"]), (&json!(0), &Value::Null));
    assert_eq!((&numbers["webhooks"]["total"], &numbers["webhooks"]["success_rate"]), (&json!(0), &Value::Null));
    assert_eq!((&numbers["usage"]["total_records"], &numbers["usage"]["monthly"]), (&json!(0), &json!({})));
    assert_eq!(get(&hub, "health").await["error_rates"]["sync_events"]["rate"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_counts_what_lies_in_it_and_nothing_older() {
    let hub = swept(lonely()).await;
    let member = hub.subscriber(3).await;
    member.client.usage().record_usage(record(usage("old"))).await.unwrap();
    settled(&hub.database).await;
    let failed = hub.database.count("SELECT COUNT(*) FROM sync_events WHERE status = 'failed'").await;
    let total = hub.database.count("SELECT COUNT(*) FROM sync_events").await;
    let shows = async |period: &str| {
        let numbers = get(&hub, &format!("sync?period={period}")).await;
        (numbers["events"]["total"].as_i64().unwrap(), numbers["usage"]["total_records"].as_i64().unwrap())
    };
    assert_eq!(get(&hub, "health").await["error_rates"]["sync_events"]["failed"], json!(failed));
    // The first instant of the period belongs to it; a minute later that instant is outside.
    hub.clock.advance(TimeDelta::hours(24));
    assert_eq!((shows("24h").await, shows("23h").await), ((total, 1), (0, 0)));
    hub.clock.advance(TimeDelta::minutes(1));
    assert_eq!(shows("24h").await.0, 0);
    hub.clock.advance(TimeDelta::minutes(59));
    let rates = get(&hub, "health").await["error_rates"].clone();
    assert_eq!((&rates["sync_events"]["failed"], &rates["since"]), (&json!(0), &json!("2026-03-15T13:00:00Z")));
    assert_eq!((shows("1d").await, shows("2d").await), ((0, 0), (total, 1)));
    hub.clock.advance(TimeDelta::days(30));
    assert_eq!((shows("30d").await, shows("90d").await, shows("366d").await), ((0, 0), (total, 1), (total, 1)));
    assert_eq!(get(&hub, "sync").await["usage"]["all_time"], json!({ "records": 1, "amount": 1 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_period_is_named() {
    let hub = TestHub::start().await;
    let client = hub.admin().await;
    for period in ["30", "0d", "367d", "73h", "1w", "d", "-1d", "٣d"] {
        let request = v1::GetSyncAnalyticsRequest { period: Some(period.into()) };
        assert_eq!(fault(client.analytics().get_sync_analytics(request).await), "period", "{period}");
    }
    let request = Http::new().get(hub.url("/api/v1/admin/analytics/sync?period=soon")).bearer_auth(token(&hub).await);
    let (code, answer) = json(request).await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("period")));
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_moves_with_its_amendment_and_goes_with_its_user() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(3).await;
    let report = |amount: i32, completed_at: &str| {
        let completed_at = crate::harness::at(completed_at);
        keyed("key", v1::UsageData { usage_amount: Some(amount), completed_at, ..usage("batch") })
    };
    member.client.usage().record_usage(report(3, "2026-02-20T10:00:00Z")).await.unwrap();
    member.client.usage().record_usage(report(5, "2026-03-02T10:00:00Z")).await.unwrap();
    // A month of its own: counted at the first instant of that month, as the ledger counts it there.
    let elsewhere = v1::UsageData {
        month_year: Some("2026-01".into()),
        completed_at: crate::harness::at("2026-03-03T10:00:00Z"),
        ..usage("elsewhere")
    };
    member.client.usage().record_usage(record(elsewhere)).await.unwrap();
    let shown = async || {
        let usage = get(&hub, "sync?period=90d").await["usage"].take();
        (usage["monthly"].clone(), usage["total_amount"].clone())
    };
    let expected = json!({ "2026-01": { "records": 1, "amount": 1 }, "2026-03": { "records": 1, "amount": 5 } });
    assert_eq!(shown().await, (expected.clone(), json!(6)));

    // Made anew from the ledger it is the same.
    hub.database.execute("UPDATE tallies SET count = 99, amount = 99 WHERE metric = 'usage'").await;
    let database = hub.stop().await;
    let rebuilt = HubProcess::command(&database).arg("rebuild-usage").output().unwrap();
    assert!(rebuilt.status.success(), "{}", String::from_utf8_lossy(&rebuilt.stderr));
    let hub = Setup::default().start_on(database).await;
    let usage = get(&hub, "sync?period=90d").await["usage"].take();
    assert_eq!(
        (&usage["monthly"], &usage["total_amount"], &usage["all_time"]["amount"]),
        (&expected, &json!(6), &json!(6))
    );

    let delete = v1::DeleteUserRequest { user_id: member.id.clone() };
    hub.admin().await.users().delete_user(delete).await.unwrap();
    let numbers = get(&hub, "sync?period=90d").await;
    assert_eq!((&numbers["usage"]["total_amount"], &numbers["usage"]["all_time"]["records"]), (&json!(0), &json!(0)));
    assert_eq!(numbers["users"]["total"], json!(hub.database.count("SELECT COUNT(*) FROM users").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_numbers_are_theirs_alone() {
    let hub = swept(lonely()).await;
    let (member, other) = (hub.subscriber(3).await, hub.subscriber(3).await);
    member.client.usage().record_usage(record(usage("mine"))).await.unwrap();
    other.client.usage().record_usage(record(usage("theirs"))).await.unwrap();
    settled(&hub.database).await;
    let client = hub.admin().await;
    let ask = |user_id: &str| v1::GetUserSyncAnalyticsRequest { user_id: user_id.into() };
    let numbers = client.analytics().get_user_sync_analytics(ask(&member.id)).await.unwrap().into_inner();
    assert_eq!((numbers.user_id.as_str(), numbers.sync_status), (member.id.as_str(), v1::SyncStatus::Error as i32));
    let events = numbers.events.unwrap();
    assert_eq!((events.total, events.failed, events.success_rate), (2, 2, Some(0.0)));
    assert_eq!(numbers.recent_events.len(), 2);
    assert!(numbers.recent_events.iter().all(|event| event.error_message.is_some()));
    assert_eq!(numbers.webhooks.unwrap().success_rate, None);
    assert_eq!(numbers.usage, Some(v1::UsageSum { records: 1, amount: 1 }));
    assert_eq!(numbers.usage_by_month.keys().collect::<Vec<_>>(), ["2026-03"]);
    assert!(numbers.as_of.is_some());

    let nobody = uuid::Uuid::now_v7().to_string();
    let refused = refusal(client.analytics().get_user_sync_analytics(ask(&nobody)).await);
    assert_eq!(refused, (Code::NotFound, "NOT_FOUND".to_owned()));
    assert_eq!(fault(client.analytics().get_user_sync_analytics(ask("nobody")).await), "user_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_events_are_listed_with_their_errors_page_by_page() {
    let hub = swept(lonely()).await;
    let member = hub.subscriber(3).await;
    hub.subscriber(3).await;
    member.client.usage().record_usage(record(usage("batch"))).await.unwrap();
    settled(&hub.database).await;
    let client = hub.admin().await;
    let list = async |request: v1::ListSyncEventsRequest| {
        client.analytics().list_sync_events(request).await.map(|listed| listed.into_inner())
    };
    let failed = v1::ListSyncEventsRequest { status: Some("failed".into()), page_size: Some(2), ..Default::default() };
    let (mut seen, mut request) = (Vec::new(), failed.clone());
    loop {
        let page = list(request.clone()).await.unwrap();
        assert!(page.as_of.is_some() && page.events.len() <= 2);
        for event in &page.events {
            assert_eq!(event.status, "failed");
            assert!(event.error_message.as_deref().is_some_and(|error| !error.is_empty()), "{event:?}");
        }
        seen.extend(page.events.into_iter().map(|event| event.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = Some(page.next_page_token);
    }
    assert!(seen.is_sorted_by(|one, other| one > other), "newest first, none twice: {seen:?}");
    let count = hub.database.count("SELECT COUNT(*) FROM sync_events WHERE status = 'failed'").await;
    assert_eq!((seen.len() as i64, count >= 4), (count, true));

    let of = |event_type: Option<&str>, status: Option<&str>, user: bool| v1::ListSyncEventsRequest {
        event_type: event_type.map(str::to_owned),
        status: status.map(str::to_owned),
        user_id: user.then(|| member.id.clone()),
        ..Default::default()
    };
    let kinds = async |request: v1::ListSyncEventsRequest| {
        let listed = list(request).await.unwrap().events;
        listed.into_iter().map(|event| event.event_type).collect::<Vec<_>>()
    };
    assert_eq!(kinds(of(Some("usage_sync"), None, false)).await, ["usage_sync"]);
    assert_eq!(kinds(of(None, Some("completed"), false)).await, ["usage_sync"]);
    assert_eq!(kinds(of(Some("subscription_sync"), None, true)).await, ["subscription_sync"]);
    let mut own = kinds(of(None, None, true)).await;
    own.sort();
    assert_eq!(own, ["subscription_sync", "user_sync"], "usage is in the ledger");
    assert_eq!(fault(list(of(Some("usage_sync"), None, true)).await), "event_type");
    assert_eq!(fault(list(of(Some("nonsense"), None, false)).await), "event_type");
    assert_eq!(fault(list(of(None, Some("nonsense"), false)).await), "status");
}
