//! Tokens: only what this hub signed, as it signed it, for as long as it said.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use upbridge_client::Code;
use uuid::Uuid;

use super::{me, sign_in};
use crate::harness::{self, JWT_SECRET, MEMBER_PASSWORD, Setup, TestHub, noon};

const OTHER_SECRET: &str = "other-jwt-secret-0123456789abcdef0123456789abcdef";

/// The claims of a token for `user_id`, as the hub makes them.
fn claims(user_id: &str) -> Value {
    let issued = noon().timestamp();
    json!({
        "iss": "upbridge",
        "aud": "creatorup",
        "sub": user_id,
        "role": "member",
        "iat": issued,
        "exp": issued + 3600,
        "jti": Uuid::now_v7(),
    })
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn signed(algorithm: Algorithm, claims: &Value, secret: &str) -> String {
    encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The reason both faces refuse a token for.
async fn refused(hub: &TestHub, token: &str) -> String {
    let (code, reason) = harness::refusal(me(&hub.client().await.with_bearer(token)).await);
    assert_eq!(code, Code::Unauthenticated, "{token}");
    let http = reqwest::Client::new().get(hub.url("/api/v1/client/auth/me")).bearer_auth(token);
    let answer = http.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "UNAUTHENTICATED");
    assert_eq!(answer["error"]["reason"], *reason);
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_this_hub_did_not_sign_as_it_is_opens_nothing() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let good = claims(&member.id);
    me(&member.client.with_bearer(signed(Algorithm::HS256, &good, JWT_SECRET)))
        .await
        .expect("the test signs as the hub");

    let (head, rest) = member.token.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let promoted = part(&with(good.clone(), "role", "admin"));
    let none = part(&json!({ "alg": "none", "typ": "JWT" }));
    let shouted = part(&json!({ "alg": "NONE", "typ": "JWT" }));
    let asymmetric = part(&json!({ "alg": "RS256", "typ": "JWT" }));
    let hs256 = |claims: Value| signed(Algorithm::HS256, &claims, JWT_SECRET);
    let tokens = [
        ("another payload", format!("{head}.{promoted}.{signature}")),
        ("another signature", format!("{head}.{body}.{}", signature.chars().rev().collect::<String>())),
        ("no signature", format!("{head}.{body}.")),
        ("alg none", format!("{none}.{body}.")),
        ("alg none with a signature", format!("{none}.{body}.{signature}")),
        ("alg NONE", format!("{shouted}.{body}.")),
        ("alg RS256", format!("{asymmetric}.{body}.{signature}")),
        ("HS384", signed(Algorithm::HS384, &good, JWT_SECRET)),
        ("HS512", signed(Algorithm::HS512, &good, JWT_SECRET)),
        ("an unknown secret", signed(Algorithm::HS256, &good, OTHER_SECRET)),
        ("another issuer", hs256(with(good.clone(), "iss", "elsewhere"))),
        ("no issuer", hs256(without(good.clone(), "iss"))),
        ("another audience", hs256(with(good.clone(), "aud", "digiup"))),
        ("no audience", hs256(without(good.clone(), "aud"))),
        ("no expiry", hs256(without(good.clone(), "exp"))),
        ("no session", hs256(without(good.clone(), "jti"))),
        ("a subject that is no id", hs256(with(good.clone(), "sub", "admin"))),
        ("no token at all", "nonsense".into()),
        ("three parts of nothing", "..".into()),
    ];
    for (what, token) in tokens {
        assert_eq!(refused(&hub, &token).await, "INVALID_CREDENTIALS", "{what}");
    }
    let nobody = hs256(with(good, "sub", Uuid::now_v7().to_string()));
    assert_eq!(refused(&hub, &nobody).await, "SESSION_REVOKED", "a user that does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_for_24_hours_and_not_a_second_longer() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    hub.clock.advance(TimeDelta::hours(24) - TimeDelta::seconds(1));
    me(&member.client).await.unwrap();
    hub.clock.advance(TimeDelta::seconds(1));
    assert_eq!(refused(&hub, &member.token).await, "TOKEN_EXPIRED");
    let again = sign_in(&member.client, &member.email, MEMBER_PASSWORD).await.unwrap();
    assert_eq!(again.expires_at, harness::at("2026-03-17T12:00:00Z"));
    me(&member.client.with_bearer(again.token)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_secret_goes_on_verifying_while_it_is_the_previous_one() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let database = hub.stop().await;
    let rotated = Setup::default().set("JWT_SECRET", OTHER_SECRET).set("JWT_SECRET_PREVIOUS", JWT_SECRET);
    let hub = rotated.start_on(database).await;
    let client = hub.client().await;
    me(&client.with_bearer(&member.token)).await.expect("signed before the rotation");
    let fresh = sign_in(&client, &member.email, MEMBER_PASSWORD).await.unwrap().token;
    let database = hub.stop().await;

    let hub = Setup::default().set("JWT_SECRET", OTHER_SECRET).start_on(database).await;
    me(&hub.client().await.with_bearer(fresh)).await.expect("signed with the new secret");
    assert_eq!(refused(&hub, &member.token).await, "INVALID_CREDENTIALS");
}
