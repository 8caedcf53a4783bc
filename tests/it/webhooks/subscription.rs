//! Subscriptions that CreatorUp changes, and who wins when both sides do.

use chrono::TimeDelta;
use serde_json::{Value, json};
use upbridge_client::v1;

use super::{SUBSCRIPTION, deliver, fate, headers, key, outcome, send, signed};
use crate::harness::{Member, Peer, Setup, TestHub, eventually};

const NOON: i64 = 1_773_576_000;

/// What CreatorUp says of a member.
fn told(member: &Member, plan: &str, status: &str, occurred_at: &str) -> Value {
    let mut body = json!({
        "digiup_user_id": member.id,
        "subscription_data": { "plan": plan, "status": status, "end_date": "2026-06-15T00:00:00.000Z" },
    });
    if !occurred_at.is_empty() {
        body["occurred_at"] = json!(occurred_at);
    }
    body
}

/// The plan, status, end and source of the member's subscription.
async fn standing(member: &Member) -> (String, String, String, String) {
    let held = member.client.membership().get_subscription(v1::GetSubscriptionRequest::default()).await.unwrap();
    let held = held.into_inner().subscription.unwrap();
    let status = held.status().as_str_name().trim_start_matches("SUBSCRIPTION_STATUS_").to_lowercase();
    let end = held.end_date.unwrap();
    let end = chrono::DateTime::from_timestamp(end.seconds, 0).unwrap().format("%Y-%m-%d").to_string();
    (held.plan, status, end, held.source)
}

fn is(plan: &str, status: &str, end: &str, source: &str) -> (String, String, String, String) {
    (plan.into(), status.into(), end.into(), source.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_changes_plan_status_and_end_with_its_source_and_an_audit() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    assert_eq!(standing(&member).await, is("Starter", "active", "2026-04-15", "digiup"));
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "pRO", "Active", "")).await;
    let done = outcome(&hub, &receipt).await;
    assert_eq!((&done["change"], &done["plan"], &done["status"]), (&json!("created"), &json!("Pro"), &json!("active")));
    assert_eq!(standing(&member).await, is("Pro", "active", "2026-06-15", "creatorup"));
    let access = v1::CheckFeatureAccessRequest { feature: "cloud_rendering".into(), ..Default::default() };
    assert!(member.client.membership().check_feature_access(access).await.unwrap().into_inner().has_access);
    let old = hub.database.texts("SELECT status FROM user_subscriptions ORDER BY id").await;
    assert_eq!(old, ["replaced", "active"]);
    let event = receipt["event_id"].as_str().unwrap();
    let audit = "SELECT action FROM audit_log WHERE request_id = ";
    assert_eq!(hub.database.texts(&format!("{audit}'{event}'")).await, ["subscription.updated"]);

    for (status, stored) in
        [("canceled", "canceled"), ("cancelled", "canceled"), ("active", "active"), ("expired", "expired")]
    {
        hub.clock.advance(TimeDelta::seconds(1));
        let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Pro", status, &hub_time(&hub))).await;
        assert_eq!(outcome(&hub, &receipt).await["status"], stored);
        assert_eq!(standing(&member).await, is("Pro", stored, "2026-06-15", "creatorup"));
    }
    let wrong = told(&member, "Pro", "replaced", "").to_string();
    let (code, answer) = send(&hub, SUBSCRIPTION, signed(wrong.as_bytes()), wrong.clone()).await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("subscription_data.status")));
}

