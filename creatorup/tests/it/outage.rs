//! The hub is away, answers late or is gone in the middle, and CreatorUp is killed: each batch counts once all the same.

use serde_json::json;
use upbridge_client::v1::AccessReason;
use upbridge_proto::creatorup::v1::{BatchStatus, CancelBatchRequest, CreateBatchRequest, GetMonthlyUsageRequest};

use crate::harness::{CREATE_BATCH, Setup, TestCreatorUp, WEBHOOK};

const CREATE: &str = "/api/v1/batch/create";

/// A user CreatorUp knows, so that they may work while the hub is away.
async fn known(creatorup: &TestCreatorUp) -> (crate::harness::Member, String) {
    let (member, token) = creatorup.hub().member();
    assert_eq!(creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await.0, 200);
    (member, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_made_while_the_hub_is_away_is_kept_and_counted_once_later() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = known(&creatorup).await;
    creatorup.hub().close().await;
    let (status, answer) = creatorup.as_user(&token, CREATE, Some(json!({"name": "wedding"}))).await;
    let batch = answer["data"]["batch"].clone();
    assert_eq!((status, &batch["usage_reported"]), (201, &json!(false)), "{answer}");
    let (_, usage) = creatorup.as_user(&token, "/api/v1/usage/monthly", None).await;
    assert_eq!((&usage["data"]["total"], &usage["data"]["is_reported"]), (&json!(1), &json!(false)));
    creatorup.hub().reopen().await;
    let id = batch["id"].as_str().unwrap();
    creatorup.batch_once(&token, id, |batch| batch.usage_reported).await;
    let entry = creatorup.hub().entry(id).unwrap();
    assert_eq!((entry.amount, entry.reports), (1, 1), "told once");
    let usage = creatorup.api(&token).await.usage().get_monthly_usage(GetMonthlyUsageRequest::default()).await;
    let usage = usage.unwrap().into_inner();
    assert!(usage.is_reported);
    assert_eq!(usage.total, creatorup.hub().total(member.id, &usage.month_year));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_counted_though_creatorup_is_killed_meanwhile() {
    let mut creatorup = TestCreatorUp::start().await;
    let (member, token) = known(&creatorup).await;
    creatorup.hub().close().await;
    let (_, answer) = creatorup.as_user(&token, CREATE, Some(json!({"name": "wedding"}))).await;
    let id = answer["data"]["batch"]["id"].as_str().unwrap().to_owned();
    creatorup.kill_and_start().await;
    creatorup.hub().reopen().await;
    let batch = creatorup.batch_once(&token, &id, |batch| batch.usage_reported).await;
    assert_eq!(creatorup.hub().total(member.id, &batch.month_year), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_counts_nothing_twice() {
    let creatorup = Setup::new().await.set("SYNC_TIMEOUT", "3000").start().await;
    let (member, token) = known(&creatorup).await;
    creatorup.hub().mute(true);
    let (status, answer) = creatorup.as_user(&token, CREATE, Some(json!({"name": "wedding"}))).await;
    let batch = answer["data"]["batch"].clone();
    assert_eq!((status, &batch["usage_reported"]), (201, &json!(false)), "the hub did it and nobody heard: {answer}");
    creatorup.hub().mute(false);
    let id = batch["id"].as_str().unwrap();
    let batch = creatorup.batch_once(&token, id, |batch| batch.usage_reported).await;
    assert!(creatorup.hub().entry(id).unwrap().reports > 1, "it was told again");
    assert_eq!(creatorup.hub().total(member.id, &batch.month_year), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_refuses_later_fails_and_counts_nowhere() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = known(&creatorup).await;
    creatorup.hub().close().await;
    let (_, answer) = creatorup.as_user(&token, CREATE, Some(json!({"name": "wedding"}))).await;
    let id = answer["data"]["batch"]["id"].as_str().unwrap().to_owned();
    creatorup.hub().change(&token, |member| member.reason = AccessReason::NoSubscription);
    creatorup.hub().reopen().await;
    let batch = creatorup.batch_over(&token, &id).await;
    assert_eq!(batch.status(), BatchStatus::Failed);
    assert!(batch.error().contains("the hub refused it"), "{batch:?}");
    let (_, usage) = creatorup.as_user(&token, "/api/v1/usage/monthly", None).await;
    assert_eq!((&usage["data"]["total"], &usage["data"]["is_reported"]), (&json!(0), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_stays_though_its_repetition_is_refused() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = known(&creatorup).await;
    // It is the repetition that hears the refusal, and not the job.
    let pause = "INSERT INTO paused_kinds (kind, paused_at) VALUES ('usage_report', CURRENT_TIMESTAMP) RETURNING 1";
    creatorup.database().count(pause).await;
    creatorup.hub().close().await;
    let asked = json!({"name": "wedding", "idempotency_key": "k-1"});
    let (status, kept) = creatorup.as_user(&token, CREATE, Some(asked.clone())).await;
    assert_eq!(status, 201, "{kept}");
    creatorup.hub().change(&token, |member| member.reason = AccessReason::NoSubscription);
    creatorup.hub().reopen().await;
    let (status, refused) = creatorup.as_user(&token, CREATE, Some(asked.clone())).await;
    assert_eq!((status, &refused["error"]["reason"]), (403, &json!("MEMBERSHIP_REQUIRED")), "{refused}");
    let path = format!("/api/v1/batch/{}", kept["data"]["batch"]["id"].as_str().unwrap());
    let (status, found) = creatorup.as_user(&token, &path, None).await;
    assert_eq!((status, &found["data"]["batch"]["status"]), (200, &json!("failed")), "{found}");
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM usage_records").await, 0, "it counts for nothing");
    let (status, again) = creatorup.as_user(&token, CREATE, Some(asked)).await;
    assert_eq!((status, &again["data"]["duplicate"]), (201, &json!(true)), "the key is still its own: {again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_reaches_the_hub_after_the_end_is_amended_again() {
    let creatorup = Setup::new().await.set("SYNC_TIMEOUT", "25000").start().await;
    let (_, token) = known(&creatorup).await;
    for name in ["a.mp4", "b.mp4"] {
        std::fs::write(creatorup.media().join(name), "x").unwrap();
    }
    let hub = creatorup.hub();
    hub.hold(CREATE_BATCH);
    let asked = json!({"name": "wedding", "inputs": ["a.mp4", "b.mp4"], "idempotency_key": "k-1"});
    let play = async {
        hub.until("both are on their way", |hub| hub.arrived(CREATE_BATCH) == 2).await;
        let (_, list) = creatorup.as_user(&token, "/api/v1/batch", None).await;
        let id = list["data"]["batches"][0]["id"].as_str().unwrap_or_else(|| panic!("{list}")).to_owned();
        let (status, _) = creatorup.as_user(&token, &format!("/api/v1/batch/{id}/cancel"), Some(json!({}))).await;
        assert_eq!(status, 200);
        hub.let_one_through(CREATE_BATCH);
        hub.until("the hub hears of the end", |hub| hub.webhooks().len() == 1).await;
        creatorup.batch_once(&token, &id, |batch| batch.usage_reported).await;
        // This one says again what was planned.
        hub.let_through(CREATE_BATCH);
        id
    };
    let create = || creatorup.as_user(&token, CREATE, Some(asked.clone()));
    let (first, second, id) = tokio::join!(create(), create(), play);
    assert_eq!((first.0, second.0), (201, 201));
    hub.until("the hub hears of the end again", |hub| hub.webhooks().len() == 2).await;
    creatorup.batch_once(&token, &id, |batch| batch.usage_reported).await;
    assert_eq!(hub.entry(&id).unwrap().amount, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_not_forgotten_however_often_the_process_dies() {
    // Who is slow is not dead: a job that is rescued once too often is set aside too early.
    let setup = Setup::new().await.set("SYNC_TIMEOUT", "60000").set("QUEUE_HEARTBEAT_INTERVAL", "1000");
    let mut creatorup = setup.start().await;
    let (_, token) = known(&creatorup).await;
    let (_, counted) = creatorup.as_user(&token, CREATE, Some(json!({"name": "counted"}))).await;
    let counted = counted["data"]["batch"]["id"].as_str().unwrap().to_owned();
    creatorup.hub().close().await;
    let (_, kept) = creatorup.as_user(&token, CREATE, Some(json!({"name": "kept"}))).await;
    let kept = kept["data"]["batch"]["id"].as_str().unwrap().to_owned();
    creatorup.as_user(&token, &format!("/api/v1/batch/{counted}/cancel"), Some(json!({}))).await;
    for call in [CREATE_BATCH, WEBHOOK] {
        creatorup.hub().hold(call);
    }
    creatorup.hub().reopen().await;
    for life in 1..=5 {
        let under_way =
            |hub: &crate::harness::Hub| [CREATE_BATCH, WEBHOOK].iter().all(|call| hub.arrived(call) >= life);
        creatorup.hub().until("a report and a webhook are under way", under_way).await;
        if life < 5 {
            creatorup.kill_and_start().await;
        }
    }
    let died = "SELECT COUNT(*) FROM finished_jobs WHERE state = 'dead'";
    assert_eq!(creatorup.database().count(died).await, 2, "their first jobs were set aside");
    for call in [CREATE_BATCH, WEBHOOK] {
        creatorup.hub().let_through(call);
    }
    for id in [counted, kept] {
        creatorup.batch_once(&token, &id, |batch| batch.usage_reported).await;
    }
    assert_eq!(creatorup.hub().webhooks().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_before_the_hub_heard_of_it_is_told_as_it_is() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = known(&creatorup).await;
    for name in ["a.mp4", "b.mp4"] {
        std::fs::write(creatorup.media().join(name), "x").unwrap();
    }
    creatorup.hub().close().await;
    let api = creatorup.api(&token).await;
    let asked = CreateBatchRequest {
        name: "wedding".into(),
        inputs: vec!["a.mp4".into(), "b.mp4".into()],
        ..CreateBatchRequest::default()
    };
    let batch = api.batches().create_batch(asked).await.unwrap().into_inner().batch.unwrap();
    assert_eq!((batch.usage_amount, batch.usage_reported), (2, false));
    let cancel = CancelBatchRequest { batch_id: batch.id.clone() };
    let batch = api.batches().cancel_batch(cancel).await.unwrap().into_inner().batch.unwrap();
    assert_eq!((batch.usage_amount, batch.usage_reported), (1, false));
    creatorup.hub().reopen().await;
    creatorup.batch_once(&token, &batch.id, |batch| batch.usage_reported).await;
    assert_eq!(creatorup.hub().entry(&batch.id).unwrap().amount, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_sent_again_until_the_hub_takes_it() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = known(&creatorup).await;
    let api = creatorup.api(&token).await;
    let asked = CreateBatchRequest { name: "wedding".into(), ..CreateBatchRequest::default() };
    let batch = api.batches().create_batch(asked).await.unwrap().into_inner().batch.unwrap();
    creatorup.hub().refuse_webhooks(&[503, 500, 401, 429]);
    api.batches().cancel_batch(CancelBatchRequest { batch_id: batch.id.clone() }).await.unwrap();
    creatorup.hub().until("the hub takes it", |hub| !hub.webhooks().is_empty()).await;
    creatorup.batch_once(&token, &batch.id, |batch| batch.usage_reported).await;
    let kept = "SELECT COUNT(*) FROM outbox WHERE state = 'sent' AND receipt LIKE 'hub-%' AND attempts > 0";
    assert_eq!(creatorup.database().count(kept).await, 1, "with its receipt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_the_hub_will_never_take_is_given_up_and_shown() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = known(&creatorup).await;
    let api = creatorup.api(&token).await;
    let asked = CreateBatchRequest { name: "wedding".into(), ..CreateBatchRequest::default() };
    let batch = api.batches().create_batch(asked).await.unwrap().into_inner().batch.unwrap();
    creatorup.hub().refuse_webhooks(&[422]);
    api.batches().cancel_batch(CancelBatchRequest { batch_id: batch.id.clone() }).await.unwrap();
    let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
    let given_up = async {
        while creatorup.http("/api/v1/health", None, None).await.1["data"]["failed_webhooks"] != 1 {
            look.tick().await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, given_up).await.expect("it is given up");
    let (_, usage) = creatorup.as_user(&token, "/api/v1/usage/monthly", None).await;
    assert_eq!(usage["data"]["is_reported"], json!(false), "and nobody says that all is well");
}
