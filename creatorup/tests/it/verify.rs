//! A token's user enters.

use serde_json::json;
use tonic::Code;
use upbridge_client::v1::AccessReason;
use upbridge_proto::creatorup::v1::VerifyTokenRequest;

use crate::harness::{Setup, TestCreatorUp};

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_stores_its_user_and_grants_access() {
    let creatorup = TestCreatorUp::start().await;
    let (member, token) = creatorup.hub().member();
    let (status, answer) = creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({"token": token}))).await;
    assert_eq!(status, 200, "{answer}");
    let data = &answer["data"];
    assert_eq!(
        (&answer["success"], &data["valid"], &data["access_granted"]),
        (&json!(true), &json!(true), &json!(true))
    );
    assert_eq!((&data["reason"], &data["user"]["email"]), (&json!("granted"), &json!(member.email)));
    assert_eq!(data["user"]["digiup_user_id"], json!(member.id));
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM digiup_users").await, 1);
    // Typed, and with the token in the body alone: the same user.
    let api = creatorup.service().await;
    let again = api.verify().verify_token(VerifyTokenRequest { token: Some(token) }).await;
    assert_eq!(again.unwrap_err().code(), Code::PermissionDenied, "the hub's key verifies nobody");
    let (_, other) = creatorup.hub().member_who(AccessReason::NoSubscription);
    let (status, answer) = creatorup.http("/api/v1/digiup/verify", None, Some(json!({"token": other}))).await;
    assert_eq!((status, &answer["data"]["access_granted"]), (200, &json!(false)));
    assert_eq!(answer["data"]["reason"], "no_subscription");
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM digiup_users").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_refused_and_stores_nobody() {
    let creatorup = TestCreatorUp::start().await;
    let (_, good) = creatorup.hub().member();
    let refused = [
        (Some("nonsense"), json!({}), 401),
        (None, json!({}), 401),
        (None, json!({"token": "nonsense"}), 401),
        (Some(good.as_str()), json!({"token": "another"}), 400),
    ];
    for (header, body, expected) in refused {
        let header = header.map(|token| format!("Bearer {token}"));
        let credential = header.as_deref().map(|header| ("authorization", header));
        let (status, answer) = creatorup.http("/api/v1/digiup/verify", credential, Some(body)).await;
        assert_eq!(status, expected, "{answer}");
        assert_eq!(answer["success"], json!(false));
    }
    assert_eq!(creatorup.database().count("SELECT COUNT(*) FROM digiup_users").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_down_is_no_word_about_the_token() {
    let creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    creatorup.hub().close().await;
    let (status, answer) = creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await;
    assert_eq!((status, &answer["error"]["reason"]), (503, &json!("PEER_UNAVAILABLE")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("the hub"), "{answer}");
    let (status, _) = creatorup.as_user(&token, "/api/v1/usage/monthly", None).await;
    assert_eq!(status, 503, "nobody knows the token");
    creatorup.hub().reopen().await;
    assert_eq!(creatorup.as_user(&token, "/api/v1/digiup/verify", Some(json!({}))).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_the_hub_found_good_is_believed_while_it_is_away_and_not_after_it_said_otherwise() {
    let mut creatorup = TestCreatorUp::start().await;
    let (_, token) = creatorup.hub().member();
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 200);
    creatorup.hub().close().await;
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 200);
    creatorup.kill_and_start().await;
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 200, "also after a restart");
    creatorup.hub().reopen().await;
    creatorup.hub().revoke(&token);
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 401);
    creatorup.hub().close().await;
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 503, "and forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grace_nobody_is_believed_while_the_hub_is_away() {
    let creatorup = Setup::new().await.set("TOKEN_GRACE_SECONDS", "0").start().await;
    let (_, token) = creatorup.hub().member();
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 200);
    creatorup.hub().close().await;
    assert_eq!(creatorup.as_user(&token, "/api/v1/usage/monthly", None).await.0, 503);
}
