//! Rate limits: who is counted, by what, and what the one too many is told.

use std::net::IpAddr;
use std::time::Duration;

use upbridge_client::{Code, Status, v1};

use super::{me, sign_in};
use crate::harness::{self, MEMBER_PASSWORD, Setup, TestHub};

/// Asserts that a call was one too many, and returns when to come back.
fn limited<T: std::fmt::Debug>(answer: Result<T, Status>) -> Duration {
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), upbridge_client::reason(&status).as_deref()),
        (Code::ResourceExhausted, Some("RATE_LIMITED"))
    );
    upbridge_client::retry_after(&status).expect("RetryInfo")
}

/// A wrong attempt to sign in over HTTP, from an address of this machine; its status and `Retry-After`.
async fn attempt(hub: &TestHub, from: u8, email: &str) -> (u16, Option<u64>) {
    let http = reqwest::Client::builder().local_address(IpAddr::from([127, 0, 0, from])).build().unwrap();
    let body = serde_json::json!({ "email": email, "password": "a wrong password" });
    let answer = http.post(hub.url("/api/v1/client/auth/login")).json(&body).send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    (answer.status().as_u16(), retry_after)
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_sign_in_are_counted_by_address() {
    let hub = Setup::default().set("RATE_LIMIT_LOGIN", "3/hour").start().await;
    let member = hub.member().await;
    for account in 0..3 {
        assert_eq!(attempt(&hub, 1, &format!("{account}@test.example")).await, (401, None));
    }
    let (code, retry_after) = attempt(&hub, 1, "3@test.example").await;
    assert!(code == 429 && (1..=1200).contains(&retry_after.expect("Retry-After")), "{code} {retry_after:?}");
    let wait = limited(sign_in(&member.client, &member.email, MEMBER_PASSWORD).await);
    assert!(wait <= Duration::from_secs(1200), "{wait:?}");
    assert_eq!(attempt(&hub, 2, "3@test.example").await, (401, None), "another address is not counted");
    me(&member.client).await.expect("who is signed in is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_sign_in_are_counted_by_account_wherever_they_come_from() {
    let hub = Setup::default().set("RATE_LIMIT_LOGIN", "3/hour").start().await;
    let member = hub.member().await;
    // One account, however it is written.
    let spellings = [member.email.clone(), member.email.to_uppercase(), format!(" {} ", member.email)];
    for (from, email) in (2..).zip(&spellings) {
        assert_eq!(attempt(&hub, from, email).await, (401, None));
    }
    let (code, retry_after) = attempt(&hub, 5, &member.email).await;
    assert!(code == 429 && retry_after.is_some(), "{code} {retry_after:?}");
    assert_eq!(attempt(&hub, 6, "other@test.example").await, (401, None), "another account is not counted");
    // Guessing the current password of a stolen session is an attempt too.
    let request =
        v1::ChangePasswordRequest { current_password: "a guess".into(), new_password: "a new password".into() };
    limited(member.client.auth().change_password(request).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_without_a_good_credential_are_counted_by_address() {
    let hub = Setup::default().set("RATE_LIMIT_ANONYMOUS", "4/hour").start().await;
    let member = hub.member().await; // the first of the four
    let nobody = hub.client().await;
    nobody.membership().list_plans(v1::ListPlansRequest {}).await.unwrap();
    for bad in [nobody.with_bearer("nonsense"), nobody.with_api_key("nonsense")] {
        assert_eq!(harness::refusal(me(&bad).await).1, "INVALID_CREDENTIALS", "a guess counts");
    }
    assert!(limited(nobody.membership().list_plans(v1::ListPlansRequest {}).await) <= Duration::from_secs(900));
    limited(me(&nobody.with_bearer("nonsense")).await);
    let answer = reqwest::get(hub.url("/api/v1/client/membership/plans")).await.unwrap();
    assert_eq!(answer.status().as_u16(), 429);
    let retry_after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&retry_after));
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["error"]["reason"], "RATE_LIMITED");
    for _ in 0..5 {
        me(&member.client).await.expect("a user at the same address is not counted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_user_are_counted_by_user_and_those_of_a_service_are_not() {
    let hub = Setup::default().set("RATE_LIMIT_USER", "3/hour").start().await;
    let (member, other, service) = (hub.member().await, hub.member().await, hub.service().await);
    let verify = || v1::VerifyTokenRequest { token: Some(member.token.clone()) };
    for _ in 0..2 {
        me(&member.client).await.unwrap();
    }
    service.user_sync().verify_token(verify()).await.expect("the third");
    assert!(limited(me(&member.client).await) <= Duration::from_secs(1200));
    limited(service.user_sync().verify_token(verify()).await);
    let http = reqwest::Client::new().get(hub.url("/api/v1/client/auth/me")).bearer_auth(&member.token);
    let answer = http.send().await.unwrap();
    assert!(answer.status().as_u16() == 429 && answer.headers().contains_key("retry-after"));
    me(&other.client).await.expect("another user is not counted");
    for _ in 0..10 {
        let request = v1::CheckAccessRequest { digiup_user_id: Some(member.id.clone()) };
        service.user_sync().check_access(request).await.expect("a service is not counted");
    }
}
