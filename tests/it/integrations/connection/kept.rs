//! What becomes of a test: the answer's shape, the last test, the log, and the limit.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use upbridge_client::v1::IntegrationProvider as Provider;
use upbridge_client::{Code, v1};

use super::{SECRET, Stage, credentials, fault, near};
use crate::harness::{self, Setup, refusal};
use crate::peer::{HttpPeer, Reply};

const GOOD: &str = r#"{"status_code":"404","status_message":"Transaction doesn't exist.","id":"x"}"#;
const BAD: &str = r#"{"status_code":"401","status_message":"Unknown Merchant server_key/id","id":"x"}"#;

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The columns of the log of one integration, by one expression.
async fn log(stage: &Stage, id: &str, expression: &str) -> Vec<String> {
    let bare = id.replace('-', "");
    let literal = if stage.hub.database.is_postgres() { format!("'{id}'") } else { format!("x'{bare}'") };
    let sql = format!(
        "SELECT {expression} FROM integration_logs WHERE integration_id = {literal} AND action IN ('test', 'error') \
         ORDER BY id"
    );
    stage.hub.database.texts(&sql).await
}

fn parsed(texts: &[String]) -> Vec<Value> {
    texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_has_exactly_the_printed_keys_and_failing_is_an_answer_too() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let id = stage.at(Provider::Midtrans, &peer).await;
    stage.hub.clock.advance(chrono::TimeDelta::milliseconds(1234));
    peer.plays([Reply::json(200, GOOD), Reply::json(401, BAD)]);
    let answer = stage.post(&id).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(keys(&answer), ["success", "data", "diagnosis"]);
    let data = json!({
        "status": "success", "message": "Midtrans connection successful",
        "details": { "environment": "sandbox" }, "testedAt": "2026-03-15T12:00:01Z",
    });
    assert_eq!(answer["data"], data);
    assert_eq!((&answer["success"], &answer["diagnosis"]["providerStatus"]), (&json!(true), &json!(200)));
    let answer = stage.post(&id).await;
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(keys(&answer["data"]), ["status", "message", "details", "testedAt"]);
    assert_eq!((&answer["success"], &answer["data"]["status"]), (&json!(true), &json!("failed")));
    let diagnosis = &answer["diagnosis"];
    assert_eq!((&diagnosis["errorClass"], &diagnosis["errorCode"]), (&json!("auth"), &json!("auth_failed")));
    let message = answer["data"]["message"].as_str().unwrap();
    assert!(message.starts_with("Authentication failed: Midtrans refused the server key"), "{message}");
    let last = stage.get(&id).await.last_test.unwrap();
    assert_eq!((last.status(), last.message.as_str()), (v1::IntegrationOutcome::Failed, message));
    assert_eq!((last.tested_at, last.error_class.as_deref()), (harness::at("2026-03-15T12:00:01Z"), Some("auth")));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_test_is_logged_with_who_asked_and_without_a_secret() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let id = stage.at(Provider::Midtrans, &peer).await;
    peer.plays([Reply::json(200, GOOD), Reply::json(401, BAD), Reply::Close]);
    for _ in 0..3 {
        assert_eq!(stage.post(&id).await.status(), 200);
    }
    let words = log(&stage, &id, "action || ' ' || status || ' ' || ip_address || ' ' || user_agent").await;
    let line = |status: &str| format!("test {status} 127.0.0.1 an admin's browser");
    assert_eq!(words, [line("success"), line("failed"), line("failed")]);
    let asked = parsed(&log(&stage, &id, "CAST(request_data AS TEXT)").await);
    let host = peer.address.to_string();
    assert_eq!(asked, vec![json!({ "provider": "midtrans", "environment": "sandbox", "host": host }); 3]);
    let answered = log(&stage, &id, "COALESCE(CAST(response_data AS TEXT), 'null')").await;
    let said = |status: u16| json!({ "status": status, "account": null, "warnings": [] });
    assert_eq!(parsed(&answered), [said(200), said(401), Value::Null]);
    let wrong = parsed(&log(&stage, &id, "COALESCE(CAST(error_details AS TEXT), 'null')").await);
    let auth = json!({ "class": "auth", "code": "auth_failed", "status": 401 });
    assert_eq!(wrong, [Value::Null, auth, json!({ "class": "network", "code": "connection", "status": null })]);
    assert_eq!(log(&stage, &id, "CASE WHEN duration >= 0 THEN 'timed' ELSE 'not' END").await, ["timed"; 3]);
    let admins = stage.hub.database.count("SELECT COUNT(DISTINCT user_id) FROM integration_logs WHERE action = 'test'");
    assert_eq!(admins.await, 1);
    let counted = "SELECT CAST(SUM(count) AS BIGINT) FROM integration_counts WHERE action = 'test' AND span = 'total'";
    assert_eq!(stage.hub.database.count(counted).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_eleventh_test_within_a_minute_is_one_too_many_for_that_integration_alone() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    peer.always(Reply::json(200, GOOD));
    let (one, other) = (stage.at(Provider::Midtrans, &peer).await, stage.at(Provider::Midtrans, &peer).await);
    let begun = Instant::now();
    // Every six seconds there may be one more, so that it matters how long this takes.
    let may_be = |made: usize| made as u64 <= 10 + begun.elapsed().as_secs() / 6;
    let mut made = 0;
    let refused = loop {
        let request = v1::TestConnectionRequest { integration_id: one.clone() };
        match stage.admin.integrations().test_connection(request).await {
            Ok(_) => made += 1,
            Err(refused) => break refused,
        }
        assert!(may_be(made), "{made} of ten");
    };
    assert!(made >= 10, "{made}: {refused}");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let wait = upbridge_client::retry_after(&refused).expect("RetryInfo");
    assert!(wait <= Duration::from_secs(6), "{wait:?}");
    let answer = loop {
        let answer = stage.post(&one).await;
        if answer.status() != 200 {
            break answer;
        }
        made += 1;
        assert!(may_be(made), "{made} of ten");
    };
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    stage.test(&other).await;
    assert_eq!(peer.count(), made + 1, "the provider saw none of the others");
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_of_one_integration_at_once_are_all_answered_and_all_logged() {
    let stage = Stage::of(near()).await;
    let peer = HttpPeer::start().await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    peer.always(Reply::json(200, GOOD).held(&gate));
    let id = stage.at(Provider::Midtrans, &peer).await;
    let tests = futures::future::join_all((0..8).map(|_| stage.test(&id)));
    let release = async {
        harness::eventually("all of them ask at once", async || peer.count() == 8).await;
        // Nothing is held up meanwhile: no transaction waits for a provider.
        stage.hub.member().await;
        gate.add_permits(8);
    };
    let (tested, ()) = tokio::join!(tests, release);
    assert!(tested.iter().all(|(_, diagnosis)| fault(diagnosis).is_none()), "{tested:?}");
    assert_eq!(log(&stage, &id, "status").await, ["success"; 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_do_not_open_are_a_failed_test_and_an_error_in_the_log() {
    let stage = Stage::of(near().set("ENCRYPTION_KEY", "one-encryption-key-0123456789abcdef0123456789")).await;
    let peer = HttpPeer::start().await;
    let id = stage.at(Provider::Midtrans, &peer).await;
    let other = near().set("ENCRYPTION_KEY", "another-encryption-key-0123456789abcdef012345");
    let hub = other.start_on(stage.hub.stop().await).await;
    let stage = Stage::on(hub, stage.partner_id).await;
    let (test, diagnosis) = stage.test(&id).await;
    assert_eq!(fault(&diagnosis), Some(("config", "configuration")));
    assert!(test.message.contains("cannot be decrypted") && !test.message.contains(SECRET), "{}", test.message);
    assert_eq!(log(&stage, &id, "action || ' ' || status").await, ["test failed", "error failed"]);
    assert_eq!(stage.get(&id).await.last_test.unwrap().error_class.as_deref(), Some("config"));
    assert_eq!(peer.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_administrators_test_and_only_what_there_is() {
    let stage = Stage::of(Setup::default()).await;
    let request = |id: &str| v1::TestConnectionRequest { integration_id: id.into() };
    let nowhere = request("01890000-0000-7000-8000-000000000000");
    let missing = stage.admin.integrations().test_connection(nowhere).await;
    assert_eq!(refusal(missing), (Code::NotFound, "NOT_FOUND".into()));
    let id = stage.add(Provider::Midtrans, &credentials(Provider::Midtrans), None).await;
    let member = stage.hub.member().await.client.integrations().test_connection(request(&id)).await;
    assert_eq!(refusal(member), (Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_may_be_led_any_more_nobody_is_asked() {
    let stage = Stage::of(near().set("INTEGRATION_ALLOWED_HOSTS", "proxy.invalid")).await;
    let id = stage.add(Provider::Stripe, &credentials(Provider::Stripe), Some("https://proxy.invalid")).await;
    let (test, diagnosis) = stage.test(&id).await;
    assert_eq!(fault(&diagnosis), Some(("network", "connection")), "{}", test.message);
    let Stage { hub, partner_id, .. } = stage;
    let stage = Stage::on(near().start_on(hub.stop().await).await, partner_id).await;
    let (test, diagnosis) = stage.test(&id).await;
    assert_eq!(fault(&diagnosis), Some(("blocked_target", "blocked_target")));
    let said = "Blocked target: the base URL of Stripe must be https:// and stripe.com or a name below it";
    assert!(test.message.starts_with(said), "{}", test.message);
}
