//! Days on which one of the two is away, or the wire between them is bad.

use serde_json::json;
use upbridge_client::v1;

use super::eventually;
use super::pair::{Pair, Setup};
use super::relay::Answers;

/// Batches as either side's database has them.
async fn kept(pair: &Pair) -> (i64, i64) {
    let theirs = pair.creatorup_database.count("SELECT COUNT(*) FROM usage_records").await;
    (pair.hub_database.count("SELECT COUNT(*) FROM creatorup_usage").await, theirs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_created_while_the_hub_is_down_is_counted_once_when_it_is_back() {
    let mut pair = Pair::start().await;
    let member = pair.member(Some(2)).await;
    pair.enter(&member).await;
    pair.kill_hub();
    let dark = pair.create(&member, "in-the-dark", &[]).await;
    assert_eq!((&dark["batch"]["usage_reported"], &dark["duplicate"]), (&json!(false), &json!(false)), "{dark}");
    let again = pair.create(&member, "in-the-dark", &[]).await;
    assert_eq!((&again["batch"]["id"], &again["duplicate"]), (&dark["batch"]["id"], &json!(true)));
    let month = pair.data(&member.token, "/api/v1/usage/monthly", None).await;
    assert_eq!((&month["total"], &month["is_reported"]), (&json!(1), &json!(false)), "{month}");
    assert_eq!(kept(&pair).await, (0, 1));
    pair.start_hub();
    assert_eq!(pair.agree(&member).await, (1, 1));
    assert_eq!(kept(&pair).await, (1, 1));
    let again = pair.create(&member, "in-the-dark", &[]).await;
    assert_eq!((&again["batch"]["usage_reported"], &again["duplicate"]), (&json!(true), &json!(true)));
    assert_eq!(pair.agree(&member).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_changes_while_creatorup_is_down_is_known_there_when_it_is_back() {
    let mut pair = Pair::start().await;
    let known = pair.member(Some(1)).await;
    pair.synced(&known).await;
    pair.kill_creatorup();
    let new = pair.member(Some(3)).await;
    let admin = pair.admin().await;
    for name in ["First", "Second", "Last"] {
        let update = v1::UpdateUserRequest { user_id: known.id.clone(), name: Some(name.into()), ..Default::default() };
        admin.users().update_user(update).await.expect("the hub answers as ever");
    }
    let client = pair.as_member(&known).await;
    eventually("the push fails and waits", async || {
        let asked = client.user_sync().get_sync_status(v1::GetSyncStatusRequest::default()).await;
        let status = asked.expect("a status").into_inner();
        status.sync_status() == v1::SyncStatus::Pending
            && status.recent_events.iter().any(|event| event.error_message.is_some())
    })
    .await;
    pair.start_creatorup();
    pair.synced(&known).await;
    pair.synced(&new).await;
    let named = "SELECT name FROM digiup_users WHERE plan = 'Starter'";
    assert_eq!(pair.creatorup_database.texts(named).await, ["Last"], "as pushed, before anybody asked");
    let copies = async || pair.creatorup_database.count("SELECT COUNT(*) FROM digiup_users").await;
    eventually("the administrator is there too", async || copies().await == 3).await;
    let access = pair.data(&new.token, "/api/v1/digiup/membership/check", None).await;
    assert_eq!((&access["has_access"], &access["plan"]), (&json!(true), &json!("Business")), "{access}");
    let dead = admin.queue().get_queue_stats(v1::GetQueueStatsRequest::default()).await.unwrap().into_inner();
    assert_eq!(dead.total.unwrap().dead, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_answered_late_or_never_are_applied_once() {
    let pair = Setup::default().both("SYNC_TIMEOUT", "1000").start().await;
    let member = pair.member(Some(2)).await;
    pair.enter(&member).await;
    let mut batches = Vec::new();
    for name in ["first", "second", "third"] {
        batches.push(pair.create(&member, name, &[]).await["batch"]["id"].as_str().unwrap().to_owned());
    }
    pair.agree(&member).await;
    // The hub hears each webhook and CreatorUp never its answer: first it comes too late, then the wire breaks.
    pair.to_hub.answers(Answers::Hold);
    for id in &batches {
        pair.data(&member.token, &format!("/api/v1/batch/{id}/cancel"), Some(&json!({}))).await;
    }
    eventually("answers are late", async || pair.to_hub.troubled() >= 4).await;
    pair.to_hub.answers(Answers::Lose);
    eventually("answers are lost", async || pair.to_hub.troubled() >= 10).await;
    let month = pair.data(&member.token, "/api/v1/usage/monthly", None).await;
    assert_eq!((&month["is_reported"], &month["unreported_batches"]), (&json!(false), &json!(3)), "{month}");
    pair.to_hub.answers(Answers::Pass);
    assert_eq!(pair.agree(&member).await, (3, 3));
    assert_eq!(kept(&pair).await, (3, 3));
    let sent = "SELECT COUNT(*) FROM outbox WHERE state = 'sent' AND receipt IS NOT NULL";
    assert_eq!(pair.creatorup_database.count(sent).await, 3);
    let repeated = pair.creatorup_database.count("SELECT COUNT(*) FROM finished_jobs WHERE attempts > 1").await;
    assert!(repeated >= 1, "a webhook is sent again, and those of the same user wait for it");
    assert_eq!(pair.hub_database.count("SELECT COUNT(*) FROM webhook_logs").await, 3, "and taken once");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_asked_for_many_times_at_once_is_one_batch() {
    let pair = Pair::start().await;
    let member = pair.member(Some(2)).await;
    pair.enter(&member).await;
    let asked: Vec<_> = (0..12).map(|_| pair.create(&member, "the-same", &[])).collect();
    let answers = futures::future::join_all(asked).await;
    let first = answers.iter().filter(|answer| answer["duplicate"] == false).count();
    assert_eq!(first, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer["batch"]["id"] == answers[0]["batch"]["id"]));
    assert_eq!(pair.agree(&member).await, (1, 1));
    assert_eq!(kept(&pair).await, (1, 1));
    // The same key for something else is refused, and changes nothing.
    let other = json!({ "name": "another", "inputs": [], "idempotency_key": "the-same" });
    let (status, answer) = pair.ask(&member.token, "/api/v1/batch/create", Some(&other)).await;
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("ALREADY_EXISTS")), "{answer}");
    assert_eq!(pair.agree(&member).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hub_refuses_late_counts_nowhere() {
    // What the hub refuses at once must not be taken for what it did not answer in time.
    let mut pair = Setup::default().both("SYNC_TIMEOUT", "20000").start().await;
    let member = pair.member(Some(1)).await;
    pair.enter(&member).await;
    let client = pair.as_member(&member).await;
    let hundred = v1::CreateBatchRequest {
        batch_name: "everything".into(),
        batch_type: "video".into(),
        usage_type: "local_rendering".into(),
        usage_amount: Some(100),
        ..Default::default()
    };
    client.usage().create_batch(hundred).await.expect("all of the plan");
    let (status, answer) = pair.ask(&member.token, "/api/v1/batch/create", Some(&json!({ "name": "too-much" }))).await;
    assert_eq!((status, &answer["error"]["reason"]), (429, &json!("QUOTA_EXCEEDED")), "{answer}");
    pair.kill_hub();
    let id = pair.create(&member, "hoping", &[]).await["batch"]["id"].as_str().unwrap().to_owned();
    pair.start_hub();
    let batch = pair.over(&member, &id).await;
    assert_eq!(batch["status"], "failed", "{batch}");
    let month = pair.data(&member.token, "/api/v1/usage/monthly", None).await;
    assert_eq!((&month["total"], &month["is_reported"]), (&json!(0), &json!(true)), "{month}");
    assert_eq!(kept(&pair).await, (1, 0), "what was counted by the hub itself, and nothing else");
}
