//! The requests as the products' own documents print them, sent as they are: what those documents promise their
//! readers is what the hub answers, to the last key.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{MEMBER_PASSWORD, Member, TestHub, total};

/// The instant the hub's clock stands at, as JSON has it.
const NOON: &str = "2026-03-15T12:00:00Z";

/// The report as it is printed.
const REPORT: &str = r#"{
  "usage_data": {
    "batch_name": "my-video-batch-001",
    "batch_type": "video",
    "usage_type": "local_rendering",
    "usage_amount": 1,
    "month_year": "2024-01",
    "completed_at": "2024-01-15T10:30:00.000Z",
    "metadata": {
      "video_count": 5,
      "processing_time": "2 minutes"
    }
  }
}"#;

async fn send(hub: &TestHub, verb: Method, path: &str, token: &str, body: Option<&str>) -> Response {
    let mut request = reqwest::Client::new().request(verb, hub.url(path));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    request.send().await.unwrap()
}

/// The data of a successful answer, which has nothing else in it.
async fn data(answer: Response) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/json");
    let status = answer.status();
    let mut answer: Value = answer.json().await.unwrap();
    assert!(status.is_success() && answer["success"] == true, "{status}: {answer}");
    assert_eq!(answer.as_object().unwrap().len(), 2, "the envelope is success and data: {answer}");
    answer["data"].take()
}

async fn get(hub: &TestHub, path: &str, token: &str) -> Value {
    data(send(hub, Method::GET, path, token, None).await).await
}

async fn post(hub: &TestHub, path: &str, token: &str, body: &str) -> Value {
    data(send(hub, Method::POST, path, token, Some(body)).await).await
}

/// Compares key by key. An expected text of a leading colon stands for any value of that kind.
#[track_caller]
fn assert_is(actual: &Value, expected: Value) {
    let mut differences = Vec::new();
    compare(&expected, actual, "$", &mut differences);
    assert!(differences.is_empty(), "{differences:#?}\nin {actual:#}");
}

