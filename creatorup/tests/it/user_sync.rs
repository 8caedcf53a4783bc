//! Copies of users: pulled with their tokens, pushed by the hub.

use serde_json::{Value, json};
use tonic::Code;
use upbridge_proto::creatorup::v1::{PullUserRequest, PushUserRequest, PushedUser};
use uuid::Uuid;

use crate::harness::{SERVICE_KEY, TestCreatorUp, ffmpeg, long_video};

const PATH: &str = "/api/v1/digiup/user/sync";

/// A push as docs/user-sync.md shows it.
fn push(id: Uuid, name: &str, as_of: &str) -> Value {
    json!({
        "digiup_user_id": id, "deleted": false,
        "user": {"id": id, "email": "budi@digiup.example", "name": name, "username": null, "role": "member",
                 "status": "active", "creatorup_user_id": null, "purchased_courses": [{"course": "c-1"}],
                 "created_at": "2026-03-15T12:00:00Z", "updated_at": "2026-03-15T12:00:00Z"},
        "subscription": {"id": "01935a2e-8a3c-7d10-8f52-0b9f4c7d2e33", "plan_id": 2, "plan": "Pro", "status": "active",
                         "start_date": "2026-03-15T12:00:00Z", "end_date": "2026-04-15T12:00:00Z",
                         "cancel_at_period_end": false, "source": "digiup", "updated_at": "2026-03-15T12:00:00Z"},
        "plan": {"id": 2, "name": "Pro", "tier": "reseller", "price": 299000, "currency": "IDR",
                 "features": [{"feature": "local_rendering", "monthly_limit": null}],
                 "updated_at": "2026-03-15T12:00:00Z"},
        "as_of": as_of,
    })
}

