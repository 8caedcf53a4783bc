//! What somebody does who means ill: with no secret at all, with a callback they have caught, and with a secret of an
//! integration and a clock of their own.

use serde_json::json;
use upbridge_client::v1;

use super::*;
use crate::harness::eventually;
use crate::peer::{HttpPeer, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_refused_before_it_is_compared_with_anybodys_key_and_that_is_logged() {
    let hub = start().await;
    let mut midtrans = Uuid::nil();
    for _ in 0..3 {
        midtrans = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&hub.database).await;
    }
    // It would be good, but for its length.
    let padded = |length: usize| {
        let mut body: Value = serde_json::from_slice(&midtrans_body("LMS-1", "settlement", "200")).unwrap();
        body["padding"] = json!(vec![json!([]); length / 3]);
        body.to_string()
    };
    let own = format!("/api/webhooks/integrations/{midtrans}");
    for (path, length, most) in
        [(MIDTRANS, 70_000, 65_536), (own.as_str(), 300_000, 262_144), (own.as_str(), 900_000, 262_144)]
    {
        let (code, answer) = send_unread(&hub, path, &padded(length)).await;
        let error = &answer["error"];
        assert_eq!((code, &error["reason"], &error["code"]), (413, &json!("BODY_TOO_LARGE"), &json!("OUT_OF_RANGE")));
        assert_eq!(error["message"], format!("the body must have at most {most} bytes"), "{answer}");
        deliver(&hub, path, &json_only("", b""), padded(60_000)).await;
    }
    assert_eq!(rows(&hub.database, RECEIPTS).await, 2);
    let refused = "webhook_logs WHERE status = 'failed' AND payload IS NULL AND error_message LIKE 'size: %'";
    eventually("refusals are logged", async || rows(&hub.database, refused).await == 3).await;
    assert_eq!(
        rows(&hub.database, "integration_logs WHERE status = 'failed'").await,
        0,
        "nobody has looked whose it is"
    );
    let metrics = reqwest::get(hub.url("/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"HandleProviderCallback",code="OUT_OF_RANGE"} 2"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_proved_nothing_too_often_is_looked_at_no_more() {
    let hub = setup().set("RATE_LIMIT_ANONYMOUS", "2/hour").start().await;
    let id = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&hub.database).await;
    let own = format!("/api/webhooks/integrations/{id}");
    let good = midtrans_body("LMS-1", "settlement", "200");
    deliver(&hub, MIDTRANS, &json_only("", b""), good.clone()).await;
    let wrong = midtrans_signed("LMS-2", "settlement", "200", "another");
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(send(&hub, MIDTRANS, &json_only("", b""), wrong.clone()).await.0);
    }
    assert_eq!(codes, [401, 401, 429]);
    // Nor is anybody told that what they send is too large.
    assert_eq!(send(&hub, MIDTRANS, &json_only("", b""), "x".repeat(70_000)).await.0, 429);
    // Not even what is good is looked at: looking is what costs.
    for path in [MIDTRANS, &own] {
        let (code, answer) = send(&hub, path, &json_only("", b""), good.clone()).await;
        assert_eq!((code, &answer["error"]["reason"]), (429, &json!("RATE_LIMITED")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caught_success_of_midtrans_is_told_once_and_nothing_else_can_be_made_of_it() {
    let hub = start().await;
    let id = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&hub.database).await;
    let path = format!("/api/webhooks/integrations/{id}");
    let caught: Value = serde_json::from_slice(&midtrans_body("LMS-7", "settlement", "200")).unwrap();
    let first = deliver(&hub, &path, &json_only("", b""), caught.to_string()).await;
    let changed = |changes: Value| {
        let mut body = caught.clone();
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body.to_string()
    };
    for changes in [
        json!({ "transaction_id": "aaaaaaaa-0000-4000-8000-000000000002" }),
        json!({ "transaction_status": "SETTLEMENT", "fraud_status": "ACCEPT" }),
        json!({ "transaction_status": "capture" }),
        json!({ "refund_amount": "1.00", "refund_key": "x" }),
    ] {
        let again = deliver(&hub, &path, &json_only("", b""), changed(changes.clone())).await;
        assert_eq!((&again["event_id"], &again["duplicate"]), (&first["event_id"], &json!(true)), "{changes}");
    }
    for changes in [
        json!({ "transaction_status": "deny" }),
        json!({ "transaction_status": "expire" }),
        json!({ "transaction_status": "pending" }),
        json!({ "fraud_status": "deny" }),
        json!({ "fraud_status": "challenge" }),
    ] {
        let (code, answer) = send(&hub, &path, &json_only("", b""), changed(changes.clone())).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("transaction_status")), "{changes}");
    }
    let pending: Value = serde_json::from_slice(&midtrans_body("LMS-8", "settlement", "201")).unwrap();
    assert_eq!(send(&hub, &path, &json_only("", b""), pending.to_string()).await.0, 400, "a pending one is no success");
    // Of a cancel Midtrans does send that code: it is taken, so that it does not come again, and means nothing.
    let cancel = changed(json!({ "transaction_status": "cancel" }));
    let kept = deliver(&hub, &path, &json_only("", b""), cancel.clone()).await;
    assert!(kept["event_id"] != first["event_id"] && kept["duplicate"] == false, "{kept}");
    assert_eq!(deliver(&hub, &path, &json_only("", b""), cancel).await["event_id"], kept["event_id"]);
    let doubted = "integration_logs WHERE action = 'webhook' AND status = 'failed' \
                   AND message LIKE '%nobody is told: it is signed like a success%' \
                   AND CAST(error_details AS TEXT) LIKE '%\"auth\"%'";
    assert_eq!(rows(&hub.database, doubted).await, 1);
    assert_eq!(rows(&hub.database, "integration_logs WHERE action = 'transaction'").await, 1);
    assert_eq!(told(&hub).await, ["payment.success"]);
    let refused =
        "integration_logs WHERE action = 'webhook' AND status = 'failed' AND message LIKE '%transaction_status%'";
    assert_eq!(rows(&hub.database, refused).await, 6);
}

/// The events that were told, in the order they came.
async fn told(hub: &TestHub) -> Vec<String> {
    let told = "SELECT CAST(response_data AS TEXT) FROM integration_logs WHERE response_data IS NOT NULL ORDER BY id";
    let event = |text: String| serde_json::from_str::<Value>(&text).unwrap()["event"].as_str().unwrap().to_owned();
    hub.database.texts(told).await.into_iter().map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_with_the_code_of_a_success_is_told_where_no_success_is_known() {
    let hub = start().await;
    let id = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&hub.database).await;
    let path = format!("/api/webhooks/integrations/{id}");
    let say = async |order: &str, status: &str, code: &str| {
        deliver(&hub, &path, &json_only("", b""), midtrans_body(order, status, code)).await
    };
    // Authorized, and called off before it was captured; and one that was never paid.
    say("LMS-1", "authorize", "200").await;
    let cancelled = say("LMS-1", "cancel", "200").await;
    say("LMS-2", "pending", "201").await;
    say("LMS-2", "cancel", "202").await;
    assert_eq!(told(&hub).await, ["payment.failed", "payment.pending", "payment.failed"]);
    assert_eq!(say("LMS-1", "CANCEL", "200").await["event_id"], cancelled["event_id"]);
    // No success is lost by a cancel that somebody sent before it.
    say("LMS-1", "capture", "200").await;
    assert_eq!(told(&hub).await.last().map(String::as_str), Some("payment.success"));
    let failed = "integration_logs WHERE action = 'webhook' AND status = 'failed'";
    assert_eq!(rows(&hub.database, failed).await, 0);
    // Both at once: the success is told, whichever comes first.
    let both = [("LMS-3", "cancel"), ("LMS-3", "capture")].map(|(order, status)| say(order, status, "200"));
    futures::future::join_all(both).await;
    assert_eq!(told(&hub).await.iter().filter(|event| *event == "payment.success").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_of_midtrans_is_good_for_what_it_first_came_with() {
    let hub = start().await;
    let id = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&hub.database).await;
    let path = format!("/api/webhooks/integrations/{id}");
    // Nothing stands between what is signed: the same text is another order with a smaller amount.
    let body = |order: &str, code: &str, amount: &str| {
        let signature = hex::encode(Sha512::digest(format!("{order}{code}{amount}{MIDTRANS_KEY}")));
        json!({ "order_id": order, "status_code": code, "gross_amount": amount, "signature_key": signature,
            "transaction_status": "settlement" })
        .to_string()
    };
    let (whole, other) = (body("LMS-2001", "200", "5.00"), body("LMS-", "200", "12005.00"));
    deliver(&hub, &path, &json_only("", b""), whole.clone()).await;
    for _ in 0..2 {
        let (code, answer) = send(&hub, &path, &json_only("", b""), other.clone()).await;
        assert_eq!((code, &answer["error"]["details"][0]["field"]), (400, &json!("signature_key")), "{answer}");
        assert_eq!(send(&hub, MIDTRANS, &json_only("", b""), other.clone()).await.0, 400);
    }
    assert_eq!(deliver(&hub, &path, &json_only("", b""), whole).await["duplicate"], true);
    assert_eq!(rows(&hub.database, RECEIPTS).await, 1);
    assert_eq!(rows(&hub.database, "integration_logs WHERE action = 'transaction'").await, 1);
    let refused = "integration_logs WHERE status = 'failed' AND message LIKE '%signature_key%' \
                   AND CAST(error_details AS TEXT) LIKE '%\"auth\"%'";
    assert_eq!(rows(&hub.database, refused).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_long_ago_breaks_no_list_of_deliveries() {
    let (hub, peer) = (setup().set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8").start().await, HttpPeer::start().await);
    peer.always(Reply::json(200, "{}"));
    let hooks = hub.admin().await.integration_webhooks();
    for call in calls().into_iter().filter(|call| call.provider == "fonnte" || call.provider == "stripe") {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let request = v1::CreateIntegrationWebhookRequest {
            integration_id: id.to_string(),
            webhook_url: peer.url(),
            events: vec![if call.provider == "fonnte" { "message.sent" } else { call.event }.to_owned()],
            ..Default::default()
        };
        let hook = hooks.clone().create_integration_webhook(request).await.expect("made").into_inner().webhook.unwrap();
        let times = ["-70000000000", "-300000000000", "8210000000000", "9223372036854775807"];
        let path = call.path(id);
        for (at, time) in times.iter().enumerate() {
            let body = match call.provider {
                "fonnte" => format!(r#"{{"device":"62","id":"{at}","status":"sent","timestamp":{time}}}"#),
                _ => String::from_utf8(call.body.clone())
                    .unwrap()
                    .replace("evt_1", &format!("evt_{at}"))
                    .replace(&format!(r#""created":{NOON}"#), &format!(r#""created":{time}"#)),
            };
            deliver(&hub, &path, &(call.headers)(&path, body.as_bytes()), body.clone()).await;
        }
        let list = v1::ListWebhookDeliveriesRequest { webhook_id: hook.id.clone(), ..Default::default() };
        let listed = hooks.clone().list_webhook_deliveries(list).await.expect("a list").into_inner().deliveries;
        assert_eq!(listed.len(), times.len(), "{}", call.provider);
        assert!(listed.iter().all(|one| one.created_at.is_some_and(|at| at.seconds == NOON)), "{listed:?}");
        let get = v1::GetWebhookDeliveryRequest { delivery_id: listed[0].id.clone() };
        let got = hooks.clone().get_webhook_delivery(get).await.expect("a delivery").into_inner().delivery.unwrap();
        let payload = format!("{:?}", got.payload.expect("a payload"));
        assert!(payload.contains("2026-03-15T12:00:00") && payload.contains(times[3]), "{payload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_for_one_integration_hides_no_refusal_of_another_and_is_no_error_rate() {
    let hub = start().await;
    let call = &calls()[1];
    let flooded = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let quiet = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(send(&hub, &call.path(flooded), &Vec::new(), "{}").await.0, 401);
    }
    assert_eq!(send(&hub, &call.path(quiet), &Vec::new(), "{}").await.0, 401);
    let refused = |id: Uuid| {
        // How an id is written in SQL differs between databases; its integration has it as a name.
        format!(
            "integration_logs JOIN partner_integrations ON partner_integrations.id = integration_logs.integration_id \
             WHERE partner_integrations.name = '{id}' AND integration_logs.status = 'failed'"
        )
    };
    eventually("the other's is logged", async || rows(&hub.database, &refused(quiet)).await == 1).await;
    let logged = rows(&hub.database, &refused(flooded)).await;
    assert!((10..=most_logged(begun)).contains(&logged), "{logged}");
    let failed = "tallies WHERE metric = 'webhooks' AND label = 'provider-callback.failed'";
    assert_eq!(rows(&hub.database, failed).await, 0, "what proves nothing is nobody's error");
    let (code, _) = send(&hub, &call.path(quiet), &xendit("", b""), "[]").await;
    assert_eq!(code, 400);
    eventually("what is proved and wrong is counted", async || rows(&hub.database, failed).await > 0).await;
}