fn compare(expected: &Value, actual: &Value, path: &str, differences: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(wanted), Value::Object(found)) => {
            for key in wanted.keys().chain(found.keys().filter(|key| !wanted.contains_key(*key))) {
                let path = format!("{path}.{key}");
                match (wanted.get(key), found.get(key)) {
                    (Some(wanted), Some(found)) => compare(wanted, found, &path, differences),
                    (Some(_), None) => differences.push(format!("{path} is missing")),
                    _ => differences.push(format!("{path} is one too many")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
            for (index, (wanted, found)) in wanted.iter().zip(found).enumerate() {
                compare(wanted, found, &format!("{path}[{index}]"), differences);
            }
        }
        (Value::String(kind), found) if kind.starts_with(':') => {
            let is_kind = match (kind.as_str(), found) {
                (":uuid", Value::String(text)) => uuid::Uuid::parse_str(text).is_ok(),
                (":token", Value::String(text)) => text.matches('.').count() == 2,
                (":text", Value::String(text)) => !text.is_empty(),
                (":time or null", Value::String(text)) => text.ends_with('Z') && text.len() >= NOON.len(),
                (":time or null", Value::Null) => true,
                _ => false,
            };
            if !is_kind {
                differences.push(format!("{path} is {found}, not {kind}"));
            }
        }
        // An integer and a number with a fraction are unequal here: 5 is not 5.0.
        (wanted, found) if wanted != found => {
            differences.push(format!("{path} is {found}, not {wanted}"));
        }
        _ => {}
    }
}

fn user(member: &Member) -> Value {
    json!({
        "id": member.id, "email": member.email, "name": "Member", "username": null, "role": "member",
        "status": "active", "sync_status": "pending", "creatorup_user_id": null, "creatorup_synced_at": null,
        "last_creatorup_access": ":time or null", "creatorup_metadata": null, "created_at": NOON, "updated_at": NOON,
    })
}

fn subscription(member: &Member, plan_id: i32, plan: &str, tier: &str) -> Value {
    json!({
        "id": ":uuid", "user_id": member.id, "plan_id": plan_id, "plan": plan, "tier": tier, "status": "active",
        "start_date": NOON, "end_date": "2026-04-15T12:00:00Z", "cancel_at_period_end": false, "source": "digiup",
        "created_at": NOON, "updated_at": NOON,
    })
}

fn plan(id: i32, name: &str, tier: &str, price: i64, features: Value) -> Value {
    json!({
        "id": id, "name": name, "tier": tier, "price": price, "currency": "IDR", "interval": "month",
        "features": features, "is_active": true, "created_at": NOON, "updated_at": NOON,
    })
}

fn pro() -> Value {
    let features = json!([
        { "feature": "local_rendering", "monthly_limit": null }, { "feature": "cloud_rendering", "monthly_limit": 100 },
    ]);
    plan(2, "Pro", "reseller", 299_000, features)
}

fn recorded(member: &Member, outcome: &str, usage: Value) -> Value {
    let mut expected = json!({
        "id": ":uuid", "user_id": member.id, "creatorup_user_id": "", "idempotency_key": null, "revision": 0,
        "synced_at": NOON, "created_at": NOON,
    });
    expected.as_object_mut().unwrap().extend(usage.as_object().unwrap().clone());
    json!({ "usage_id": ":uuid", "duplicate": outcome == "duplicate", "outcome": outcome, "usage": expected })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_usage_report_is_recorded_and_comes_back_as_it_was() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let usage = json!({
        "batch_name": "my-video-batch-001", "batch_type": "video", "usage_type": "local_rendering", "usage_amount": 1,
        "month_year": "2024-01", "completed_at": "2024-01-15T10:30:00Z", "completion_reported": true,
        "metadata": { "video_count": 5, "processing_time": "2 minutes" }, "source": "record_usage",
    });
    let first = post(&hub, "/api/v1/creatorup/sync/usage", &member.token, REPORT).await;
    assert_is(&first, recorded(&member, "created", usage.clone()));
    let again = post(&hub, "/api/v1/client/creatorup/sync/usage", &member.token, REPORT).await;
    assert_is(&again, recorded(&member, "duplicate", usage));
    assert_eq!((&first["usage_id"], &first["usage"]["id"]), (&again["usage_id"], &again["usage_id"]));
    assert_eq!(total(&member.client, "2024-01").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_status_profile_and_access_answer_alike_at_both_of_their_paths() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let both = async |name: &str| {
        let answer = get(&hub, &format!("/api/v1/creatorup/{name}"), &member.token).await;
        let alias = get(&hub, &format!("/api/v1/client/creatorup/{name}"), &member.token).await;
        assert_eq!(answer, alias, "{name}");
        answer
    };
    let event = |kind: &str| {
        json!({
            "id": ":uuid", "event_type": kind, "status": "pending", "retry_count": 0, "max_retries": 3,
            "error_message": null, "created_at": NOON, "processed_at": null,
        })
    };
    let expected = json!({
        "user_id": member.id, "sync_status": "pending", "creatorup_synced_at": null, "creatorup_user_id": null,
        "last_creatorup_access": null, "recent_events": [event("subscription_sync"), event("user_sync")],
    });
    assert_is(&both("sync/status").await, expected);
    let expected =
        json!({ "user": user(&member), "subscription": subscription(&member, 2, "Pro", "reseller"), "plan": pro() });
    assert_is(&both("profile").await, expected);
    let feature = |name: &str, limit: Value, remaining: Value| json!({ "feature": name, "has_access": true, "reason": "granted", "limit": limit, "used": 0, "remaining": remaining });
    let expected = json!({
        "has_access": true, "reason": "granted", "user_id": member.id, "plan": "Pro", "limit": null, "used": 0,
        "remaining": null, "period_start": "2026-03-01T00:00:00Z", "period_end": "2026-04-01T00:00:00Z",
        "access_until": "2026-04-15T12:00:00Z", "as_of": NOON,
        "features": [
            feature("cloud_rendering", 100.into(), 100.into()),
            feature("local_rendering", Value::Null, Value::Null),
        ],
    });
    assert_is(&both("access").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_verified_with_and_without_a_body() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let expected = json!({
        "valid": true, "user": user(&member), "subscription": subscription(&member, 2, "Pro", "reseller"),
        "has_access": true, "reason": "granted", "token_expires_at": "2026-03-16T12:00:00Z",
    });
    let bare = send(&hub, Method::POST, "/api/v1/creatorup/verify", &member.token, None).await;
    assert_is(&data(bare).await, expected.clone());
    let body = json!({ "token": member.token }).to_string();
    for path in ["/api/v1/client/creatorup/verify", "/api/v1/creatorup/verify"] {
        assert_is(&post(&hub, path, &member.token, &body).await, expected.clone());
        assert_is(&post(&hub, path, "", &body).await, expected.clone());
    }
    hub.clock.advance(chrono::TimeDelta::days(1));
    let expired = send(&hub, Method::POST, "/api/v1/client/creatorup/verify", &member.token, Some(&body)).await;
    assert_eq!(expired.status(), 401);
    assert_eq!(expired.json::<Value>().await.unwrap()["error"]["reason"], "TOKEN_EXPIRED");
}

#[tokio::test(flavor = "multi_thread")]
async fn feature_access_says_what_is_left() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(1).await;
    let access = async || get(&hub, "/api/v1/client/membership/feature/local_rendering/access", &member.token).await;
    let expected = |used: i64| {
        json!({
            "has_access": true, "reason": "granted", "feature": "local_rendering", "plan": "Starter", "limit": 100,
            "used": used, "remaining": 100 - used, "period_start": "2026-03-01T00:00:00Z",
            "period_end": "2026-04-01T00:00:00Z", "access_until": "2026-04-15T12:00:00Z", "as_of": NOON,
        })
    };
    assert_is(&access().await, expected(0));
    let batch = r#"{"batch_name":"a","batch_type":"video","usage_type":"local_rendering","usage_amount":7}"#;
    post(&hub, "/api/v1/client/batch/create", &member.token, batch).await;
    assert_is(&access().await, expected(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_created_in_either_spelling_and_answered_in_one() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let path = "/api/v1/client/batch/create";
    let snake = r#"{"batch_name":"snake","batch_type":"video","usage_type":"local_rendering","usage_amount":2}"#;
    let mut expected = json!({
        "batch_name": "snake", "batch_type": "video", "usage_type": "local_rendering", "usage_amount": 2,
        "month_year": "2026-03", "completed_at": NOON, "completion_reported": false, "metadata": null,
        "source": "create_batch",
    });
    assert_is(&post(&hub, path, &member.token, snake).await, recorded(&member, "created", expected.clone()));
    let camel = snake.replace("batch_name", "batchName").replace("batch_type", "batchType");
    let camel = camel.replace("usage_type", "usageType").replace("usage_amount", "usageAmount");
    assert_is(&post(&hub, path, &member.token, &camel).await, recorded(&member, "duplicate", expected.clone()));
    let camel = camel.replace("snake", "camel").replace('}', r#","completedAt":"2024-01-15T17:30:00+07:00"}"#);
    for (name, value) in [("batch_name", "camel"), ("completed_at", "2024-01-15T10:30:00Z"), ("month_year", "2024-01")]
    {
        expected[name] = value.into();
    }
    expected["completion_reported"] = true.into();
    assert_is(&post(&hub, path, &member.token, &camel).await, recorded(&member, "created", expected));
    let sum = |kind: &str| json!([{ "type": kind, "total": 2, "batches": 1 }]);
    let month = |month: &str, is_partial: bool| {
        json!({
            "user_id": member.id, "month_year": month, "total": 2, "batches": 1, "by_type": sum("local_rendering"),
            "by_batch_type": sum("video"), "is_partial": is_partial, "as_of": NOON,
        })
    };
    let monthly = "/api/v1/client/batch/usage/monthly";
    assert_is(&get(&hub, monthly, &member.token).await, month("2026-03", true));
    assert_is(&get(&hub, &format!("{monthly}?month_year=2024-01"), &member.token).await, month("2024-01", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_are_listed_for_everyone_and_chosen_by_their_number() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let local = |limit: Value| json!({ "feature": "local_rendering", "monthly_limit": limit });
    let unlimited = json!([local(Value::Null), { "feature": "cloud_rendering", "monthly_limit": null }]);
    let expected = json!({ "plans": [
        plan(1, "Starter", "membership", 99_000, json!([local(100.into())])),
        pro(),
        plan(3, "Business", "pro_reseller", 999_000, unlimited),
    ] });
    assert_is(&get(&hub, "/api/v1/client/membership/plans", "").await, expected);
    let subscribe = async |body: Option<&str>| {
        data(send(&hub, Method::POST, "/api/v1/client/membership/subscribe/3", &member.token, body).await).await
    };
    for (body, already) in [(None, false), (Some("{}"), true)] {
        let expected = json!({
            "subscription": subscription(&member, 3, "Business", "pro_reseller"), "already_subscribed": already,
        });
        assert_is(&subscribe(body).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_signs_in_and_refusals_have_one_shape() {
    let hub = TestHub::start().await;
    let member = hub.member().await;
    let body = json!({ "email": member.email.to_uppercase(), "password": MEMBER_PASSWORD }).to_string();
    let expected = json!({
        "token": ":token", "token_type": "Bearer", "expires_at": "2026-03-16T12:00:00Z", "user": user(&member),
    });
    assert_is(&post(&hub, "/api/v1/client/auth/login", "", &body).await, expected);
    let body = body.replace(MEMBER_PASSWORD, "wrong-password");
    let refusals = [
        (send(&hub, Method::POST, "/api/v1/client/auth/login", "", Some(&body)).await, "INVALID_CREDENTIALS"),
        (send(&hub, Method::GET, "/api/v1/creatorup/profile", "", None).await, "MISSING_CREDENTIALS"),
        (send(&hub, Method::POST, "/api/v1/creatorup/verify", "a.b.c", None).await, "INVALID_CREDENTIALS"),
    ];
    for (refusal, reason) in refusals {
        assert_eq!(
            (refusal.status().as_u16(), &refusal.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        let refusal: Value = refusal.json().await.unwrap();
        let error = json!({ "code": "UNAUTHENTICATED", "message": ":text", "reason": reason, "details": [] });
        assert_is(&refusal, json!({ "success": false, "error": error, "request_id": ":text" }));
    }
}