const KEY: Option<(&str, &str)> = Some(("x-api-key", SERVICE_KEY));

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_stored_once_and_confirmed_with_the_same_id() {
    let creatorup = TestCreatorUp::start().await;
    let id = Uuid::now_v7();
    let (status, first) = creatorup.http(PATH, KEY, Some(push(id, "Budi", "2026-03-15T12:00:01Z"))).await;
    assert_eq!((status, &first["data"]["changed"]), (200, &json!(true)), "{first}");
    let (status, again) = creatorup.http(PATH, KEY, Some(push(id, "Budi", "2026-03-15T12:00:01Z"))).await;
    assert_eq!((status, &again["data"]["changed"]), (200, &json!(false)), "{again}");
    assert_eq!(first["data"]["creatorup_user_id"], again["data"]["creatorup_user_id"]);
    let rows = "SELECT COUNT(*) FROM digiup_users WHERE name = 'Budi' AND plan = 'Pro'";
    assert_eq!(creatorup.database().count(rows).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_push_that_comes_late_changes_nothing() {
    let creatorup = TestCreatorUp::start().await;
    let id = Uuid::now_v7();
    creatorup.http(PATH, KEY, Some(push(id, "New", "2026-03-15T12:00:05Z"))).await;
    let (status, late) = creatorup.http(PATH, KEY, Some(push(id, "Old", "2026-03-15T12:00:04Z"))).await;
    assert_eq!((status, &late["data"]["changed"]), (200, &json!(false)));
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM digiup_users WHERE name = 'New'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_takes_the_person_out_and_is_the_last_word() {
    let creatorup = TestCreatorUp::start().await;
    let id = Uuid::now_v7();
    let gone = |as_of: &str| json!({"digiup_user_id": id, "deleted": true, "as_of": as_of});
    let (status, _) = creatorup.http(PATH, KEY, Some(gone("2026-03-15T12:00:00Z"))).await;
    assert_eq!(status, 404, "there was nobody to delete");
    creatorup.http(PATH, KEY, Some(push(id, "Budi", "2026-03-15T12:00:01Z"))).await;
    assert_eq!(creatorup.http(PATH, KEY, Some(gone("2026-03-15T12:00:02Z"))).await.0, 200);
    creatorup.http(PATH, KEY, Some(push(id, "Budi", "2026-03-15T12:00:03Z"))).await;
    let rows =
        "SELECT COUNT(*) FROM digiup_users WHERE status = 'deleted' AND email = '' AND name = '' AND plan IS NULL";
    assert_eq!(creatorup.database().count(rows).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batches_of_a_user_who_is_gone_are_called_off_and_nobody_is_told() {
    if !ffmpeg("a deletion while a video is processed") {
        return;
    }
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    long_video(&creatorup.media().join("a.mp4"));
    let create = async |body: Value| {
        let (status, answer) = creatorup.as_user(&token, "/api/v1/batch/create", Some(body)).await;
        assert_eq!(status, 201, "{answer}");
        answer["data"]["batch"]["id"].as_str().unwrap().to_owned()
    };
    // One is over already, and the hub has not taken the word of it.
    creatorup.hub().refuse_webhooks(&[503; 100]);
    let over = create(json!({"name": "over"})).await;
    creatorup.as_user(&token, &format!("/api/v1/batch/{over}/cancel"), Some(json!({}))).await;
    create(json!({"name": "pending"})).await;
    let id = create(json!({"name": "processing", "inputs": ["a.mp4"]})).await;
    let (status, _) = creatorup.as_user(&token, "/api/v1/video/process", Some(json!({"batch_id": id}))).await;
    assert_eq!(status, 202);
    // The hub knows nothing of them any more.
    creatorup.hub().refuse_webhooks(&[404; 100]);
    creatorup.hub().revoke(&token);
    let gone = json!({"digiup_user_id": member.id, "deleted": true, "as_of": "2026-03-15T12:00:02Z"});
    assert_eq!(creatorup.http(PATH, KEY, Some(gone)).await.0, 200);
    let open = "SELECT COUNT(*) FROM batches WHERE status <> 'cancelled' OR finished_at IS NULL";
    assert_eq!(creatorup.database().count(open).await, 0);
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM jobs WHERE kind = 'video'").await, 0);
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM outbox").await, 0, "nobody is told");
    let (_, health) = creatorup.http("/api/v1/health", None, None).await;
    let left = ["failed_webhooks", "unsent_webhooks", "unreported_batches"].map(|name| health["data"][name].clone());
    assert_eq!(left, [json!(0), json!(0), json!(0)], "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_hub_pushes_and_only_users_pull() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let body = push(member.id, "Ana", "2026-03-15T12:00:01Z");
    assert_eq!(creatorup.http(PATH, None, Some(body.clone())).await.0, 401);
    assert_eq!(creatorup.http(PATH, Some(("x-api-key", "guess")), Some(body.clone())).await.0, 401);
    assert_eq!(creatorup.as_user(&token, PATH, Some(body)).await.0, 403);
    assert_eq!(creatorup.http(PATH, KEY, None).await.0, 403);
    assert_eq!(creatorup.http(PATH, None, None).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_stores_the_profile_and_a_newer_push_wins() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let (status, answer) = creatorup.as_user(&token, PATH, None).await;
    assert_eq!((status, &answer["data"]["user"]["name"]), (200, &json!("Ana")), "{answer}");
    let (_, pushed) = creatorup.http(PATH, KEY, Some(push(member.id, "Ana Maria", "2026-03-15T12:00:01Z"))).await;
    assert_eq!(pushed["data"]["creatorup_user_id"], answer["data"]["user"]["id"], "one copy, whoever brought it");
    let api = creatorup.api(&token).await;
    let pulled = api.users().pull_user(PullUserRequest {}).await.unwrap().into_inner().user.unwrap();
    assert_eq!(pulled.name, "Ana Maria", "what is pulled was last changed before that");
    assert_eq!(pulled.membership.unwrap().plan, "Pro");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_over_grpc_is_the_same_push() {
    let creatorup = TestCreatorUp::start().await;
    let api = creatorup.service().await;
    let id = Uuid::now_v7().to_string();
    let user = PushedUser { email: "budi@digiup.example".into(), ..PushedUser::default() };
    let user = PushedUser { role: "member".into(), status: "active".into(), ..user };
    let push = PushUserRequest { digiup_user_id: id.clone(), user: Some(user.clone()), ..PushUserRequest::default() };
    let said = api.users().push_user(push.clone()).await.unwrap().into_inner();
    assert!(said.changed && Uuid::parse_str(&said.creatorup_user_id).is_ok());
    let nobody = PushUserRequest { user: None, ..push.clone() };
    assert_eq!(api.users().push_user(nobody).await.unwrap_err().code(), Code::InvalidArgument);
    let other = PushedUser { id: Uuid::now_v7().to_string(), ..user };
    let refused = api.users().push_user(PushUserRequest { user: Some(other), ..push }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
