//! What is pushed, and when.

use serde_json::json;
use upbridge_client::v1;

use super::{becomes, gate, rename, settles, status_of, synced, with};
use crate::harness::{MEMBER_PASSWORD, Peer, Play, SERVICE_KEY, at, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn registration_reaches_creatorup_through_the_queue_and_comes_back_confirmed() {
    let (peer, gate) = (Peer::start().await, gate());
    peer.plays([Play::Confirm, Play::Hold(gate.clone())]);
    let hub = with(&peer).start().await;
    // The first push is the administrator's, who is a user like others.
    eventually("the administrator is pushed", async || peer.heard().len() == 1).await;

    // 1, 2: the user registers and subscribes, and is answered while CreatorUp still thinks.
    let member = hub.subscriber(2).await;
    let before = status_of(&hub, &member.id).await;
    assert_eq!(before.sync_status, i32::from(v1::SyncStatus::Pending));
    assert_eq!((before.creatorup_synced_at, before.creatorup_user_id), (None, None));
    let kinds: Vec<_> = before.recent_events.iter().map(|event| (&*event.event_type, &*event.status)).collect();
    assert!(
        kinds.contains(&("user_sync", "pending")) && kinds.contains(&("subscription_sync", "pending")),
        "{kinds:?}"
    );

    // 3, 4: the queue has a job, and its worker hands the user over.
    eventually("CreatorUp hears of the user", async || !peer.heard_of(&member.id).is_empty()).await;
    let running = format!("SELECT COUNT(*) FROM jobs WHERE queue_key = '{}' AND state = 'running'", member.id);
    assert_eq!(hub.database.count(&running).await, 1, "the job is on lease while CreatorUp thinks");

    // 5, 6, 7: CreatorUp stores and confirms; the hub notes it.
    gate.add_permits(2);
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    let after = status_of(&hub, &member.id).await;
    assert_eq!(after.creatorup_user_id, Some(format!("c-{}", member.id)));
    assert!(after.creatorup_synced_at.unwrap().seconds >= at("2026-03-15T12:00:00Z").unwrap().seconds);
    assert!(after.recent_events.iter().all(|event| event.status == "completed" && event.processed_at.is_some()));
    let profile = member.client.user_sync().get_profile(v1::GetProfileRequest::default()).await.unwrap().into_inner();
    let said = profile.user.unwrap().creatorup_metadata.expect("what CreatorUp said");
    assert_eq!(said.fields.keys().collect::<Vec<_>>(), ["region", "seats"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_holds_the_whole_user_the_key_and_no_token() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let member = hub.subscriber(2).await;
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    let heard = peer.heard_of(&member.id).pop().unwrap();
    assert_eq!((&*heard.method, &*heard.path), ("POST", "/api/v1/digiup/user/sync"));
    assert_eq!((&*heard.headers["x-api-key"], &*heard.headers["content-type"]), (SERVICE_KEY, "application/json"));
    assert!(heard.headers["idempotency-key"].len() > 36 && heard.headers["x-request-id"].len() == 32);
    assert!(!heard.headers.contains_key("authorization") && !heard.headers.contains_key("accept-encoding"));
    assert!(!heard.body.to_string().contains(&member.token) && !heard.body.to_string().contains("argon2"));
    let user = &heard.body["user"];
    let expected = json!({
        "id": member.id, "email": member.email, "name": "Member", "username": null, "role": "member",
        "status": "active", "creatorup_user_id": null, "purchased_courses": [],
        "created_at": "2026-03-15T12:00:00Z", "updated_at": "2026-03-15T12:00:00Z",
    });
    assert_eq!(*user, expected);
    assert_eq!(heard.body["deleted"], false);
    assert_eq!(
        (&heard.body["subscription"]["status"], &heard.body["subscription"]["plan"]),
        (&json!("active"), &json!("Pro"))
    );
    assert_eq!((&heard.body["plan"]["name"], &heard.body["plan"]["price"]), (&json!("Pro"), &json!(299_000)));
    assert_eq!(heard.body["plan"]["features"][0], json!({ "feature": "local_rendering", "monthly_limit": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_that_concerns_creatorup_is_pushed_and_no_other() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let (member, admin) = (synced(&hub).await, hub.admin().await);
    let last = async |what: &str, holds: &dyn Fn(&serde_json::Value) -> bool| {
        eventually(what, async || peer.heard_of(&member.id).last().is_some_and(|heard| holds(&heard.body))).await;
        becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
        settles(&hub, &member.id).await;
    };
    rename(&admin, &member.id, "Budi").await;
    last("the name", &|body| body["user"]["name"] == "Budi").await;
    let role = v1::UpdateUserRequest {
        user_id: member.id.clone(),
        role: Some(v1::Role::Reseller.into()),
        ..Default::default()
    };
    admin.users().update_user(role).await.unwrap();
    last("the role", &|body| body["user"]["role"] == "reseller").await;
    for plan_id in [1, 2] {
        let subscribe = v1::SubscribeRequest { plan_id: Some(plan_id), ..Default::default() };
        member.client.membership().subscribe(subscribe).await.unwrap();
        last("the plan", &|body| body["plan"]["id"] == plan_id && body["subscription"]["status"] == "active").await;
    }
    // Somebody else's change is theirs too: the plan itself.
    let cheaper = v1::UpdatePlanRequest { plan_id: 2, price: Some(5), ..Default::default() };
    admin.membership().update_plan(cheaper).await.unwrap();
    last("the price of the plan", &|body| body["plan"]["price"] == 5).await;
    let cancel = v1::CancelSubscriptionRequest { immediately: true };
    member.client.membership().cancel_subscription(cancel).await.unwrap();
    last("the end of the subscription", &|body| body["subscription"]["status"] == "canceled").await;

    let pushes = peer.heard_of(&member.id).len();
    let password = v1::ChangePasswordRequest {
        current_password: MEMBER_PASSWORD.into(),
        new_password: "another-password-1".into(),
    };
    member.client.auth().change_password(password).await.unwrap();
    let deactivate = v1::DeactivateUserRequest { user_id: member.id.clone() };
    admin.users().deactivate_user(deactivate).await.unwrap();
    last("the status", &|body| body["user"]["status"] == "inactive").await;
    assert_eq!(peer.heard_of(&member.id).len(), pushes + 1, "CreatorUp never learns passwords");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_runs_out_is_pushed() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let member = hub.subscriber(1).await;
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    let database = &hub.database;
    let past = "UPDATE user_subscriptions SET end_date = '2026-03-15 11:00:00+00:00'";
    database.execute(past).await;
    // A hub tidies when it starts.
    let other = with(&peer).start_on(hub.stop().await).await;
    eventually("the end is pushed", async || {
        peer.heard_of(&member.id).last().is_some_and(|heard| heard.body["subscription"]["status"] == "expired")
    })
    .await;
    becomes(&other, &member.id, v1::SyncStatus::Synced).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_changes_during_a_push_are_one_more_push_with_the_last() {
    let (peer, gate) = (Peer::start().await, gate());
    let hub = with(&peer).start().await;
    let (member, admin) = (synced(&hub).await, hub.admin().await);
    peer.plays([Play::Hold(gate.clone()), Play::Hold(gate.clone())]);
    rename(&admin, &member.id, "first").await;
    eventually("the first push is under way", async || peer.heard_of(&member.id).len() == 2).await;
    for change in 0..10 {
        rename(&admin, &member.id, &format!("change {change}")).await;
    }
    gate.add_permits(1);
    eventually("the second push is under way", async || peer.heard_of(&member.id).len() == 3).await;
    let between = status_of(&hub, &member.id).await;
    assert_eq!(between.sync_status, i32::from(v1::SyncStatus::Pending), "what CreatorUp has is not the newest");
    let pending = between.recent_events.iter().filter(|event| event.status == "pending").count();
    assert_eq!((between.recent_events.len(), pending), (12, 10), "the first push settled what it held and no more");
    gate.add_permits(1);
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    settles(&hub, &member.id).await;
    let names: Vec<_> = peer.heard_of(&member.id).into_iter().map(|heard| heard.body["user"]["name"].clone()).collect();
    assert_eq!(names, ["Member", "first", "change 9"]);
    let after = status_of(&hub, &member.id).await;
    assert!(after.recent_events.iter().all(|event| event.status == "completed"));
    let keys: std::collections::BTreeSet<_> =
        peer.heard_of(&member.id).into_iter().map(|heard| heard.headers["idempotency-key"].clone()).collect();
    assert_eq!(keys.len(), 3, "what differs has keys that differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_is_told_about_and_one_whom_creatorup_never_had_is_no_failure() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let (member, stranger, admin) = (synced(&hub).await, synced(&hub).await, hub.admin().await);
    for (id, play) in [(&member.id, Play::Confirm), (&stranger.id, Play::Say(404, "", String::new()))] {
        peer.plays([play]);
        admin.users().delete_user(v1::DeleteUserRequest { user_id: id.clone() }).await.unwrap();
        eventually("the deletion is told", async || peer.heard_of(id).len() == 2).await;
        settles(&hub, id).await;
        let told = peer.heard_of(id).pop().unwrap().body;
        assert_eq!((&told["deleted"], told.get("user")), (&json!(true), None));
    }
    let unsettled = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'user_sync' AND status <> 'completed'";
    assert_eq!(hub.database.count(unsettled).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_settles_nothing_that_came_from_creatorup() {
    let peer = Peer::start().await;
    let hub = with(&peer).start().await;
    let (member, admin) = (synced(&hub).await, hub.admin().await);
    // A subscription that CreatorUp reported and that waits to be applied, as the intake of webhooks leaves it.
    let id = |id: &str| match hub.database.is_postgres() {
        true => format!("'{id}'"),
        false => format!("x'{}'", id.replace('-', "")),
    };
    let event = id(&uuid::Uuid::now_v7().to_string());
    let user = id(&member.id);
    for (table, columns) in [("webhook_logs", "source"), ("sync_events", "status")] {
        let what = if columns == "source" { "'creatorup'" } else { "'pending'" };
        let insert = format!(
            "INSERT INTO {table} (id, event_type, user_id, {columns}) VALUES ({event}, 'subscription_sync', {user}, {what})"
        );
        hub.database.execute(&insert).await;
    }
    rename(&admin, &member.id, "Budi").await;
    eventually("the name is pushed", async || peer.heard_of(&member.id).len() == 2).await;
    becomes(&hub, &member.id, v1::SyncStatus::Synced).await;
    settles(&hub, &member.id).await;
    let waits = format!("SELECT COUNT(*) FROM sync_events WHERE id = {event} AND status = 'pending'");
    assert_eq!(hub.database.count(&waits).await, 1, "the webhook is still to be applied");
}
