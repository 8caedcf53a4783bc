//! What is refused, what its sender is told, and what is kept of it.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{SUBSCRIPTION, USAGE, batch, counted, deliver, headers, key, logged, outcome, records, send, signed};
use crate::harness::{Setup, TestHub, eventually};

const NOON: i64 = 1_773_576_000;

/// A body and the headers it came with.
type Sent = (HeaderMap, Vec<u8>);

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nothing_is_told_nothing_and_nothing_of_it_is_kept() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let key = key();
    let body = batch(&member.id, "b").to_string();
    let bytes = body.as_bytes();
    let good = key.sign(None, bytes);
    let mut changed = bytes.to_vec();
    changed[10] ^= 1;
    let reordered = {
        let told: Value = serde_json::from_str(&body).unwrap();
        format!(r#"{{"usage_data":{},"digiup_user_id":{}}}"#, told["usage_data"], told["digiup_user_id"])
    };
    let spaced = body.replace(':', ": ");
    let list = key.sign_standard("msg_1", NOON, bytes).unwrap();
    let at = NOON.to_string();
    let doubled = format!(r#"{{"signature":"{good}",{}"#, &key_body(&key, bytes)[1..]);
    let bad: Vec<(&str, Sent)> = vec![
        ("none", (headers(&[]), bytes.to_vec())),
        ("empty", (headers(&[("x-webhook-signature", "")]), bytes.to_vec())),
        ("the sources' placeholder", (headers(&[("x-webhook-signature", "<signature>")]), bytes.to_vec())),
        ("truncated", (headers(&[("x-webhook-signature", &good[..40])]), bytes.to_vec())),
        ("another algorithm", (headers(&[("x-webhook-signature", &format!("sha512={good}"))]), bytes.to_vec())),
        ("a changed byte", (signed(bytes), changed)),
        ("another order", (signed(bytes), reordered.into_bytes())),
        ("other white space", (signed(bytes), spaced.into_bytes())),
        ("a byte more", (signed(bytes), format!("{body} ").into_bytes())),
        ("two headers", (headers(&[("x-webhook-signature", &good), ("x-webhook-signature", &good)]), bytes.to_vec())),
        (
            "an unsigned timestamp",
            (headers(&[("x-webhook-signature", &good), ("x-webhook-timestamp", &at)]), bytes.to_vec()),
        ),
        (
            "another timestamp",
            (
                headers(&[
                    ("x-webhook-signature", &key.sign(Some(NOON), bytes)),
                    ("x-webhook-timestamp", "1773576001"),
                ]),
                bytes.to_vec(),
            ),
        ),
        (
            "another id",
            (
                headers(&[("webhook-id", "msg_2"), ("webhook-timestamp", &at), ("webhook-signature", &list)]),
                bytes.to_vec(),
            ),
        ),
        ("no timestamp of three", (headers(&[("webhook-id", "msg_1"), ("webhook-signature", &list)]), bytes.to_vec())),
        (
            "a version that is not known",
            (
                headers(&[
                    ("webhook-id", "msg_1"),
                    ("webhook-timestamp", &at),
                    ("webhook-signature", &list.replace("v1,", "v2,")),
                ]),
                bytes.to_vec(),
            ),
        ),
        ("a body that contradicts", (signed_with_placeholder(&body).0, signed_with_placeholder(&body).1)),
        ("two signatures inside", (headers(&[]), doubled.into_bytes())),
        ("no JSON and no signature", (headers(&[]), b"\xff\x00{".to_vec())),
    ];
    let mut answers = std::collections::BTreeSet::new();
    let count = bad.len() as i64;
    for (what, (headers, body)) in bad {
        let (code, mut answer) = send(&hub, USAGE, headers, body).await;
        assert_eq!(code, 401, "{what}: {answer}");
        assert_eq!(answer["error"]["reason"], "INVALID_SIGNATURE", "{what}");
        answer.as_object_mut().unwrap().remove("request_id");
        answers.insert(answer.to_string());
    }
    assert_eq!(answers.len(), 1, "one answer for all of them: {answers:#?}");
    eventually("each is logged", async || logged(&hub.database, "failed").await == count).await;
    let kept = "SELECT COUNT(*) FROM webhook_logs WHERE payload IS NOT NULL OR user_id IS NOT NULL";
    assert_eq!(hub.database.count(kept).await, 0);
    assert_eq!(counted(&hub.database, "usage-update.failed").await, count);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM webhook_receipts").await, 0);
    assert_eq!(records(&hub.database, &member).await, 0);
    // The key of none of them is used up.
    assert_eq!(deliver(&hub, USAGE, &batch(&member.id, "b")).await["duplicate"], false);
}

fn key_body(key: &upbridge_server::model::signature::Key, body: &[u8]) -> String {
    String::from_utf8(key.sign_body(body).unwrap()).unwrap()
}

/// A good header over a body whose own signature is the sources' placeholder.
fn signed_with_placeholder(body: &str) -> Sent {
    let body = format!(r#"{},"signature":"webhook-signature"}}"#, body.strip_suffix('}').unwrap());
    (signed(body.as_bytes()), body.into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_timestamp_counts_for_five_minutes_before_and_after() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    for (difference, good) in [(-301, false), (-300, true), (-299, true), (299, true), (300, true), (301, false)] {
        let (body, at) = (batch(&member.id, &format!("b{difference}")).to_string(), NOON + difference);
        let headers = headers(&[
            ("x-webhook-signature", &key().sign(Some(at), body.as_bytes())),
            ("x-webhook-timestamp", &at.to_string()),
        ]);
        let (code, answer) = send(&hub, USAGE, headers.clone(), body.clone()).await;
        if good {
            assert_eq!(code, 200, "{difference}: {answer}");
        } else {
            assert_eq!((code, &answer["error"]["reason"]), (401, &json!("STALE_TIMESTAMP")), "{difference}");
        }
    }
    // What was good and is replayed later is stale; replayed in time it is known.
    let body = batch(&member.id, "captured").to_string();
    let captured = headers(&[
        ("x-webhook-signature", &key().sign(Some(NOON), body.as_bytes())),
        ("x-webhook-timestamp", &NOON.to_string()),
    ]);
    let (_, first) = send(&hub, USAGE, captured.clone(), body.clone()).await;
    hub.clock.advance(chrono::TimeDelta::seconds(200));
    let (code, again) = send(&hub, USAGE, captured.clone(), body.clone()).await;
    assert_eq!((code, &again["data"]["duplicate"]), (200, &json!(true)));
    assert_eq!(again["data"]["event_id"], first["data"]["event_id"]);
    hub.clock.advance(chrono::TimeDelta::seconds(101));
    assert_eq!(send(&hub, USAGE, captured, body).await.0, 401);
    eventually("the stale ones are logged with the difference", async || {
        let errors =
            hub.database.texts("SELECT error_message FROM webhook_logs WHERE status = 'failed' ORDER BY id").await;
        errors.len() == 3 && errors.iter().all(|error| error.contains("301 s"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_proved_and_wrong_is_told_what_is_wrong() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let with = |change: fn(&mut Value)| {
        let mut body = batch(&member.id, "b");
        change(&mut body);
        body.to_string().into_bytes()
    };
    let wrong: [(Vec<u8>, &str); 10] = [
        (with(|body| body["digiup_user_id"] = json!("user-uuid")), "digiup_user_id"),
        (with(|body| drop(body.as_object_mut().unwrap().remove("usage_data"))), "usage_data"),
        (with(|body| body["usage_data"]["usage_amount"] = json!(0)), "usage_data.usage_amount"),
        (with(|body| body["usage_data"]["usage_amount"] = json!("many")), "usage_data.usage_amount"),
        (with(|body| body["usage_data"]["month_year"] = json!("2024-13")), "usage_data.month_year"),
        (with(|body| body["usage_data"]["batch_name"] = json!("")), "usage_data.batch_name"),
        (with(|body| body["usage_data"]["batch_name"] = json!("a\u{0}b")), "usage_data.batch_name"),
        (b"{\"digiup_user_id\":".to_vec(), ""),
        (b"{\"digiup_user_id\":\"\xff\xfe\"}".to_vec(), ""),
        (b"[]".to_vec(), ""),
    ];
    for (body, field) in &wrong {
        let (code, answer) = send(&hub, USAGE, signed(body), body.clone()).await;
        assert_eq!(code, 400, "{answer}");
        assert_eq!(answer["error"]["details"][0]["field"].as_str().unwrap_or_default(), *field, "{answer}");
    }
    // Over bytes that are packed the signature is good, and what is in them is nobody's guess.
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let mut gzip = signed(&packed);
    gzip.extend(headers(&[("content-encoding", "gzip")]));
    assert_eq!(send(&hub, USAGE, gzip, packed).await.0, 415);
    let huge = vec![b' '; (1 << 20) + 1];
    let (code, answer) = send(&hub, USAGE, signed(&huge), huge).await;
    assert_eq!((code, &answer["error"]["reason"]), (413, &json!("BODY_TOO_LARGE")));
    let largest = {
        let body = batch(&member.id, "large").to_string();
        format!("{body}{}", " ".repeat((1 << 20) - body.len())).into_bytes()
    };
    assert_eq!(send(&hub, USAGE, signed(&largest), largest).await.0, 200);
    let refused = "FROM webhook_logs WHERE status = 'failed' AND error_message";
    // Nobody waits for the log of what proves nothing.
    eventually("the one that was too large is logged", async || {
        hub.database.count(&format!("SELECT COUNT(*) {refused} LIKE 'size: %'")).await == 1
    })
    .await;
    let errors = hub.database.texts(&format!("SELECT error_message {refused} NOT LIKE 'size: %'")).await;
    assert_eq!(errors.len(), wrong.len() + 1, "{errors:#?}");
    assert!(errors.iter().all(|error| error.starts_with("payload: ")), "{errors:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_or_a_plan_that_is_not_there_is_told_logged_and_can_be_sent_again() {
    let hub = TestHub::start().await;
    let (member, admin) = (hub.subscriber(2).await, hub.admin().await);
    let nobody = batch(&Uuid::now_v7().to_string(), "b").to_string();
    for _ in 0..2 {
        let (code, answer) = send(&hub, USAGE, signed(nobody.as_bytes()), nobody.clone()).await;
        assert_eq!((code, &answer["error"]["reason"]), (404, &json!("NOT_FOUND")), "{answer}");
    }
    let told = json!({ "digiup_user_id": member.id, "subscription_data": { "plan": "Platinum", "status": "active" } });
    let body = told.to_string();
    let (code, answer) = send(&hub, SUBSCRIPTION, signed(body.as_bytes()), body.clone()).await;
    assert_eq!((code, &answer["error"]["reason"]), (422, &json!("UNPROCESSABLE")), "{answer}");
    assert_eq!(answer["error"]["metadata"]["field"], "subscription_data.plan");
    assert_eq!(logged(&hub.database, "failed").await, 3);
    let kept = "SELECT COUNT(*) FROM webhook_logs WHERE payload IS NOT NULL AND user_id IS NOT NULL";
    assert_eq!(hub.database.count(kept).await, 3, "what is proved is kept, so that it can be looked at");
    assert_eq!(counted(&hub.database, "subscription-update.failed").await, 1);

    let plan = upbridge_client::v1::CreatePlanRequest {
        name: "Platinum".into(),
        tier: upbridge_client::v1::Tier::ProReseller.into(),
        ..Default::default()
    };
    admin.membership().create_plan(plan).await.unwrap();
    let receipt = deliver(&hub, SUBSCRIPTION, &told).await;
    assert_eq!((&receipt["duplicate"], &outcome(&hub, &receipt).await["plan"]), (&json!(false), &json!("Platinum")));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_come_from_where_they_may_and_an_address_is_not_what_a_stranger_says() {
    let send_from = async |hub: &TestHub, name: &str, forwarded: &[&str]| {
        let body = batch(&Uuid::now_v7().to_string(), name).to_string();
        let mut headers = signed(body.as_bytes());
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        // Nobody has that id: 404 is beyond all that is asked here.
        let (code, answer) = send(hub, USAGE, headers, body).await;
        (code, answer["error"]["reason"].as_str().unwrap_or_default().to_owned())
    };
    let refused = (403, "ADDRESS_NOT_ALLOWED".to_owned());
    let hub = Setup::default().set("WEBHOOK_ALLOWED_IPS", "203.0.113.0/24").start().await;
    assert_eq!(send_from(&hub, "direct", &[]).await, refused);
    assert_eq!(send_from(&hub, "spoofed", &["203.0.113.9"]).await, refused, "the peer is no proxy of ours");
    eventually("both are logged", async || logged(&hub.database, "failed").await == 2).await;
    assert_eq!(hub.database.texts("SELECT DISTINCT ip_address FROM webhook_logs").await, ["127.0.0.1"]);

    let behind = Setup::default().set("WEBHOOK_ALLOWED_IPS", "203.0.113.0/24").set("TRUSTED_PROXIES", "127.0.0.0/8");
    let hub = behind.start().await;
    for (forwarded, code) in [
        (&["203.0.113.9"][..], 404),
        (&["198.51.100.7, 203.0.113.9"], 404),
        (&["203.0.113.9, 127.0.0.2"], 404),
        (&["203.0.113.9, 198.51.100.7"], 403),
        (&["203.0.113.9", "198.51.100.7"], 403),
        (&["nonsense"], 403),
        (&[], 403),
    ] {
        assert_eq!(send_from(&hub, "proxied", forwarded).await.0, code, "{forwarded:?}");
    }
    let seen = hub.database.texts("SELECT DISTINCT ip_address FROM webhook_logs WHERE user_id IS NOT NULL").await;
    assert_eq!(seen, ["203.0.113.9"]);
    // It is the address of the whole hub: the access log tells it too.
    let path = hub.database.directory.path().join("logs/access.log");
    let told = async || std::fs::read_to_string(&path).unwrap_or_default().contains("ip=198.51.100.7");
    eventually("the access log has the client's address", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_has_its_limit_and_only_what_is_proved_counts_against_it() {
    let hub = Setup::default().set("RATE_LIMIT_WEBHOOK", "4/hour").start().await;
    let member = hub.subscriber(2).await;
    let post = async |name: &str, good: bool| {
        let body = batch(&member.id, name).to_string();
        let headers = if good { signed(body.as_bytes()) } else { headers(&[]) };
        reqwest::Client::new().post(hub.url(USAGE)).headers(headers).body(body).send().await.unwrap()
    };
    for at in 0..3 {
        assert_eq!(post(&format!("bad{at}"), false).await.status(), 401);
    }
    for at in 0..4 {
        assert_eq!(post(&format!("good{at}"), true).await.status(), 200, "{at}");
    }
    let over = post("good4", true).await;
    assert_eq!(over.status(), 429);
    let wait: u64 = over.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=900).contains(&wait), "{wait}");
    // From one address twice as many are looked at; then not even a signature is.
    let refused = post("bad4", false).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    eventually("they are applied", async || records(&hub.database, &member).await == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_flush_the_log_with_bad_signatures() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let receipt = deliver(&hub, USAGE, &batch(&member.id, "good")).await;
    outcome(&hub, &receipt).await;
    let begun = std::time::Instant::now();
    let flood =
        (0..200).map(|at| send(&hub, USAGE, headers(&[("x-webhook-signature", "00")]), format!("{{\"a\":{at}}}")));
    let answers = futures::future::join_all(flood).await;
    assert!(answers.iter().all(|(code, _)| *code == 401));
    let mut rows = 0;
    // Nobody waits for them, so some may come between two looks.
    eventually("some are logged, and counted", async || {
        rows = logged(&hub.database, "failed").await;
        rows >= 60 && counted(&hub.database, "usage-update.failed").await == rows
    })
    .await;
    // Sixty at once, and one more with each second that this machine takes.
    let most = 61 + begun.elapsed().as_secs() as i64;
    assert!((60..=most).contains(&rows), "{rows} of 200, {most} at most");
    assert_eq!(logged(&hub.database, "processed").await, 1);
}
