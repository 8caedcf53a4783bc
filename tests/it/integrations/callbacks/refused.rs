//! What is refused: what proves nothing is told nothing, and what is proved and cannot be read says why.

use serde_json::json;
use tonic::Code;
use upbridge_client::v1;

use super::*;
use crate::harness::{SERVICE_KEY, eventually, refusal};

/// The same of every refusal of what proves nothing.
fn unproved(answer: &Value) -> Value {
    let mut answer = answer.clone();
    answer.as_object_mut().unwrap().remove("request_id");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nothing_is_refused_alike_whatever_is_there() {
    let hub = start().await;
    let mut answers = Vec::new();
    for call in calls() {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let path = call.path(id);
        let headers = (call.headers)(&path, &call.body);
        // No proof at all, one of another's, and a byte of the body.
        let bare = format!("/api/webhooks/integrations/{id}");
        let mut wrong: Vec<(String, Headers, Vec<u8>)> =
            vec![(bare.clone(), vec![("content-type", "application/json".to_owned())], b"{}".to_vec())];
        match call.has_token {
            true => wrong.push((format!("{bare}/{}0", &TOKEN[1..]), headers.clone(), call.body.clone())),
            false => wrong.push((format!("{bare}/{TOKEN}"), headers.clone(), call.body.clone())),
        }
        if call.covers_body {
            let mut changed = call.body.clone();
            let at = call.body.windows(5).position(|part| part == b"LMS-I" || part == b"evt_1" || part == b"=SM1&");
            changed[at.unwrap() + 3] ^= 1;
            wrong.push((path.clone(), headers.clone(), changed));
        }
        if call.provider == "xendit" {
            let other = vec![("x-callback-token", format!("{}2", &XENDIT_TOKEN[..XENDIT_TOKEN.len() - 1]))];
            wrong.push((path.clone(), other, call.body.clone()));
        }
        for (path, headers, body) in wrong {
            let (code, answer) = send(&hub, &path, &headers, body).await;
            assert_eq!(code, 401, "{}: {answer}", call.provider);
            answers.push(unproved(&answer));
        }
    }
    let call = &calls()[0];
    let inactive = Wanted::at(call.provider, call.credentials.clone());
    let id = inactive.add(&hub.database).await;
    hub.database.execute(&format!("UPDATE partners SET status = 'inactive' WHERE name = '{}'", inactive.partner)).await;
    for path in [
        call.path(id),
        call.path(Uuid::now_v7()),
        "/api/webhooks/integrations/not-an-id".to_owned(),
        "/api/webhooks/integrations/not-an-id/token".to_owned(),
        format!("/api/webhooks/integrations/{id}%20"),
    ] {
        let (code, answer) = send(&hub, &path, &json_only("", b""), call.body.clone()).await;
        assert_eq!(code, 401, "{path}: {answer}");
        answers.push(unproved(&answer));
    }
    assert_eq!(answers[0]["error"]["reason"], "INVALID_SIGNATURE");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    for table in ["integration_receipts", "integration_logs WHERE action = 'transaction'"] {
        assert_eq!(rows(&hub.database, table).await, 0, "{table}");
    }
    let refused = "webhook_logs WHERE status = 'failed' AND payload IS NULL AND error_message LIKE 'proof: %'";
    eventually("refusals are logged", async || rows(&hub.database, refused).await == answers.len() as i64).await;
    let logged = "integration_logs WHERE action = 'webhook' AND status = 'failed' AND request_data IS NULL \
                  AND CAST(error_details AS TEXT) LIKE '%\"auth\"%'";
    assert_eq!(rows(&hub.database, logged).await, answers.len() as i64 - 4, "those for an integration there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_prove_nothing_only_some_are_logged() {
    let hub = start().await;
    let call = &calls()[1];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let begun = Instant::now();
    for _ in 0..80 {
        assert_eq!(send(&hub, &call.path(id), &Vec::new(), "{}").await.0, 401);
    }
    deliver(&hub, &call.path(id), &xendit("", b""), call.body.clone()).await;
    eventually("refusals are logged", async || rows(&hub.database, "webhook_logs WHERE status = 'failed'").await >= 12)
        .await;
    let logged = rows(&hub.database, "webhook_logs WHERE status = 'failed'").await;
    assert!(logged <= most_logged(begun), "{logged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proved_and_cannot_be_read_says_why() {
    let hub = start().await;
    let mut failed = 0;
    for call in calls() {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let path = call.path(id);
        // Of Midtrans a part of the body is the proof, so what is no JSON proves nothing.
        let bodies: Vec<&[u8]> = match call.provider {
            "midtrans" => vec![],
            "twilio" => vec![b"MessageSid=%FF&MessageStatus=sent"],
            _ => vec![b"", b"\xff\xfe\x00", b"[]", b"{\"id\":", b"null"],
        };
        for body in bodies {
            let headers = match call.provider {
                "twilio" => {
                    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TWILIO_TOKEN.as_bytes());
                    let signed = [format!("{PUBLIC}{path}MessageSid").as_bytes(), b"\xffMessageStatussent"].concat();
                    let mut headers = twilio(&path, body);
                    headers[1].1 = STANDARD.encode(hmac::sign(&key, &signed));
                    headers
                }
                _ => (call.headers)(&path, body),
            };
            let (code, answer) = send(&hub, &path, &headers, body).await;
            let named = &answer["error"]["details"][0]["field"];
            assert_eq!((code, named), (400, &json!("body")), "{} {body:?}: {answer}", call.provider);
            failed += 1;
        }
    }
    let call = &calls()[0];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let mut missing: Value = serde_json::from_slice(&call.body).unwrap();
    missing.as_object_mut().unwrap().remove("transaction_status");
    let (code, answer) = send(&hub, &call.path(id), &json_only("", b""), missing.to_string()).await;
    assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("transaction_status")), "{answer}");
    let (code, _) = send(&hub, &call.path(id), &json_only("", b""), b"\xff\xfe".to_vec()).await;
    assert_eq!(code, 401, "of Midtrans the body is the proof");
    let logged = "integration_logs WHERE action = 'webhook' AND status = 'failed' AND CAST(error_details AS TEXT) LIKE '%invalid_answer%'";
    assert_eq!(rows(&hub.database, logged).await, failed + 1);
    assert_eq!(rows(&hub.database, "integration_receipts").await, 0, "what is refused may come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_a_limit_and_no_type() {
    let hub = setup().set("BODY_LIMIT_BYTES", "2000").start().await;
    let call = &calls()[4];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let path = call.path(id);
    let padded = |length: usize| format!(r#"{{"id":"w9","status":"sent","note":"{}"}}"#, "x".repeat(length));
    let (code, answer) = send(&hub, &path, &Vec::new(), padded(2000)).await;
    assert_eq!((code, &answer["error"]["reason"]), (413, &json!("BODY_TOO_LARGE")), "{answer}");
    for kind in ["text/plain", "application/octet-stream", "multipart/form-data; boundary=x", "nonsense"] {
        let headers = vec![("content-type", kind.to_owned())];
        let (code, answer) = send(&hub, &format!("{path}?any=thing&token=x"), &headers, padded(100)).await;
        assert_eq!(code, 200, "{kind}: {answer}");
    }
    assert_eq!(rows(&hub.database, "integration_receipts").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_that_is_not_at_work_says_so_to_its_provider_alone() {
    let hub = start().await;
    let call = &calls()[1];
    let wanted = Wanted { is_active: false, ..Wanted::at(call.provider, call.credentials.clone()) };
    let path = call.path(wanted.add(&hub.database).await);
    let (code, answer) = send(&hub, &path, &xendit("", b""), call.body.clone()).await;
    assert_eq!((code, &answer["error"]["code"]), (400, &json!("FAILED_PRECONDITION")), "{answer}");
    let (code, _) = send(&hub, &path, &Vec::new(), call.body.clone()).await;
    assert_eq!(code, 401);
    // What cannot be opened cannot be proved: the hub's fault, so it should come again.
    let other = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    hub.database.execute("UPDATE partner_integrations SET credentials = 'v1.00000000.AAAA' WHERE is_active").await;
    for headers in [xendit("", b""), Vec::new()] {
        let (code, answer) = send(&hub, &call.path(other), &headers, call.body.clone()).await;
        let error = &answer["error"];
        assert_eq!((code, &error["reason"]), (503, &json!("PROOF_UNAVAILABLE")), "{answer}");
        assert_eq!(error["message"], "this cannot be judged now; try again", "it tells nobody why");
    }
    let logged = "integration_logs WHERE action = 'error' AND CAST(error_details AS TEXT) LIKE '%config%'";
    eventually("it is logged", async || rows(&hub.database, logged).await == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_integration_without_its_secret_and_one_of_another_environment_believe_nobody() {
    let hub = start().await;
    for (provider, credentials, headers) in [
        ("xendit", json!({ "secretKey": "x" }), vec![("x-callback-token", String::new())]),
        ("xendit", json!({ "secretKey": "x", "callbackToken": "" }), vec![("x-callback-token", String::new())]),
        ("stripe", json!({ "secretKey": "x" }), stripe("", b"{}")),
    ] {
        let id = Wanted::at(provider, credentials).add(&hub.database).await;
        assert_eq!(send(&hub, &format!("/api/webhooks/integrations/{id}"), &headers, "{}").await.0, 401);
    }
    let call = &calls()[2];
    let production = Wanted { environment: "production", ..Wanted::at(call.provider, call.credentials.clone()) };
    let path = call.path(production.add(&hub.database).await);
    deliver(&hub, &path, &stripe(&path, &call.body), call.body.clone()).await;
    assert_eq!(rows(&hub.database, "integration_logs WHERE action = 'transaction'").await, 0, "a payment for trying");
    let doubted = "integration_logs WHERE status = 'failed' AND CAST(error_details AS TEXT) LIKE '%config%' AND response_data IS NULL";
    assert_eq!(rows(&hub.database, doubted).await, 1);
    // Five minutes are what a signature is good for.
    let signed = stripe(&path, b"{}");
    hub.clock.advance(chrono::TimeDelta::seconds(301));
    assert_eq!(send(&hub, &path, &signed, "{}").await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_have_limits_by_address_and_by_integration() {
    let hub = setup().set("RATE_LIMIT_WEBHOOK", "2/hour").start().await;
    let call = &calls()[1];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let other = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let codes = async |id: Uuid| send(&hub, &call.path(id), &xendit("", b""), call.body.clone()).await.0;
    // The third of one integration's is refused, another's is taken, and the fifth from one address is not looked at.
    let seen = [codes(id).await, codes(id).await, codes(id).await, codes(other).await, codes(other).await];
    assert_eq!(seen, [200, 200, 429, 200, 429]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_nobody_can_call_back() {
    let hub = start().await;
    let id = Uuid::now_v7().to_string();
    let call = || v1::HandleProviderCallbackRequest { integration_id: id.clone(), token: None };
    let nobody = hub.client().await;
    let status = nobody.callbacks().handle_provider_callback(call()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("over HTTP only"), "{status}");
    let midtrans = v1::HandleMidtransNotificationRequest {};
    let refused = refusal(nobody.callbacks().handle_midtrans_notification(midtrans).await);
    assert_eq!(refused, (Code::Unauthenticated, "MISSING_CREDENTIALS".to_owned()));
    for client in [hub.admin().await, hub.client().await.with_bearer(SERVICE_KEY)] {
        let refused = refusal(client.callbacks().handle_provider_callback(call()).await);
        assert_eq!(refused, (Code::PermissionDenied, "PRINCIPAL_NOT_ALLOWED".to_owned()));
    }
}
