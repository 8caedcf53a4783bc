//! Batches: counted by the hub once, listed, called off.

use serde_json::{Value, json};
use tonic::Code;
use upbridge_client::v1::AccessReason;
use upbridge_proto::creatorup::v1::{
    BatchStatus, CancelBatchRequest, CreateBatchRequest, GetMonthlyUsageRequest, ListBatchesRequest,
};

use crate::harness::TestCreatorUp;

const CREATE: &str = "/api/v1/batch/create";

fn named(name: &str) -> CreateBatchRequest {
    CreateBatchRequest { name: name.into(), ..CreateBatchRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_created_here_and_counted_at_the_hub() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let asked = json!({"name": "wedding", "type": "video", "metadata": {"cameras": 5}});
    let (status, answer) = creatorup.as_user(&token, CREATE, Some(asked)).await;
    assert_eq!(status, 201, "{answer}");
    let batch = &answer["data"]["batch"];
    assert_eq!((&batch["status"], &batch["usage_reported"]), (&json!("pending"), &json!(true)));
    assert_eq!((&batch["usage_type"], &batch["metadata"]), (&json!("local_rendering"), &json!({"cameras": 5})));
    let entry = creatorup.hub().entry(batch["id"].as_str().unwrap()).expect("the hub counts it");
    assert_eq!((entry.user_id, entry.amount, entry.completed, entry.reports), (member.id, 1, false, 1));
    assert_eq!(json!(entry.month), batch["month_year"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_the_same_batch_and_another_content_is_refused() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let asked = |name: &str| json!({"name": name, "idempotency_key": "k-1"});
    let (_, first) = creatorup.as_user(&token, CREATE, Some(asked("a"))).await;
    let (status, again) = creatorup.as_user(&token, CREATE, Some(asked("a"))).await;
    assert_eq!((status, &again["data"]["duplicate"]), (201, &json!(true)));
    assert_eq!(first["data"]["batch"]["id"], again["data"]["batch"]["id"]);
    let (status, other) = creatorup.as_user(&token, CREATE, Some(asked("b"))).await;
    assert_eq!((status, &other["error"]["reason"]), (409, &json!("ALREADY_EXISTS")));
    let month = first["data"]["batch"]["month_year"].as_str().unwrap().to_owned();
    assert_eq!(creatorup.hub().total(member.id, &month), 1);
    // A key is its owner's.
    let (_, stranger) = creatorup.hub().member();
    assert_eq!(creatorup.as_user(&stranger, CREATE, Some(asked("b"))).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_is_answered_though_the_input_is_gone() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    let input = creatorup.media().join("a.mp4");
    std::fs::write(&input, "x").unwrap();
    let asked = |key: &str| json!({"name": "wedding", "inputs": ["a.mp4"], "idempotency_key": key});
    let (status, first) = creatorup.as_user(&token, CREATE, Some(asked("k-1"))).await;
    assert_eq!(status, 201, "{first}");
    std::fs::remove_file(input).unwrap();
    let (status, again) = creatorup.as_user(&token, CREATE, Some(asked("k-1"))).await;
    assert_eq!((status, &again["data"]["duplicate"]), (201, &json!(true)), "{again}");
    assert_eq!(first["data"]["batch"]["id"], again["data"]["batch"]["id"]);
    assert_eq!(creatorup.as_user(&token, CREATE, Some(asked("k-2"))).await.0, 400, "a new one needs its input");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_refuses_is_no_batch_and_its_key_is_free() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member_who(AccessReason::NoSubscription);
    let asked = json!({"name": "wedding", "idempotency_key": "k-1"});
    let (status, answer) = creatorup.as_user(&token, CREATE, Some(asked.clone())).await;
    assert_eq!((status, &answer["error"]["reason"]), (403, &json!("MEMBERSHIP_REQUIRED")), "{answer}");
    assert_eq!(answer["error"]["metadata"]["access_reason"], "no_subscription");
    creatorup.hub().change(&token, |member| {
        member.reason = AccessReason::Granted;
        member.limit = Some(0);
    });
    let (status, answer) = creatorup.as_user(&token, CREATE, Some(asked.clone())).await;
    assert_eq!((status, &answer["error"]["reason"]), (429, &json!("QUOTA_EXCEEDED")), "{answer}");
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM batches").await, 0);
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM usage_records").await, 0);
    creatorup.hub().change(&token, |member| member.limit = None);
    assert_eq!(creatorup.as_user(&token, CREATE, Some(asked)).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_pages_and_shows_nobody_elses() {
    let creatorup = TestCreatorUp::start().await;
    let ((_, token), (_, stranger)) = (creatorup.hub().member(), creatorup.hub().member());
    let (api, other) = (creatorup.api(&token).await, creatorup.api(&stranger).await);
    for place in 0..5 {
        api.batches().create_batch(named(&format!("batch {place}"))).await.unwrap();
    }
    other.batches().create_batch(named("theirs")).await.unwrap();
    let mut names = Vec::new();
    let mut page_token = None;
    loop {
        let asked = ListBatchesRequest { page_size: Some(2), page_token, status: None };
        let page = api.batches().list_batches(asked).await.unwrap().into_inner();
        assert!(page.batches.len() <= 2);
        names.extend(page.batches.into_iter().map(|batch| batch.name));
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = Some(page.next_page_token);
    }
    assert_eq!(names, ["batch 4", "batch 3", "batch 2", "batch 1", "batch 0"]);
    let asked = |status, page_token| ListBatchesRequest { status, page_size: Some(2), page_token };
    let page = api.batches().list_batches(asked(None, None)).await.unwrap().into_inner();
    let pending = Some(BatchStatus::Pending as i32);
    let mixed = api.batches().list_batches(asked(pending, Some(page.next_page_token))).await.unwrap_err();
    assert_eq!(mixed.code(), Code::InvalidArgument);
    let cancelled = asked(Some(BatchStatus::Cancelled as i32), None);
    assert!(api.batches().list_batches(cancelled).await.unwrap().into_inner().batches.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_called_off_once_and_never_goes_on() {
    let creatorup = TestCreatorUp::start().await;
    let ((member, token), (_, stranger)) = (creatorup.hub().member(), creatorup.hub().member());
    let api = creatorup.api(&token).await;
    let batch = api.batches().create_batch(named("wedding")).await.unwrap().into_inner().batch.unwrap();
    let cancel = CancelBatchRequest { batch_id: batch.id.clone() };
    let theirs = creatorup.api(&stranger).await.batches().cancel_batch(cancel.clone()).await.unwrap_err();
    assert_eq!(theirs.code(), Code::NotFound);
    let cancelled = api.batches().cancel_batch(cancel.clone()).await.unwrap().into_inner().batch.unwrap();
    assert_eq!(cancelled.status(), BatchStatus::Cancelled);
    let again = api.batches().cancel_batch(cancel).await.unwrap().into_inner().batch.unwrap();
    assert_eq!((again.status(), again.finished_at), (BatchStatus::Cancelled, cancelled.finished_at));
    let body = json!({"batch_id": batch.id});
    let (status, answer) = creatorup.as_user(&token, "/api/v1/video/process", Some(body)).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("FAILED_PRECONDITION")), "{answer}");
    // It was counted when it was created, and the hub hears what became of it.
    creatorup.hub().until("the hub hears", |hub| hub.webhooks().len() == 1).await;
    assert_eq!(creatorup.hub().webhooks()[0]["usage_data"]["metadata"]["status"], "cancelled");
    assert_eq!(creatorup.hub().total(member.id, &batch.month_year), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_months_sums_are_those_of_the_hub() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let api = creatorup.api(&token).await;
    for (usage_type, name) in [("local_rendering", "a"), ("local_rendering", "b"), ("cloud_rendering", "c")] {
        let asked = CreateBatchRequest { usage_type: Some(usage_type.into()), ..named(name) };
        api.batches().create_batch(asked).await.unwrap();
    }
    let usage = api.usage().get_monthly_usage(GetMonthlyUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!((usage.total, usage.batches, usage.is_reported, usage.unreported_batches), (3, 3, true, 0));
    let by_type: Vec<_> = usage.by_type.iter().map(|sum| (sum.r#type.as_str(), sum.total, sum.batches)).collect();
    assert_eq!(by_type, [("cloud_rendering", 1, 1), ("local_rendering", 2, 2)]);
    assert_eq!(usage.total, creatorup.hub().total(member.id, &usage.month_year));
    let (_, other): (u16, Value) = creatorup.as_user(&token, "/api/v1/usage/monthly?month_year=2020-01", None).await;
    assert_eq!((&other["data"]["total"], &other["data"]["is_partial"]), (&json!(0), &json!(false)));
}
