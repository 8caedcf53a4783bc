//! What is taken: every provider's proof and form, once however often it comes.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use upbridge_client::{Code, v1};

use super::*;
use crate::harness::{eventually, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_of_every_provider_is_stored_once_and_told() {
    let hub = start().await;
    let (admin, service) = (hub.admin().await, hub.service().await);
    for call in calls() {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let path = call.path(id);
        let headers = (call.headers)(&path, &call.body);
        let first = deliver(&hub, &path, &headers, call.body.clone()).await;
        assert_eq!(first.as_object().unwrap().keys().collect::<Vec<_>>(), ["received", "event_id", "duplicate"]);
        assert_eq!(first["duplicate"], false, "{}", call.provider);
        for _ in 0..2 {
            let again = deliver(&hub, &path, &headers, call.body.clone()).await;
            assert_eq!(
                (&again["event_id"], &again["duplicate"]),
                (&first["event_id"], &json!(true)),
                "{}",
                call.provider
            );
        }
        let of = |what: &str| {
            format!("integration_logs WHERE action = '{what}' AND CAST(response_data AS TEXT) LIKE '%{}%'", call.event)
        };
        assert_eq!(rows(&hub.database, &of("webhook")).await, 1, "{}", call.provider);
        let taken = format!(
            "webhook_logs WHERE source = '{}' AND status = 'processed' AND event_type = 'provider-callback'",
            call.provider
        );
        assert_eq!(rows(&hub.database, &taken).await, 1, "{}", call.provider);
        // An administrator finds it in the log of webhooks; CreatorUp asks about its own.
        let id = || first["event_id"].as_str().unwrap().to_owned();
        let log = admin.webhooks().get_webhook_log(v1::GetWebhookLogRequest { log_id: id() }).await.unwrap();
        assert_eq!(log.into_inner().log.unwrap().source, call.provider);
        let asked = service.webhooks().get_webhook_receipt(v1::GetWebhookReceiptRequest { event_id: id() }).await;
        assert_eq!(refusal(asked).0, Code::NotFound);
    }
    assert_eq!(rows(&hub.database, RECEIPTS).await, 7);
    assert_eq!(
        rows(
            &hub.database,
            "integration_logs WHERE action = 'webhook' AND status = 'success' AND duration IS NOT NULL"
        )
        .await,
        7
    );
    let states =
        hub.database.texts("SELECT status FROM integration_logs WHERE action = 'transaction' ORDER BY id").await;
    assert_eq!(states, ["success", "failed", "pending", "success", "success", "failed", "failed"]);
    let counted = "SELECT CAST(SUM(count) AS BIGINT) FROM integration_counts WHERE span = 'total'";
    assert_eq!(hub.database.count(counted).await, 14, "what is logged is counted");
    let address = "integration_logs WHERE ip_address = '127.0.0.1'";
    assert_eq!(rows(&hub.database, address).await, 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_kept_holds_a_secret_or_a_persons_number() {
    let hub = start().await;
    for call in calls() {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let path = call.path(id);
        let headers = (call.headers)(&path, &call.body);
        deliver(&hub, &path, &headers, call.body.clone()).await;
        // A wrong verb, a longer path and a wrong secret go through the same logs.
        let _ = reqwest::get(hub.url(&path)).await.unwrap();
        let _ = send(&hub, &format!("{path}/more"), &headers, "").await;
        let _ = send(&hub, &format!("{path}0"), &headers, "").await;
    }
    eventually("the access log is written", async || {
        files(&hub.database.directory.path().join("logs")).matches("HandleProviderCallback").count() >= 14
    })
    .await;
    let kept = everything_kept(&hub).await;
    assert!(kept.contains("LMS-INV-0001") && kept.contains("/***"), "{kept}");
    for secret in [
        TOKEN,
        XENDIT_TOKEN,
        STRIPE_SECRET,
        TWILIO_TOKEN,
        MIDTRANS_KEY,
        "hunter22",
        "6281200000001",
        "budi@example.com",
        "880800000001",
        "v1=",
        "signature_key",
    ] {
        assert!(!kept.contains(secret), "{secret} is in {kept}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_of_the_same_at_once_are_stored_once() {
    let hub = Arc::new(start().await);
    let call = &calls()[0];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let sending: Vec<_> = (0..48)
        .map(|at| {
            let (hub, path) = (hub.clone(), call.path(id));
            let body = midtrans_body(&format!("LMS-{}", at % 4), "settlement", "200");
            tokio::spawn(async move { deliver(&hub, &path, &json_only("", b""), body).await })
        })
        .collect();
    let mut receipts = Vec::new();
    for sent in sending {
        receipts.push(sent.await.unwrap());
    }
    assert_eq!(receipts.iter().filter(|receipt| receipt["duplicate"] == false).count(), 4);
    let ids: std::collections::BTreeSet<String> =
        receipts.iter().map(|receipt| receipt["event_id"].to_string()).collect();
    assert_eq!(ids.len(), 4);
    for table in [RECEIPTS, "webhook_logs", "integration_logs WHERE action = 'transaction'"] {
        assert_eq!(rows(&hub.database, table).await, 4, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_of_midtrans_finds_whose_it_is_by_its_key() {
    let hub = start().await;
    let mut ids = Vec::new();
    for key in ["key-one", "key-two"] {
        ids.push(Wanted::at("midtrans", json!({ "serverKey": key })).add(&hub.database).await);
    }
    // A signing key of its own goes before the server key.
    let apart = json!({ "serverKey": "key-three", "signatureKey": "key-four" });
    ids.push(Wanted::at("midtrans", apart).add(&hub.database).await);
    for (key, place) in [("key-two", 1), ("key-one", 0), ("key-four", 2)] {
        let body = midtrans_signed("LMS-1", "settlement", "200", key);
        let receipt = deliver(&hub, MIDTRANS, &json_only("", b""), body.clone()).await;
        assert_eq!(receipt.as_object().unwrap().keys().collect::<Vec<_>>(), ["received", "eventId", "duplicate"]);
        let own = deliver(&hub, &format!("/api/webhooks/integrations/{}", ids[place]), &json_only("", b""), body).await;
        assert_eq!(
            (&own["event_id"], &own["duplicate"]),
            (&receipt["eventId"], &json!(true)),
            "one ledger for both paths"
        );
    }
    for key in ["key-three", "key-five"] {
        let body = midtrans_signed("LMS-1", "settlement", "200", key);
        let (code, answer) = send(&hub, MIDTRANS, &json_only("", b""), body).await;
        assert_eq!((code, &answer["error"]["reason"]), (401, &json!("INVALID_SIGNATURE")), "{answer}");
    }
    assert_eq!(rows(&hub.database, RECEIPTS).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_goes_on_is_another_callback_and_a_refund_tells_nobody() {
    let hub = start().await;
    let call = &calls()[0];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    for (status, code) in [("pending", "201"), ("settlement", "200"), ("refund", "200"), ("novel", "200")] {
        let receipt = deliver(&hub, &call.path(id), &json_only("", b""), midtrans_body("LMS-9", status, code)).await;
        assert_eq!(receipt["duplicate"], false, "{status} {code}");
    }
    let told = "SELECT CAST(response_data AS TEXT) FROM integration_logs WHERE response_data IS NOT NULL ORDER BY id";
    let told: Vec<Value> =
        hub.database.texts(told).await.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(told, [json!({"event": "payment.pending"}), json!({"event": "payment.success"})]);
    let states =
        hub.database.texts("SELECT status FROM integration_logs WHERE action = 'transaction' ORDER BY id").await;
    assert_eq!(states, ["pending", "success", "success"], "a refund is a transaction too");
    // A state nobody knows: kept, and not believed.
    let doubted = "integration_logs WHERE action = 'webhook' AND status = 'failed' AND CAST(error_details AS TEXT) LIKE '%invalid_answer%'";
    assert_eq!(rows(&hub.database, doubted).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twilio_that_is_not_told_where_the_hub_is_signs_the_host_it_asked_for() {
    let hub = Setup::default().set("ENCRYPTION_KEY", ENCRYPTION_KEY).start().await;
    let call = &calls()[3];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let path = format!("{}?lang=id&x=%2B", call.path(id));
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, TWILIO_TOKEN.as_bytes());
    let signed = format!("{}MessageSidSM1MessageStatussent", hub.url(&path));
    let headers = vec![
        ("content-type", "application/x-www-form-urlencoded; charset=UTF-8".to_owned()),
        ("x-twilio-signature", STANDARD.encode(hmac::sign(&key, signed.as_bytes()))),
        // What senders of their own mind put into our headers means nothing here.
        ("authorization", "Basic dHdpbGlvOnR3aWxpbw==".to_owned()),
        ("x-api-key", "none of ours".to_owned()),
    ];
    let receipt = deliver(&hub, &path, &headers, "MessageStatus=sent&MessageSid=SM1").await;
    assert_eq!(receipt["duplicate"], false);
    let (code, _) =
        send(&hub, &path.replace("lang=id", "lang=en"), &headers, "MessageStatus=sent&MessageSid=SM1").await;
    assert_eq!(code, 401, "the query is signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_answered_well_within_what_providers_wait() {
    let hub = start().await;
    let call = &calls()[0];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let http = reqwest::Client::new();
    let mut took = Vec::new();
    for at in 0..50 {
        let begun = Instant::now();
        let body = midtrans_body(&format!("LMS-{at}"), "settlement", "200");
        let answer = http.post(hub.url(&call.path(id))).body(body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        took.push(begun.elapsed());
    }
    took.sort();
    assert!(took[took.len() / 2] < Duration::from_secs(1), "{took:?}");
}
