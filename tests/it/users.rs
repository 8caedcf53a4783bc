//! Administration of users: finding them, changing them, and what is left of them.

mod list;

use chrono::TimeDelta;
use reqwest::Client as Http;
use serde_json::{Value, json};
use upbridge_client::{Client, Code, v1};

use crate::harness::{
    self, ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, MEMBER_PASSWORD, Member, TestDatabase, TestHub, fault, keyed,
    refusal, usage,
};

/// A new user of that name; the address and the handle are made of `handle`.
async fn named(hub: &TestHub, handle: &str, name: &str) -> String {
    let request = v1::RegisterRequest {
        email: format!("{handle}@people.example"),
        password: MEMBER_PASSWORD.into(),
        name: name.into(),
        username: Some(format!("{handle}.handle")),
        plan_id: None,
    };
    hub.client().await.auth().register(request).await.unwrap().into_inner().user.unwrap().id
}

fn update(user_id: &str) -> v1::UpdateUserRequest {
    v1::UpdateUserRequest { user_id: user_id.into(), ..Default::default() }
}

async fn admin_token(hub: &TestHub) -> String {
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    hub.client().await.auth().login(login).await.unwrap().into_inner().token
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_is_read_with_the_current_subscription() {
    let hub = TestHub::start().await;
    let (member, admin) = (hub.subscriber(3).await, hub.admin().await);
    let get = async |user_id: &str| {
        let answer = admin.users().get_user(v1::GetUserRequest { user_id: user_id.into() }).await;
        answer.map(tonic::Response::into_inner)
    };
    let read = get(&member.id).await.unwrap();
    assert_eq!((read.user.unwrap().email, read.subscription.unwrap().plan), (member.email, "Business".to_owned()));
    assert!(get(&hub.member().await.id).await.unwrap().subscription.is_none());
    assert_eq!(refusal(get(&uuid::Uuid::now_v7().to_string()).await), (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(fault(get("nobody").await), "user_id");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_part_of_a_user_can_be_changed_alone() {
    let hub = TestHub::start().await;
    let (admin, id) = (hub.admin().await, named(&hub, "ana", "Ana").await);
    named(&hub, "bo", "Bo").await;
    let change = async |request: v1::UpdateUserRequest| {
        let answer = admin.users().update_user(request).await;
        answer.map(|answer| answer.into_inner().user.unwrap())
    };
    let mut expected =
        admin.users().get_user(v1::GetUserRequest { user_id: id.clone() }).await.unwrap().into_inner().user;
    let expected = expected.as_mut().unwrap();
    hub.clock.advance(TimeDelta::minutes(1));
    expected.updated_at = harness::at("2026-03-15T12:01:00Z");
    expected.email = "new@people.example".into();
    let request = v1::UpdateUserRequest { email: Some("New@People.Example".into()), ..update(&id) };
    assert_eq!(change(request).await.unwrap(), *expected);
    expected.name = String::new();
    assert_eq!(change(v1::UpdateUserRequest { name: Some(String::new()), ..update(&id) }).await.unwrap(), *expected);
    expected.username = Some("ANA.handle".into());
    let request = v1::UpdateUserRequest { username: Some("ANA.handle".into()), ..update(&id) };
    assert_eq!(change(request).await.unwrap(), *expected, "the same handle in another case is still one's own");
    expected.set_role(v1::Role::ProReseller);
    let request = v1::UpdateUserRequest { role: Some(expected.role), ..update(&id) };
    assert_eq!(change(request).await.unwrap(), *expected);
    let request = v1::UpdateUserRequest { password: Some("a new password".into()), ..update(&id) };
    assert_eq!(change(request).await.unwrap(), *expected);
    let login = v1::LoginRequest { email: expected.email.clone(), password: "a new password".into() };
    let login = hub.client().await.auth().login(login).await.unwrap().into_inner();
    assert_eq!(login.user.as_ref(), Some(&*expected));
    expected.set_status(v1::UserStatus::Inactive);
    let request = v1::UpdateUserRequest { status: Some(expected.status), ..update(&id) };
    assert_eq!(change(request).await.unwrap(), *expected);

    let taken = (Code::AlreadyExists, "ALREADY_EXISTS".to_owned());
    let request = v1::UpdateUserRequest { email: Some("BO@people.example".into()), ..update(&id) };
    assert_eq!(refusal(change(request).await), taken);
    let request = v1::UpdateUserRequest { username: Some("bo.HANDLE".into()), ..update(&id) };
    assert_eq!(refusal(change(request).await), taken);
    assert_eq!(fault(change(update(&id)).await), "user");
    assert_eq!(fault(change(v1::UpdateUserRequest { role: Some(0), ..update(&id) }).await), "role");
    assert_eq!(fault(change(v1::UpdateUserRequest { status: Some(9), ..update(&id) }).await), "status");
    let request = v1::UpdateUserRequest { name: Some("x".into()), ..update(&uuid::Uuid::now_v7().to_string()) };
    assert_eq!(refusal(change(request).await), (Code::NotFound, "NOT_FOUND".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_patch_change_a_user_and_answer_in_camel_case() {
    let hub = TestHub::start().await;
    let (token, id) = (admin_token(&hub).await, named(&hub, "ana", "Ana").await);
    let path = hub.url(&format!("/api/admin/users/{id}"));
    let put = Http::new().put(&path).json(&json!({ "name": "Put", "role": "pro_reseller" }));
    let (code, answer) = harness::json(put.bearer_auth(&token)).await;
    let expected = json!({ "success": true, "data": {
        "id": id,
        "email": "ana@people.example",
        "name": "Put",
        "username": "ana.handle",
        "role": "pro_reseller",
        "status": "active",
        "syncStatus": "pending",
        "creatorupUserId": null,
        "creatorupSyncedAt": null,
        "lastCreatorupAccess": null,
        "creatorupMetadata": null,
        "createdAt": "2026-03-15T12:00:00Z",
        "updatedAt": "2026-03-15T12:00:00Z",
    } });
    assert_eq!((code, answer), (200, expected));
    let patch = Http::new().patch(&path).json(&json!({ "name": "Patched" }));
    let (code, answer) = harness::json(patch.bearer_auth(&token)).await;
    assert_eq!(
        (code, &answer["data"]["name"], &answer["data"]["role"]),
        (200, &"Patched".into(), &"pro_reseller".into())
    );
    for (body, field) in [(json!({ "role": "king" }), "role"), (json!({ "syncStatus": "synced" }), "syncStatus")] {
        let (code, answer) = harness::json(Http::new().patch(&path).json(&body).bearer_auth(&token)).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &Value::from(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_name_every_role_and_status_and_a_signup_is_recent_for_30_days() {
    let hub = TestHub::start().await;
    let ana = named(&hub, "ana", "Ana").await;
    let bo = named(&hub, "bo", "Bo").await;
    let admin = hub.admin().await;
    let role = Some(v1::Role::Reseller.into());
    admin.users().update_user(v1::UpdateUserRequest { role, ..update(&ana) }).await.unwrap();
    admin.users().deactivate_user(v1::DeactivateUserRequest { user_id: bo }).await.unwrap();
    let stats = async || {
        let stats = hub.admin().await.users().get_user_stats(v1::GetUserStatsRequest {}).await.unwrap();
        stats.into_inner()
    };
    let first = stats().await;
    let counts = |counts: &[(&str, i64)]| counts.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect();
    assert_eq!((first.total_users, first.recent_signups, first.as_of), (3, 3, harness::at("2026-03-15T12:00:00Z")));
    assert_eq!(first.users_by_role, counts(&[("admin", 1), ("member", 1), ("reseller", 1), ("pro_reseller", 0)]));
    assert_eq!(first.users_by_status, counts(&[("active", 2), ("inactive", 1)]));
    hub.clock.advance(TimeDelta::days(30));
    assert_eq!(stats().await.recent_signups, 3, "to the instant");
    hub.clock.advance(TimeDelta::days(1));
    named(&hub, "cem", "Cem").await;
    assert_eq!((stats().await.total_users, stats().await.recent_signups), (4, 1));
    let http = Http::new().get(hub.url("/api/admin/users/stats")).bearer_auth(admin_token(&hub).await);
    let (_, answer) = harness::json(http).await;
    assert_eq!(
        (&answer["data"]["recentSignups"], &answer["data"]["usersByRole"]["pro_reseller"]),
        (&1.into(), &0.into())
    );
}

/// What a change leaves behind: the user's last change, the number of events, and the number of audited actions.
async fn traces(hub: &TestHub, member: &Member) -> (Option<prost_types::Timestamp>, i64, i64) {
    let get = v1::GetUserRequest { user_id: member.id.clone() };
    let user = hub.admin().await.users().get_user(get).await.unwrap().into_inner().user.unwrap();
    let events = hub.database.count("SELECT COUNT(*) FROM sync_events").await;
    (user.updated_at, events, hub.database.count("SELECT COUNT(*) FROM audit_log").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivating_twice_is_deactivating_once() {
    let hub = TestHub::start().await;
    let (member, admin) = (hub.member().await, hub.admin().await);
    let request = || v1::DeactivateUserRequest { user_id: member.id.clone() };
    let first = admin.users().deactivate_user(request()).await.unwrap().into_inner().user.unwrap();
    assert_eq!(first.status(), v1::UserStatus::Inactive);
    let after = traces(&hub, &member).await;
    hub.clock.advance(TimeDelta::minutes(1));
    assert_eq!(admin.users().deactivate_user(request()).await.unwrap().into_inner().user.unwrap(), first);
    assert_eq!(traces(&hub, &member).await, after);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM users WHERE status = 'inactive'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_takes_everything_along_but_the_events() {
    let hub = TestHub::start().await;
    let (member, other) = (hub.subscriber(2).await, hub.subscriber(2).await);
    for client in [&member.client, &other.client] {
        client.usage().record_usage(keyed("k", usage("a"))).await.unwrap();
        let amended = v1::UsageData { usage_amount: Some(2), ..usage("a") };
        client.usage().record_usage(keyed("k", amended)).await.unwrap();
    }
    let admin = hub.admin().await;
    let owned = ["creatorup_usage", "usage_revisions", "usage_monthly", "user_subscriptions", "sessions", "users"];
    let count = async |table: &str| hub.database.count(&format!("SELECT COUNT(*) FROM {table}")).await;
    let (mut before, events) = (Vec::new(), count("sync_events").await);
    for table in owned {
        before.push(count(table).await);
    }
    let delete = || v1::DeleteUserRequest { user_id: member.id.clone() };
    admin.users().delete_user(delete()).await.unwrap();
    for (table, before) in owned.into_iter().zip(before) {
        assert_eq!(count(table).await, before - 1, "{table}");
    }
    assert_eq!(count("sync_events").await, events + 1, "the deletion is an event itself");
    assert_eq!(harness::total(&other.client, "2026-03").await, 2);
    assert_eq!(refusal(admin.users().delete_user(delete()).await), (Code::NotFound, "NOT_FOUND".into()));
    harness::register(&hub.client().await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_active_administrator_stays_one() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let me = admin.auth().get_me(v1::GetMeRequest {}).await.unwrap().into_inner().user.unwrap().id;
    let last = (Code::FailedPrecondition, "INVALID_STATE".to_owned());
    let demoted = || v1::UpdateUserRequest { role: Some(v1::Role::Member.into()), ..update(&me) };
    let inactive = || v1::UpdateUserRequest { status: Some(v1::UserStatus::Inactive.into()), ..update(&me) };
    let (deactivate, delete) =
        (|| v1::DeactivateUserRequest { user_id: me.clone() }, || v1::DeleteUserRequest { user_id: me.clone() });
    let other = hub.another_admin().await;
    for alone in [false, true] {
        if alone {
            // An administrator who cannot sign in does not count.
            let user_id = other.id.clone();
            admin.users().deactivate_user(v1::DeactivateUserRequest { user_id }).await.expect("one is left");
            assert_eq!(refusal(admin.users().update_user(demoted()).await), last);
            assert_eq!(refusal(admin.users().update_user(inactive()).await), last);
            assert_eq!(refusal(admin.users().deactivate_user(deactivate()).await), last);
            assert_eq!(refusal(admin.users().delete_user(delete()).await), last);
        }
        let renamed = v1::UpdateUserRequest { name: Some("Root".into()), ..update(&me) };
        admin.users().update_user(renamed).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_who_remove_each_other_at_the_same_moment_leave_one() {
    let database = TestDatabase::new().await;
    // PostgreSQL is shared by hubs, a file is not.
    let hubs: Vec<HubProcess> =
        (0..if database.is_postgres() { 2 } else { 1 }).map(|_| HubProcess::start(&database)).collect();
    let mut clients = Vec::new();
    for side in 0..2 {
        clients.push(hubs[side % hubs.len()].client().await);
    }
    let login = v1::LoginRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
    let root = clients[0].auth().login(login).await.unwrap().into_inner();
    // The administrator who is left, and the side they call on.
    let (mut id, mut client, mut side) = (root.user.unwrap().id, clients[0].with_bearer(root.token), 0);
    let delete = |client: &Client, user_id: &str| {
        let (client, request) = (client.clone(), v1::DeleteUserRequest { user_id: user_id.into() });
        tokio::spawn(async move { client.users().delete_user(request).await })
    };
    for round in 0..12 {
        let rival = harness::register(&clients[side], None).await;
        let role = Some(v1::Role::Admin.into());
        client.users().update_user(v1::UpdateUserRequest { role, ..update(&rival.id) }).await.unwrap();
        let rivals_client = clients[1 - side].with_bearer(&rival.token);
        let (mine, theirs) = (delete(&client, &rival.id), delete(&rivals_client, &id));
        let (mine, theirs) = (mine.await.unwrap(), theirs.await.unwrap());
        assert!(mine.is_ok() != theirs.is_ok(), "round {round}: {mine:?} {theirs:?}");
        if theirs.is_ok() {
            (id, client, side) = (rival.id, rivals_client, 1 - side);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_audited_once_and_without_its_secrets() {
    let hub = TestHub::start().await;
    let (member, admin) = (hub.member().await, hub.admin().await);
    let (email, password) = ("changed@people.example", "a very secret password");
    let all = v1::UpdateUserRequest {
        email: Some(email.into()),
        password: Some(password.into()),
        role: Some(v1::Role::Reseller.into()),
        ..update(&member.id)
    };
    admin.users().update_user(all).await.unwrap();
    admin.users().deactivate_user(v1::DeactivateUserRequest { user_id: member.id.clone() }).await.unwrap();
    admin.users().delete_user(v1::DeleteUserRequest { user_id: member.id.clone() }).await.unwrap();
    // What was refused has changed nothing.
    admin.users().delete_user(v1::DeleteUserRequest { user_id: member.id.clone() }).await.unwrap_err();
    let mine = format!("FROM audit_log WHERE target_kind = 'user' AND target_id = '{}' ORDER BY id", member.id);
    let actions = hub.database.texts(&format!("SELECT action {mine}")).await;
    assert_eq!(actions, ["user.updated", "user.updated", "user.deleted"]);
    let changes = hub.database.texts(&format!("SELECT CAST(changes AS TEXT) {mine}")).await;
    let changes: Vec<Value> = changes.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(changes[0], json!({ "changed": ["email", "role", "password"], "role": "reseller", "status": null }));
    assert_eq!(changes[1], json!({ "changed": ["status"], "role": null, "status": "inactive" }));
    assert_eq!(changes[2], json!({ "role": "reseller" }));
    let by = "FROM audit_log WHERE actor_kind = 'user' AND ip_address = '127.0.0.1' AND request_id <> ''";
    let by = format!("SELECT COUNT(*) {by} AND actor_id = (SELECT id FROM users WHERE email = '{ADMIN_EMAIL}')");
    assert_eq!(hub.database.count(&by).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_user_has_to_be_synced_again() {
    let hub = TestHub::start().await;
    let (member, admin) = (hub.member().await, hub.admin().await);
    let standing = async || {
        let request = v1::GetSyncStatusRequest { digiup_user_id: Some(member.id.clone()) };
        let read = hub.service().await.user_sync().get_sync_status(request).await.unwrap().into_inner();
        (read.sync_status(), read.recent_events)
    };
    hub.database.execute("UPDATE users SET sync_status = 'synced'").await;
    let password = Some("a new password".to_owned());
    admin.users().update_user(v1::UpdateUserRequest { password, ..update(&member.id) }).await.unwrap();
    let (status, events) = standing().await;
    assert_eq!((status, events.len()), (v1::SyncStatus::Synced, 1), "CreatorUp never learns a password");
    hub.clock.advance(TimeDelta::minutes(1));
    admin.users().update_user(v1::UpdateUserRequest { name: Some("New".into()), ..update(&member.id) }).await.unwrap();
    let (status, events) = standing().await;
    assert_eq!((status, events.len()), (v1::SyncStatus::Pending, 2));
    let newest = &events[0];
    assert_eq!((newest.event_type.as_str(), newest.status.as_str()), ("user_sync", "pending"));
    assert_eq!((newest.retry_count, newest.max_retries, newest.processed_at), (0, 3, None));
    assert_eq!(newest.created_at, harness::at("2026-03-15T12:01:00Z"));
}