fn hub_time(hub: &TestHub) -> String {
    use upbridge_server::model::Clock;
    hub.clock.now().to_rfc3339()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_older_than_what_is_stored_changes_nothing() {
    let hub = TestHub::start().await;
    // The member subscribes here at noon.
    let member = hub.subscriber(3).await;
    let here = is("Business", "active", "2026-04-15", "digiup");
    for before in ["2026-03-15T11:00:00Z", "2026-03-15T11:59:59.999999Z", "2020-01-01T00:00:00Z"] {
        let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Starter", "active", before)).await;
        assert_eq!(outcome(&hub, &receipt).await["change"], "ignored", "{before}");
        assert_eq!(standing(&member).await, here);
    }
    // Signed before, and saying nothing of its own: it happened when it was signed.
    let body = told(&member, "Starter", "active", "").to_string();
    let at = NOON - 60;
    let timed = headers(&[
        ("x-webhook-signature", &key().sign(Some(at), body.as_bytes())),
        ("x-webhook-timestamp", &at.to_string()),
    ]);
    let (_, answer) = send(&hub, SUBSCRIPTION, timed, body).await;
    assert_eq!(outcome(&hub, &answer["data"]).await["change"], "ignored");
    assert_eq!(standing(&member).await, here);
    // Of the same instant, or of the same second as far as a signature tells, it is not older.
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Starter", "active", "2026-03-15T12:00:00Z")).await;
    assert_eq!(outcome(&hub, &receipt).await["change"], "created");
    assert_eq!(standing(&member).await, is("Starter", "active", "2026-06-15", "creatorup"));
    let body = told(&member, "Pro", "active", "").to_string();
    let timed = headers(&[
        ("x-webhook-signature", &key().sign(Some(NOON), body.as_bytes())),
        ("x-webhook-timestamp", &NOON.to_string()),
    ]);
    let (_, answer) = send(&hub, SUBSCRIPTION, timed, body).await;
    assert_eq!(outcome(&hub, &answer["data"]).await["plan"], "Pro");
    let changes = "SELECT COUNT(*) FROM audit_log WHERE action = 'subscription.updated'";
    assert_eq!(hub.database.count(changes).await, 2, "what changes nothing leaves no audit");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changed_it_later_wins_whatever_arrives_last() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    hub.clock.advance(TimeDelta::minutes(10));
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Pro", "active", "2026-03-15T12:10:00Z")).await;
    assert_eq!(outcome(&hub, &receipt).await["plan"], "Pro");
    // The member decides later, here.
    hub.clock.advance(TimeDelta::minutes(10));
    let cancel = v1::CancelSubscriptionRequest { immediately: true };
    member.client.membership().cancel_subscription(cancel).await.unwrap();
    let canceled = is("Pro", "canceled", "2026-03-15", "digiup");
    assert_eq!(standing(&member).await, canceled);
    // What CreatorUp decided in between arrives late.
    hub.clock.advance(TimeDelta::minutes(10));
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Business", "active", "2026-03-15T12:15:00Z")).await;
    assert_eq!(outcome(&hub, &receipt).await["change"], "ignored");
    assert_eq!(standing(&member).await, canceled);
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Pro", "active", "2026-03-15T12:25:00Z")).await;
    assert_eq!(outcome(&hub, &receipt).await["change"], "updated");
    assert_eq!(standing(&member).await, is("Pro", "active", "2026-06-15", "creatorup"));
    // And two of CreatorUp's own that overtook each other.
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&member, "Pro", "canceled", "2026-03-15T12:24:00Z")).await;
    assert_eq!(outcome(&hub, &receipt).await["change"], "ignored");
    assert_eq!(standing(&member).await.1, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_to_an_earlier_state_needs_an_event_of_its_own() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let (active, canceled) = (told(&member, "Pro", "active", ""), told(&member, "Pro", "canceled", ""));
    for body in [&active, &canceled] {
        outcome(&hub, &deliver(&hub, SUBSCRIPTION, body).await).await;
    }
    // The very bytes of the first: a late retry of it, as far as anyone can tell.
    assert_eq!(deliver(&hub, SUBSCRIPTION, &active).await["duplicate"], true);
    assert_eq!(standing(&member).await.1, "canceled");
    let mut again = active.clone();
    again["event_id"] = json!("sub-3");
    let receipt = deliver(&hub, SUBSCRIPTION, &again).await;
    assert_eq!((&receipt["duplicate"], &outcome(&hub, &receipt).await["change"]), (&json!(false), &json!("updated")));
    assert_eq!(standing(&member).await.1, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_leaves_open_has_a_meaning_and_the_future_is_refused() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let short = |plan: &str, status: &str| {
        json!({ "digiup_user_id": member.id, "event_id": format!("{plan}-{status}"),
            "subscription_data": { "plan": plan, "status": status, "end_date": null }, "signature": null })
    };
    outcome(&hub, &deliver(&hub, SUBSCRIPTION, &short("Pro", "active")).await).await;
    assert_eq!(standing(&member).await, is("Pro", "active", "2026-04-15", "creatorup"), "the same plan keeps its end");
    outcome(&hub, &deliver(&hub, SUBSCRIPTION, &short("Pro", "canceled")).await).await;
    assert_eq!(standing(&member).await, is("Pro", "canceled", "2026-03-15", "creatorup"), "it ends with the event");
    hub.clock.advance(TimeDelta::hours(12));
    outcome(&hub, &deliver(&hub, SUBSCRIPTION, &short("Business", "active")).await).await;
    assert_eq!(standing(&member).await, is("Business", "active", "2026-04-16", "creatorup"), "a new one has a month");

    let future = told(&member, "Pro", "active", "2026-03-16T00:05:01Z").to_string();
    let (code, answer) = send(&hub, SUBSCRIPTION, signed(future.as_bytes()), future.clone()).await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("occurred_at")), "{answer}");
    let soon = told(&member, "Starter", "active", "2026-03-16T00:05:00Z");
    outcome(&hub, &deliver(&hub, SUBSCRIPTION, &soon).await).await;
    // A clock that is ahead keeps nobody else out: the event happened when it came, at the latest.
    let now = told(&member, "Pro", "active", "2026-03-16T00:00:00Z");
    assert_eq!(outcome(&hub, &deliver(&hub, SUBSCRIPTION, &now).await).await["plan"], "Pro");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_plan_is_kept_and_not_chosen() {
    let hub = TestHub::start().await;
    let (holder, other) = (hub.subscriber(2).await, hub.subscriber(1).await);
    hub.admin().await.membership().retire_plan(v1::RetirePlanRequest { plan_id: 2 }).await.unwrap();
    let receipt = deliver(&hub, SUBSCRIPTION, &told(&holder, "Pro", "active", "")).await;
    assert_eq!(outcome(&hub, &receipt).await["change"], "updated");
    let body = told(&other, "Pro", "active", "").to_string();
    assert_eq!(send(&hub, SUBSCRIPTION, signed(body.as_bytes()), body.clone()).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_user_is_gone_when_it_is_applied_is_a_dead_letter_and_says_so() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    let receipt = deliver_and_hold(&hub, &member).await;
    let delete = v1::DeleteUserRequest { user_id: member.id.clone() };
    hub.admin().await.users().delete_user(delete).await.unwrap();
    hub.database.execute("DELETE FROM paused_kinds").await;
    let fate = fate(&hub, &receipt).await;
    assert_eq!(fate.status, i32::from(v1::WebhookStatus::Failed));
    assert_eq!(fate.error_message.as_deref(), Some("there is no such user"));
    let dead = "SELECT COUNT(*) FROM finished_jobs WHERE kind = 'subscription_sync' AND state = 'dead'";
    eventually("it is a dead letter", async || hub.database.count(dead).await == 1).await;
    let failed = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'subscription_sync' AND status = 'failed'";
    assert_eq!(hub.database.count(failed).await, 1);
    assert_eq!(super::counted(&hub.database, "subscription-update.failed").await, 1);
}

/// Delivers a change of the member's subscription that is not applied until the pause is over.
async fn deliver_and_hold(hub: &TestHub, member: &Member) -> Value {
    // A claim looks for pauses and jobs at once, so it finds no job that came after the pause.
    let pause = v1::PauseKindRequest { kind: v1::JobKind::SubscriptionSync.into() };
    hub.admin().await.queue().pause_kind(pause).await.unwrap();
    deliver(hub, SUBSCRIPTION, &told(member, "Pro", "active", &hub_time(hub))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn telling_creatorup_of_a_user_settles_nothing_that_creatorup_has_told() {
    let peer = Peer::start().await;
    let setup = Setup::default().set("CREATORUP_API_URL", peer.url()).set("QUEUE_POLL_INTERVAL", "20");
    let hub = setup.start().await;
    let member = hub.subscriber(1).await;
    let of_webhooks = "SELECT sync_events.status FROM sync_events JOIN webhook_logs ON webhook_logs.id = sync_events.id \
                       WHERE webhook_logs.status = 'received'";
    deliver_and_hold(&hub, &member).await;
    let pushes = peer.heard_of(&member.id).len();
    let renamed = v1::UpdateUserRequest { user_id: member.id.clone(), name: Some("New".into()), ..Default::default() };
    hub.admin().await.users().update_user(renamed).await.unwrap();
    eventually("the user is pushed", async || {
        let request = v1::GetSyncStatusRequest { digiup_user_id: Some(member.id.clone()) };
        let standing = hub.service().await.user_sync().get_sync_status(request).await.unwrap().into_inner();
        peer.heard_of(&member.id).len() > pushes && standing.sync_status == i32::from(v1::SyncStatus::Synced)
    })
    .await;
    assert_eq!(hub.database.texts(of_webhooks).await, ["pending"], "what CreatorUp told is still to be applied");
    hub.database.execute("DELETE FROM paused_kinds").await;
    eventually("it is applied", async || standing(&member).await.0 == "Pro").await;
    eventually("nothing is left", async || hub.database.texts(of_webhooks).await.is_empty()).await;
}
