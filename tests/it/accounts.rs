//! Accounts and sessions: who gets one, who loses one, and what the hub never tells.

mod cookie;
mod limit;
mod token;

use serde_json::Value;
use upbridge_client::{Client, Code, Status, v1};

use crate::harness::{
    ADMIN_EMAIL, ADMIN_PASSWORD, HubProcess, MEMBER_PASSWORD, Setup, TestDatabase, TestHub, at, json, refusal, register,
};

fn registration(email: &str) -> v1::RegisterRequest {
    v1::RegisterRequest { email: email.into(), password: MEMBER_PASSWORD.into(), ..Default::default() }
}

async fn sign_in(client: &Client, email: &str, password: &str) -> Result<v1::LoginResponse, Status> {
    let login = v1::LoginRequest { email: email.into(), password: password.into() };
    Ok(client.without_credentials().auth().login(login).await?.into_inner())
}

async fn me(client: &Client) -> Result<v1::GetMeResponse, Status> {
    Ok(client.auth().get_me(v1::GetMeRequest {}).await?.into_inner())
}

fn over() -> (Code, String) {
    (Code::Unauthenticated, "SESSION_REVOKED".into())
}

/// Rows of everything a registration writes.
async fn rows(database: &TestDatabase) -> [i64; 5] {
    let mut rows = [0; 5];
    for (count, table) in rows.iter_mut().zip(["users", "user_subscriptions", "sessions", "sync_events", "audit_log"]) {
        *count = database.count(&format!("SELECT COUNT(*) FROM {table}")).await;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_with_a_plan_stores_user_subscription_session_and_two_pending_events_together() {
    let hub = TestHub::start().await;
    let before = rows(&hub.database).await;
    let request = v1::RegisterRequest {
        name: "Ana".into(),
        username: Some("Ana.1".into()),
        plan_id: Some(2),
        ..registration("Ana@Test.Example")
    };
    let client = hub.client().await;
    let made = client.auth().register(request).await.unwrap().into_inner();
    let after = rows(&hub.database).await;
    let added: Vec<i64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(added, [1, 1, 1, 2, 0]);
    let events = "SELECT event_type FROM sync_events WHERE status = 'pending' \
                  AND user_id = (SELECT id FROM users WHERE email = 'ana@test.example') ORDER BY id";
    assert_eq!(hub.database.texts(events).await, ["user_sync", "subscription_sync"]);

    assert_eq!((made.token_type.as_str(), made.expires_at), ("Bearer", at("2026-03-16T12:00:00Z")));
    let (user, subscription) = (made.user.unwrap(), made.subscription.unwrap());
    assert_eq!((user.email.as_str(), user.username.as_deref()), ("ana@test.example", Some("Ana.1")));
    assert_eq!((user.role(), user.status()), (v1::Role::Member, v1::UserStatus::Active));
    assert_eq!(user.sync_status(), v1::SyncStatus::Pending);
    assert_eq!((subscription.plan.as_str(), subscription.end_date), ("Pro", at("2026-04-15T12:00:00Z")));
    let mine = me(&client.with_bearer(&made.token)).await.unwrap();
    assert_eq!((mine.user, mine.subscription), (Some(user), Some(subscription)));
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_with_an_unknown_plan_writes_nothing() {
    let hub = TestHub::start().await;
    let before = rows(&hub.database).await;
    let request = v1::RegisterRequest { plan_id: Some(77), ..registration("ana@test.example") };
    let refused = refusal(hub.client().await.auth().register(request).await);
    assert_eq!(refused, (Code::NotFound, "NOT_FOUND".into()));
    assert_eq!(rows(&hub.database).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_email_address_and_a_username_are_unique_regardless_of_case() {
    let hub = TestHub::start().await;
    let client = hub.client().await;
    let first = v1::RegisterRequest { username: Some("Ana".into()), ..registration("ana@test.example") };
    client.auth().register(first).await.unwrap();
    let before = rows(&hub.database).await;
    let same_email = registration("ANA@test.EXAMPLE");
    let same_username = v1::RegisterRequest { username: Some("aNA".into()), ..registration("other@test.example") };
    for (request, message) in [(same_email, "email is taken"), (same_username, "username is taken")] {
        let status = client.auth().register(request.clone()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::AlreadyExists, message));
        assert_eq!(upbridge_client::reason(&status).as_deref(), Some("ALREADY_EXISTS"));
        let body =
            serde_json::json!({ "email": request.email, "password": request.password, "username": request.username });
        let http = reqwest::Client::new().post(hub.url("/api/v1/client/auth/register")).json(&body);
        assert_eq!(json(http).await.0, 409);
    }
    assert_eq!(rows(&hub.database).await, before);
    // Those who register at the same moment cannot see each other, and still one wins.
    let calls: Vec<_> = (0..8)
        .map(|caller| {
            let client = client.clone();
            let email = if caller % 2 == 0 { "bo@test.example" } else { "BO@test.example" };
            tokio::spawn(async move { client.auth().register(registration(email)).await })
        })
        .collect();
    let mut made = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => made += 1,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists, "{status}"),
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_a_wrong_password_and_an_inactive_user_are_told_the_same() {
    let hub = TestHub::start().await;
    let (client, admin) = (hub.client().await, hub.admin().await);
    let (active, inactive) = (hub.member().await, hub.member().await);
    admin.users().deactivate_user(v1::DeactivateUserRequest { user_id: inactive.id }).await.unwrap();
    let tries = [
        ("nobody@test.example", MEMBER_PASSWORD),
        ("no address", MEMBER_PASSWORD),
        (&*active.email, "a wrong password"),
        (&*inactive.email, MEMBER_PASSWORD),
        (&*inactive.email, "a wrong password"),
    ];
    for (email, password) in tries {
        let status = sign_in(&client, email, password).await.unwrap_err();
        let said = (status.code(), status.message(), upbridge_client::reason(&status));
        let expected = "the e-mail address or the password is wrong";
        assert_eq!(said, (Code::Unauthenticated, expected, Some("INVALID_CREDENTIALS".into())), "{email}");
        let body = serde_json::json!({ "email": email, "password": password });
        let (code, answer) = json(reqwest::Client::new().post(hub.url("/api/v1/client/auth/login")).json(&body)).await;
        assert_eq!((code, &answer["error"]["message"]), (401, &Value::from(expected)), "{email}");
        assert_eq!(answer["error"]["reason"], "INVALID_CREDENTIALS");
    }
    let opened = sign_in(&client, &active.email.to_uppercase(), MEMBER_PASSWORD).await.unwrap();
    assert_eq!(opened.user.unwrap().id, active.id, "an address may be written in any case");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_ends_its_own_session_at_once_and_no_other() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let second = sign_in(&member.client, &member.email, MEMBER_PASSWORD).await.unwrap();
    let second = member.client.with_bearer(second.token);
    me(&second).await.unwrap();
    second.auth().logout(v1::LogoutRequest {}).await.unwrap();
    assert_eq!(refusal(me(&second).await), over());
    assert_eq!(refusal(second.auth().logout(v1::LogoutRequest {}).await), over());
    me(&member.client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_ends_the_other_sessions_and_the_old_password() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let mut others = Vec::new();
    for _ in 0..2 {
        let opened = sign_in(&member.client, &member.email, MEMBER_PASSWORD).await.unwrap();
        others.push(member.client.with_bearer(opened.token));
    }
    let change = |current: &str, new: &str| v1::ChangePasswordRequest {
        current_password: current.into(),
        new_password: new.into(),
    };
    let wrong = member.client.auth().change_password(change("not the password", "a new password")).await;
    assert_eq!(refusal(wrong), (Code::PermissionDenied, "INVALID_CREDENTIALS".into()));
    me(&others[0]).await.unwrap();
    hub.database.execute("UPDATE users SET sync_status = 'synced'").await;
    let changed = member.client.auth().change_password(change(MEMBER_PASSWORD, "a new password")).await.unwrap();
    assert_eq!(changed.into_inner().sessions_ended, 2);
    for other in &others {
        assert_eq!(refusal(me(other).await), over());
    }
    let mine = me(&member.client).await.unwrap().user.unwrap();
    assert_eq!(mine.sync_status(), v1::SyncStatus::Synced, "nothing that CreatorUp knows has changed");
    assert_eq!(
        sign_in(&member.client, &member.email, MEMBER_PASSWORD).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    sign_in(&member.client, &member.email, "a new password").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_listed_newest_first_and_each_can_be_ended_by_its_owner_alone() {
    let hub = TestHub::start().await;
    let (member, stranger) = (hub.member().await, hub.member().await);
    hub.clock.advance(chrono::TimeDelta::hours(1));
    let body = serde_json::json!({ "email": member.email, "password": MEMBER_PASSWORD });
    let login = reqwest::Client::new().post(hub.url("/api/v1/client/auth/login"));
    let (_, answer) = json(login.header("user-agent", "a browser").json(&body)).await;
    let browser = member.client.with_bearer(answer["data"]["token"].as_str().unwrap());
    let list = async |client: &Client| {
        client.auth().list_sessions(v1::ListSessionsRequest {}).await.unwrap().into_inner().sessions
    };
    let sessions = list(&browser).await;
    assert_eq!(sessions.iter().map(|session| session.current).collect::<Vec<_>>(), [true, false]);
    assert_eq!((sessions[0].user_agent.as_str(), sessions[0].ip_address.as_str()), ("a browser", "127.0.0.1"));
    assert_eq!(sessions[0].created_at, at("2026-03-15T13:00:00Z"));
    assert_eq!(sessions[1].expires_at, at("2026-03-16T12:00:00Z"));

    let revoke = |session: &v1::Session| v1::RevokeSessionRequest { session_id: session.id.clone() };
    let refused = refusal(stranger.client.auth().revoke_session(revoke(&sessions[1])).await);
    assert_eq!(refused, (Code::NotFound, "NOT_FOUND".into()), "another's session does not exist");
    me(&member.client).await.unwrap();
    browser.auth().revoke_session(revoke(&sessions[1])).await.unwrap();
    assert_eq!(refusal(me(&member.client).await), over());
    browser.auth().revoke_session(revoke(&sessions[1])).await.unwrap();
    assert_eq!(list(&browser).await, sessions[..1]);
    let path = format!("/api/v1/client/auth/sessions/{}", sessions[0].id);
    let delete = reqwest::Client::new().delete(hub.url(&path));
    let token = answer["data"]["token"].as_str().unwrap();
    assert_eq!(json(delete.bearer_auth(token)).await.0, 200);
    assert_eq!(refusal(me(&browser).await), over());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deactivated_or_deleted_user_stops_working_at_once() {
    let hub = TestHub::start().await;
    let admin = hub.admin().await;
    let (deactivated, deleted) = (hub.member().await, hub.member().await);
    for member in [&deactivated, &deleted] {
        me(&member.client).await.unwrap();
    }
    let user_id = deactivated.id.clone();
    admin.users().deactivate_user(v1::DeactivateUserRequest { user_id }).await.unwrap();
    admin.users().delete_user(v1::DeleteUserRequest { user_id: deleted.id.clone() }).await.unwrap();
    for member in [&deactivated, &deleted] {
        assert_eq!(refusal(me(&member.client).await), over());
        let http = reqwest::Client::new().get(hub.url("/api/v1/client/auth/me")).bearer_auth(&member.token);
        let (code, answer) = json(http).await;
        assert_eq!((code, &answer["error"]["reason"]), (401, &Value::from("SESSION_REVOKED")));
    }
    // A user who is let in again has to sign in again.
    let status = Some(v1::UserStatus::Active.into());
    let update = v1::UpdateUserRequest { user_id: deactivated.id, status, ..Default::default() };
    admin.users().update_user(update).await.unwrap();
    assert_eq!(refusal(me(&deactivated.client).await), over());
    sign_in(&deactivated.client, &deactivated.email, MEMBER_PASSWORD).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_a_password_or_its_hash() {
    let hub = TestHub::start().await;
    let http = reqwest::Client::new();
    let admin = sign_in(&hub.client().await, ADMIN_EMAIL, ADMIN_PASSWORD).await.unwrap().token;
    let body = serde_json::json!({ "email": "ana@test.example", "password": MEMBER_PASSWORD });
    let mut answers = Vec::new();
    for path in ["register", "login"] {
        answers.push(json(http.post(hub.url(&format!("/api/v1/client/auth/{path}"))).json(&body)).await);
    }
    let token = answers[1].1["data"]["token"].as_str().unwrap().to_owned();
    let user = format!("/api/admin/users/{}", answers[0].1["data"]["user"]["id"].as_str().unwrap());
    for path in
        ["client/auth/me", "client/auth/sessions", "creatorup/profile", "creatorup/access", "creatorup/sync/status"]
    {
        answers.push(json(http.get(hub.url(&format!("/api/v1/{path}"))).bearer_auth(&token)).await);
    }
    answers.push(json(http.post(hub.url("/api/v1/creatorup/verify")).bearer_auth(&token)).await);
    for path in ["/api/admin/users", &user, "/api/admin/users/stats"] {
        answers.push(json(http.get(hub.url(path)).bearer_auth(&admin)).await);
    }
    let password = serde_json::json!({ "password": "another password" });
    answers.push(json(http.put(hub.url(&user)).bearer_auth(&admin).json(&password)).await);
    answers.push(json(http.delete(hub.url(&user)).bearer_auth(&admin)).await);
    for (code, mut answer) in answers {
        assert!((200..300).contains(&code), "{answer}");
        // The letters of a token are as they come, and may come as a word.
        if let Some(token) = answer.pointer_mut("/data/token") {
            *token = Value::Null;
        }
        let text = answer.to_string().to_lowercase();
        for secret in ["argon2", "password", "hash"] {
            assert!(!text.contains(secret), "{secret} in {answer}");
        }
    }
    let kept = hub.database.texts("SELECT CAST(payload AS TEXT) FROM sync_events").await.join("");
    assert!(!kept.contains("argon2") && !kept.contains("password"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_administrator_is_made_once_and_can_sign_in() {
    let hub = TestHub::start().await;
    let opened = sign_in(&hub.client().await, ADMIN_EMAIL, ADMIN_PASSWORD).await.unwrap();
    assert_eq!(opened.user.unwrap().role(), v1::Role::Admin);
    let database = hub.stop().await;
    let hub = Setup::default().set("ADMIN_EMAIL", "second@test.example").start_on(database).await;
    let refused = sign_in(&hub.client().await, "second@test.example", ADMIN_PASSWORD).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    hub.admin().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_makes_administrators_and_gives_users_new_passwords() {
    let database = TestDatabase::new().await;
    let hub = HubProcess::start(&database);
    let member = register(&hub.client().await, None).await;
    assert_eq!(hub.terminate(), Some(0));
    let run = |verb: &str, email: &str| {
        let mut command = HubProcess::command(&database);
        let output = command.args(["admin", verb, "--email", email]).env_remove("ADMIN_PASSWORD").output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        (output.status.success(), printed)
    };
    let (made, admin_password) = run("create", "Second@Test.Example");
    assert!(made && admin_password.len() >= 20, "the password is all that standard output shows");
    assert_eq!(run("create", "second@test.example"), (false, String::new()));
    let (reset, member_password) = run("reset-password", &member.email);
    assert!(reset && member_password.len() >= 20);
    assert_eq!(run("reset-password", "nobody@test.example"), (false, String::new()));

    let hub = HubProcess::start(&database);
    let client = hub.client().await;
    let opened = sign_in(&client, "second@test.example", &admin_password).await.unwrap();
    assert_eq!(opened.user.unwrap().role(), v1::Role::Admin);
    let verify = v1::VerifyTokenRequest { token: Some(member.token) };
    assert_eq!(refusal(hub.service().await.user_sync().verify_token(verify).await), over(), "a reset signs out");
    assert_eq!(sign_in(&client, &member.email, MEMBER_PASSWORD).await.unwrap_err().code(), Code::Unauthenticated);
    sign_in(&client, &member.email, &member_password).await.unwrap();
}
