//! The usage ledger: each batch counts once, whoever reports it and however often.

use std::collections::HashSet;

use sea_orm::ConnectionTrait;
use upbridge_client::{Code, v1};
use v1::UsageOutcome::{Amended, Created, Duplicate, Rejected};

use crate::harness::{Setup, TestHub, at, keyed, record, total, usage};

fn january(name: &str) -> v1::UsageData {
    v1::UsageData {
        usage_amount: Some(1),
        month_year: Some("2024-01".into()),
        completed_at: at("2024-01-15T10:30:00.000Z"),
        ..usage(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reporting_the_same_batch_twice_counts_once() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut usage = member.client.usage();
    let first = usage.record_usage(record(january("batch-001"))).await.unwrap().into_inner();
    let again = usage.record_usage(record(january("batch-001"))).await.unwrap().into_inner();
    assert_eq!((first.outcome(), again.outcome()), (Created, Duplicate));
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(first.usage_id, again.usage_id);
    assert_eq!(first.usage, again.usage);
    assert_eq!(total(&member.client, "2024-01").await, 1);
    let events = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'usage_sync'";
    assert_eq!(hub.database.count(events).await, 1, "a duplicate causes no event");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_producers_count_one_batch_once_in_the_month_it_was_completed() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut usage_service = member.client.usage();
    // At creation, by the client.
    let created = v1::CreateBatchRequest {
        batch_name: "batch-001".into(),
        batch_type: "video".into(),
        usage_type: "local_rendering".into(),
        ..Default::default()
    };
    let created = usage_service.create_batch(created).await.unwrap().into_inner();
    assert_eq!(total(&member.client, "2026-03").await, 1, "it counts in the current month while it is open");
    // At completion, by CreatorUp's server, under a key of its own.
    let mut completion =
        keyed("webhook-77", v1::UsageData { completed_at: at("2026-04-02T00:00:00Z"), ..usage("batch-001") });
    completion.digiup_user_id = Some(member.id.clone());
    let completed = hub.service().await.usage().record_usage(completion).await.unwrap().into_inner();
    assert_eq!((completed.outcome(), &completed.usage_id), (Amended, &created.usage_id));
    // And once more by the client, who knows no key.
    let told = record(v1::UsageData { completed_at: at("2026-04-02T00:00:00Z"), ..usage("batch-001") });
    let told = usage_service.record_usage(told).await.unwrap().into_inner();
    assert_eq!((told.outcome(), &told.usage_id), (Duplicate, &created.usage_id));
    assert_eq!((total(&member.client, "2026-03").await, total(&member.client, "2026-04").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_told_for_a_record_without_one_finds_it_from_then_on() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut service = member.client.usage();
    let first = service.record_usage(record(january("batch-001"))).await.unwrap().into_inner();
    let told = service.record_usage(keyed("k", january("batch-001"))).await.unwrap().into_inner();
    assert_eq!((told.outcome(), &told.usage_id), (Duplicate, &first.usage_id));
    let later = v1::UsageData { completed_at: at("2024-01-16T00:00:00Z"), ..january("batch-001") };
    let later = service.record_usage(keyed("k", later)).await.unwrap().into_inner();
    assert_eq!((later.outcome(), &later.usage_id), (Amended, &first.usage_id));
    assert_eq!(total(&member.client, "2024-01").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_keyed_reports_of_one_name_in_one_message_are_batches_of_their_own() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    // One opened without a key: the first completion takes it, and the others are batches of their own.
    member.client.usage().record_usage(record(usage("render"))).await.unwrap();
    let report = |key: String| v1::UsageReport {
        usage_data: Some(v1::UsageData { completed_at: at("2026-03-15T11:00:00Z"), ..usage("render") }),
        digiup_user_id: None,
        idempotency_key: Some(key),
    };
    let message = v1::RecordUsageStreamRequest { reports: (0..40).map(|n| report(format!("run-{n}"))).collect() };
    let stream = tokio_stream_of(vec![message.clone(), message]);
    let answer = member.client.usage().record_usage_stream(stream).await.unwrap().into_inner();
    assert_eq!((answer.amended, answer.created, answer.duplicates), (1, 39, 40));
    assert_eq!(total(&member.client, "2026-03").await, 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amended_report_moves_the_months_total_and_keeps_the_old_values() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut usage_service = member.client.usage();
    let first = v1::UsageData { usage_amount: Some(5), ..january("batch-001") };
    usage_service.record_usage(keyed("k", first)).await.unwrap();
    let second = v1::UsageData { usage_amount: Some(3), ..january("batch-001") };
    let second = usage_service.record_usage(keyed("k", second)).await.unwrap().into_inner();
    assert_eq!((second.outcome(), second.usage.as_ref().map(|usage| usage.revision)), (Amended, Some(1)));
    assert_eq!(total(&member.client, "2024-01").await, 3);
    let third = v1::UsageData { month_year: Some("2024-02".into()), ..usage("batch-001") };
    usage_service.record_usage(keyed("k", third)).await.unwrap();
    assert_eq!((total(&member.client, "2024-01").await, total(&member.client, "2024-02").await), (0, 3));
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM usage_revisions").await, 2);
    assert_eq!(hub.database.count("SELECT CAST(SUM(usage_amount) AS BIGINT) FROM usage_revisions").await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_rebuilt_from_nothing_are_equal() {
    let hub = TestHub::start().await;
    let mut expected = Vec::new();
    for plan in [1, 2, 3] {
        let member = hub.subscriber(plan).await;
        for (index, month) in ["2024-01", "2024-01", "2024-02", "2025-12"].into_iter().enumerate() {
            let usage_data = v1::UsageData {
                month_year: Some(month.into()),
                usage_amount: Some(1 + index as i32),
                batch_type: if index % 2 == 0 { "video".into() } else { "audio".into() },
                ..usage(&format!("batch-{index}"))
            };
            member.client.usage().record_usage(record(usage_data)).await.unwrap();
        }
        let amended = v1::UsageData { month_year: Some("2024-01".into()), usage_amount: Some(7), ..usage("batch-0") };
        member.client.usage().record_usage(record(amended)).await.unwrap();
        expected.push(member);
    }
    let read = async |members: &[crate::harness::Member]| {
        let mut all = Vec::new();
        for member in members {
            for month in ["2024-01", "2024-02", "2025-12"] {
                let request = v1::GetMonthlyUsageRequest { month_year: Some(month.into()), ..Default::default() };
                let mut answer = member.client.usage().get_monthly_usage(request).await.unwrap().into_inner();
                answer.as_of = None;
                all.push(answer);
            }
        }
        all
    };
    let before = read(&expected).await;
    assert_eq!(before[0].total, 9);
    let database = hub.stop().await;
    let connection = database.connect().await;
    connection.execute_unprepared("DELETE FROM usage_monthly").await.unwrap();
    connection.close().await.unwrap();
    let rebuilt = crate::harness::HubProcess::command(&database).arg("rebuild-usage").status().unwrap();
    assert!(rebuilt.success());
    let hub = Setup::default().start_on(database).await;
    let client = hub.client().await;
    for member in &mut expected {
        member.client = client.with_bearer(&member.token);
    }
    assert_eq!(read(&expected).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_is_never_overshot_by_64_concurrent_callers() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await; // Starter: 100 a month
    let calls = (0..64).map(|caller| {
        let client = member.client.clone();
        tokio::spawn(async move {
            let mut counts = (0, 0);
            for call in 0..3 {
                let report = keyed(&format!("{caller}-{call}"), usage(&format!("batch-{caller}-{call}")));
                match client.usage().record_usage(report).await {
                    Ok(_) => counts.0 += 1,
                    Err(status) => {
                        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                        assert_eq!(upbridge_client::reason(&status).as_deref(), Some("QUOTA_EXCEEDED"));
                        counts.1 += 1;
                    }
                }
            }
            counts
        })
    });
    let (mut recorded, mut refused) = (0, 0);
    for call in calls.collect::<Vec<_>>() {
        let (ok, no) = call.await.unwrap();
        recorded += ok;
        refused += no;
    }
    assert_eq!((recorded, refused), (100, 92));
    assert_eq!(total(&member.client, "2026-03").await, 100);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM creatorup_usage").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_burns_no_key_and_less_is_always_allowed() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    let mut service = member.client.usage();
    let amount = |amount| v1::UsageData { usage_amount: Some(amount), ..usage("batch-1") };
    let refused = service.record_usage(keyed("k", amount(101))).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(service.record_usage(keyed("k", amount(100))).await.unwrap().into_inner().outcome(), Created);
    assert_eq!(service.record_usage(keyed("k", amount(101))).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(service.record_usage(keyed("k", amount(99))).await.unwrap().into_inner().outcome(), Amended);
    assert_eq!(total(&member.client, "2026-03").await, 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_record_cannot_be_amended_past_the_limit_of_its_own_month() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    let mut service = member.client.usage();
    let old = |name: &str, amount| v1::UsageData {
        usage_amount: Some(amount),
        month_year: Some("2024-01".into()),
        ..usage(name)
    };
    service.record_usage(keyed("a", old("a", 60))).await.unwrap();
    service.record_usage(keyed("b", old("b", 40))).await.unwrap();
    // The report names no month, so it counts where the record already is.
    let more = keyed("b", v1::UsageData { usage_amount: Some(41), ..usage("b") });
    assert_eq!(service.record_usage(more).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(total(&member.client, "2024-01").await, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_without_a_membership_is_refused_with_the_reason() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let refused = member.client.usage().record_usage(record(usage("a"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(upbridge_client::reason(&refused).as_deref(), Some("MEMBERSHIP_REQUIRED"));
    assert!(refused.message().contains("no_subscription"), "{}", refused.message());
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM creatorup_usage").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_answers_every_report_and_one_bad_report_stops_no_other() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let report = |name: &str, usage_data| v1::UsageReport {
        usage_data,
        digiup_user_id: None,
        idempotency_key: Some(name.to_owned()),
    };
    let first = v1::RecordUsageStreamRequest {
        reports: vec![
            report("a", Some(usage("a"))),
            report("b", Some(v1::UsageData { month_year: Some("2024-13".into()), ..usage("b") })),
            report("c", None),
            report("a", Some(usage("a"))),
            report("d", Some(v1::UsageData { usage_type: "storage".into(), ..usage("d") })),
        ],
    };
    let second = v1::RecordUsageStreamRequest {
        reports: vec![report("a", Some(v1::UsageData { usage_amount: Some(4), ..usage("a") }))],
    };
    let answer =
        member.client.usage().record_usage_stream(tokio_stream_of(vec![first, second])).await.unwrap().into_inner();
    let outcomes: Vec<_> = answer.results.iter().map(|result| result.outcome()).collect();
    assert_eq!(outcomes, [Created, Rejected, Rejected, Duplicate, Rejected, Amended]);
    assert_eq!(answer.results[1].field, "usage_data.month_year");
    assert_eq!(answer.results[2].field, "usage_data");
    assert_eq!(answer.results[4].reason, "MEMBERSHIP_REQUIRED");
    assert_eq!((answer.created, answer.duplicates, answer.amended, answer.rejected), (1, 1, 1, 3));
    assert_eq!(total(&member.client, "2026-03").await, 4);
}

fn tokio_stream_of<T: Send + 'static>(items: Vec<T>) -> impl futures::Stream<Item = T> + Send + 'static {
    futures::stream::iter(items)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_paged_newest_first_and_its_token_is_bound_to_its_filters() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    for index in 0..7 {
        let month = if index < 5 { "2024-01" } else { "2024-02" };
        let usage_data = v1::UsageData { month_year: Some(month.into()), ..usage(&format!("batch-{index}")) };
        member.client.usage().record_usage(record(usage_data)).await.unwrap();
    }
    let mut names = Vec::new();
    let mut request =
        v1::ListUsageRequest { month_year: Some("2024-01".into()), page_size: Some(2), ..Default::default() };
    loop {
        let page = member.client.usage().list_usage(request.clone()).await.unwrap().into_inner();
        names.extend(page.usage.into_iter().map(|usage| usage.batch_name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = Some(page.next_page_token);
    }
    assert_eq!(names, ["batch-4", "batch-3", "batch-2", "batch-1", "batch-0"]);
    request.month_year = Some("2024-02".into());
    let refused = member.client.usage().list_usage(request).await.unwrap_err();
    assert_eq!(upbridge_client::field_violations(&refused)[0].0, "page_token");
}

#[tokio::test(flavor = "multi_thread")]
async fn free_form_metadata_comes_back_as_it_was_sent() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let http = reqwest::Client::new();
    let metadata = serde_json::json!({ "video_count": 5, "processing_time": "2 minutes", "ratio": 0.1, "nested": { "list": [1, null, true, {}] }, "empty": {} });
    let send = async |name: &str, metadata: Option<&serde_json::Value>| {
        let mut body = serde_json::json!({ "usage_data": { "batch_name": name, "batch_type": "video", "usage_type": "local_rendering" } });
        if let Some(metadata) = metadata {
            body["usage_data"]["metadata"] = metadata.clone();
        }
        let answer = http
            .post(hub.url("/api/v1/creatorup/sync/usage"))
            .bearer_auth(&member.token)
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        answer["data"]["usage"]["metadata"].clone()
    };
    let back = send("a", Some(&metadata)).await;
    assert_eq!(back, metadata);
    assert_eq!(back["video_count"].to_string(), "5", "an integer stays one");
    assert_eq!(send("b", Some(&serde_json::json!({}))).await, serde_json::json!({}));
    assert_eq!(send("c", None).await, serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_is_queryable_under_its_other_name() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    member.client.usage().record_usage(record(usage("batch-001"))).await.unwrap();
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM batch_usage WHERE batch_name = 'batch-001'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_reports_of_one_batch_make_one_record() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let calls: Vec<_> = (0..32)
        .map(|_| {
            let client = member.client.clone();
            tokio::spawn(
                async move { client.usage().record_usage(record(january("same"))).await.unwrap().into_inner() },
            )
        })
        .collect();
    let (mut ids, mut created) = (HashSet::new(), 0);
    for call in calls {
        let answer = call.await.unwrap();
        created += i32::from(answer.outcome() == Created);
        ids.insert(answer.usage_id);
    }
    assert_eq!((ids.len(), created), (1, 1));
    assert_eq!(total(&member.client, "2024-01").await, 1);
}
