//! Callbacks of integrations as administrators manage them.

use serde_json::{Value, json};
use upbridge_client::v1;
use upbridge_client::v1::IntegrationProvider as Provider;

use super::*;
use crate::harness::eventually;
use crate::integrations::{add, new, partner};

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_path_is_good_until_there_is_another_or_nothing_to_call() {
    let hub = start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Contoh").await;
    let request = new(&partner_id, Provider::Wablas, &json!({ "token": "wablas-token-1" }));
    let request = v1::CreateIntegrationRequest { base_url: Some("https://solo.wablas.com".into()), ..request };
    let made = admin.integrations().create_integration(request).await.unwrap().into_inner();
    let id = made.integration.unwrap().id;
    let code = async |path: &str, message: &str| {
        let body = format!(r#"{{"id":"{message}","status":"delivered"}}"#);
        send(&hub, path, &json_only("", b""), body).await.0
    };
    assert_eq!(code(&made.callback_path, "w1").await, 200);
    let rotate = v1::RotateCallbackTokenRequest { integration_id: id.clone() };
    let path = admin.integrations().rotate_callback_token(rotate).await.unwrap().into_inner().callback_path;
    assert_eq!((code(&made.callback_path, "w2").await, code(&path, "w2").await), (401, 200));
    let set = async |is_active: bool| {
        let is_active = Some(is_active);
        let update = v1::UpdateIntegrationRequest { integration_id: id.clone(), is_active, ..Default::default() };
        admin.integrations().update_integration(update).await.unwrap();
    };
    set(false).await;
    assert_eq!(code(&path, "w3").await, 400);
    set(true).await;
    assert_eq!(code(&path, "w3").await, 200);
    assert_eq!(rows(&hub.database, "integration_receipts").await, 3);
    let delete = v1::DeleteIntegrationRequest { integration_id: id.clone() };
    admin.integrations().delete_integration(delete).await.unwrap();
    assert_eq!(code(&path, "w4").await, 401);
    assert_eq!(rows(&hub.database, "integration_receipts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_about_an_integration_counts_for_the_next_notification() {
    let hub = start().await;
    let admin = hub.admin().await;
    let partner_id = partner(&admin, "Contoh").await;
    let code = async |key: &str| {
        let body = midtrans_signed("LMS-1", "settlement", "200", key);
        send(&hub, MIDTRANS, &json_only("", b""), body).await.0
    };
    assert_eq!(code("SB-Mid-server-first-00").await, 401, "there is none");
    let request = new(&partner_id, Provider::Midtrans, &json!({ "serverKey": "SB-Mid-server-first-00" }));
    let integration_id = add(&admin, request).await.id;
    assert_eq!(code("SB-Mid-server-first-00").await, 200);
    let change = |is_active: Option<bool>, key: Option<&str>| v1::UpdateIntegrationRequest {
        integration_id: integration_id.clone(),
        is_active,
        credentials: key.and_then(|key| crate::integrations::structure(&json!({ "serverKey": key }))),
        ..Default::default()
    };
    admin.integrations().update_integration(change(None, Some("SB-Mid-server-other-00"))).await.unwrap();
    assert_eq!((code("SB-Mid-server-first-00").await, code("SB-Mid-server-other-00").await), (401, 200));
    admin.integrations().update_integration(change(Some(false), None)).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 401, "it is no candidate");
    admin.integrations().update_integration(change(Some(true), None)).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 200);
    let status = Some(v1::PartnerStatus::Inactive.into());
    let update = v1::UpdatePartnerRequest { partner_id: partner_id.clone(), status, ..Default::default() };
    admin.partners().update_partner(update).await.unwrap();
    assert_eq!(code("SB-Mid-server-other-00").await, 401, "nor is one of a partner who is inactive");
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_ask_are_told_once_and_exactly_this() {
    let hub = setup().set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8").start().await;
    let admin = hub.admin().await;
    for call in calls() {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        // One that is not active: what it would be told is kept.
        let webhook = v1::CreateIntegrationWebhookRequest {
            integration_id: id.to_string(),
            webhook_url: "http://127.0.0.1:9/".into(),
            events: vec![call.event.into()],
            is_active: Some(false),
            ..Default::default()
        };
        admin.integration_webhooks().create_integration_webhook(webhook).await.unwrap();
        let path = call.path(id);
        let headers = (call.headers)(&path, &call.body);
        for _ in 0..2 {
            deliver(&hub, &path, &headers, call.body.clone()).await;
        }
    }
    let told = hub.database.texts("SELECT payload FROM webhook_deliveries ORDER BY id").await;
    let mut told: Vec<Value> = told.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    for event in &mut told {
        let id = event["data"].as_object_mut().unwrap().shift_remove("integrationId").unwrap();
        assert!(Uuid::parse_str(id.as_str().unwrap()).is_ok());
        assert_eq!(event["data"].as_object_mut().unwrap().shift_remove("environment"), Some(json!("sandbox")));
    }
    let noon = "2026-03-15T12:00:00Z";
    let event = |kind: &str, at: &str, data: Value| {
        let mut data = data;
        data["occurredAt"] = json!(at);
        json!({ "type": kind, "timestamp": at.replace('Z', ".000Z"), "data": data })
    };
    let expected = [
        event(
            "payment.success",
            "2026-01-05T02:02:10Z",
            json!({"provider": "midtrans", "orderId": "LMS-INV-0001", "status": "success", "providerStatus": "settlement",
                "transactionId": "aaaaaaaa-0000-4000-8000-000000000001", "statusCode": "200", "fraudStatus": "accept",
                "paymentType": "bank_transfer", "amount": "150000.00", "currency": "IDR",
                "providerTime": "2026-01-05 09:02:10"}),
        ),
        event(
            "payment.failed",
            "2026-01-05T02:02:12Z",
            json!({"provider": "xendit", "providerEvent": "payment.failure", "orderId": "LMS-INV-0002",
                "transactionId": "py-1", "status": "failed", "providerStatus": "FAILED", "amount": "150000",
                "currency": "IDR", "failureCode": "CARD_DECLINED", "providerTime": "2026-01-05T02:02:12.000Z"}),
        ),
        event(
            "payment.pending",
            noon,
            json!({"provider": "stripe", "providerEvent": "payment_intent.processing", "providerEventId": "evt_1",
                "orderId": "pi_1", "transactionId": "pi_1", "status": "pending", "providerStatus": "processing",
                "amount": "1000", "currency": "usd", "providerTime": "1773576000"}),
        ),
        event(
            "message.delivered",
            noon,
            json!({"provider": "twilio", "messageId": "SM1", "status": "delivered", "providerStatus": "delivered"}),
        ),
        event(
            "message.sent",
            noon,
            json!({"provider": "wablas", "messageId": "w1", "status": "sent", "providerStatus": "sent",
                "deviceId": "ABC123"}),
        ),
        event(
            "message.failed",
            noon,
            json!({"provider": "fonnte", "messageId": "80000001", "stateId": "3EB000000001", "status": "failed",
                "providerStatus": "expired", "deviceId": "6281200000000"}),
        ),
        event(
            "email.bounced",
            "2026-03-15T11:59:00Z",
            json!({"provider": "smtp", "messageId": "m1", "status": "bounced", "providerStatus": "bounced",
                "providerTime": "2026-03-15T11:59:00Z"}),
        ),
    ];
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_judged_for_want_of_its_key_is_to_be_sent_again_and_of_many_some_are_logged() {
    let hub = setup().set("ENCRYPTION_KEY", "another-encryption-key-0123456789abcd").start().await;
    let begun = Instant::now();
    for call in [&calls()[0], &calls()[4]] {
        let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
        let (code, answer) = send(&hub, &call.path(id), &json_only("", b""), call.body.clone()).await;
        assert_eq!(code, 503, "{answer}");
        for _ in 0..50 {
            assert_eq!(send(&hub, &call.path(id), &Vec::new(), "{}").await.0, 503, "whoever asks");
        }
    }
    let logged = "integration_logs WHERE action = 'error' AND status = 'failed' \
                  AND CAST(error_details AS TEXT) LIKE '%\"config\"%'";
    eventually("they are logged", async || rows(&hub.database, logged).await >= 24).await;
    assert!(rows(&hub.database, logged).await <= 2 * most_logged(begun), "of 102");
    assert_eq!(rows(&hub.database, "integration_receipts").await, 0);
    // The common address asks every key; one that does not open is passed over.
    let (code, _) = send(&hub, MIDTRANS, &json_only("", b""), calls()[0].body.clone()).await;
    assert_eq!(code, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_finds_its_integration_among_more_than_a_thousand() {
    let hub = start().await;
    let at = |key: &str| Wanted::at("midtrans", json!({ "serverKey": key }));
    let old = at("SB-Mid-server-old-0000").add(&hub.database).await;
    let literal = |id: Uuid| match hub.database.is_postgres() {
        true => format!("'{id}'"),
        false => format!("x'{}'", id.simple()),
    };
    // They open with no key, and stand between the two.
    let partner = format!("(SELECT partner_id FROM partner_integrations WHERE id = {})", literal(old));
    let crowd: Vec<String> = (0..1_200)
        .map(|n| {
            format!("({}, {partner}, 'payment_gateway', 'midtrans', 'crowd {n}', 'v1', '')", literal(Uuid::now_v7()))
        })
        .collect();
    for some in crowd.chunks(400) {
        let columns = "id, partner_id, category, provider, name, credentials, credentials_key_id";
        hub.database.execute(&format!("INSERT INTO partner_integrations ({columns}) VALUES {}", some.join(", "))).await;
    }
    let new = at("SB-Mid-server-new-0000").add(&hub.database).await;
    for (key, id) in [("SB-Mid-server-old-0000", old), ("SB-Mid-server-new-0000", new)] {
        let body = midtrans_signed("LMS-1", "settlement", "200", key);
        deliver(&hub, MIDTRANS, &json_only("", b""), body).await;
        let receipt = format!("integration_receipts WHERE integration_id = {}", literal(id));
        assert!(rows(&hub.database, &receipt).await > 0, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_anybody_can_send_says_nothing_of_the_integration() {
    let hub = start().await;
    let call = &calls()[1];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    for _ in 0..5 {
        assert_eq!(send(&hub, &call.path(id), &Vec::new(), "{}").await.0, 401);
    }
    let refused = "integration_logs WHERE action = 'webhook' AND status = 'failed'";
    eventually("they are logged", async || rows(&hub.database, refused).await == 5).await;
    let admin = hub.admin().await;
    let health = async || {
        let request = v1::GetIntegrationHealthRequest { integration_id: id.to_string(), hours: None };
        admin.integrations().get_integration_health(request).await.unwrap().into_inner().health.unwrap()
    };
    let seen = health().await;
    assert_eq!((seen.health_status(), seen.metrics.unwrap().total_requests), (v1::IntegrationHealthStatus::Unknown, 0));
    let said = "🟠 Authentication of callbacks failed 5 times in the last 15 minutes.";
    assert!(seen.recommendations.iter().any(|one| one.starts_with(said)), "{:?}", seen.recommendations);
    deliver(&hub, &call.path(id), &xendit("", b""), call.body.clone()).await;
    let seen = health().await;
    let metrics = seen.metrics.unwrap();
    assert_eq!(
        (seen.health_status(), metrics.total_requests),
        (v1::IntegrationHealthStatus::Healthy, 1),
        "{metrics:?}"
    );
    assert!(seen.error_distribution.is_empty());
    // The log has them all, with their class, and its statistics are exact.
    let request = v1::ListIntegrationLogsRequest { integration_id: id.to_string(), ..Default::default() };
    let listed = admin.integrations().list_integration_logs(request).await.unwrap().into_inner();
    let stats: Vec<_> = listed.stats.iter().map(|one| (one.action(), one.status(), one.count)).collect();
    use v1::IntegrationAction::{Transaction, Webhook};
    use v1::IntegrationOutcome::{Failed, Success};
    assert_eq!(stats, [(Webhook, Success, 1), (Webhook, Failed, 5), (Transaction, Failed, 1)]);
    hub.clock.advance(chrono::TimeDelta::days(91));
    let request = v1::CleanupOldDataRequest { days: None, dry_run: false };
    hub.admin().await.analytics().cleanup_old_data(request).await.unwrap();
    assert_eq!(rows(&hub.database, "integration_logs").await, 0);
    let total = "SELECT CAST(SUM(count) AS BIGINT) FROM integration_counts WHERE span = 'total'";
    assert_eq!(hub.database.count(total).await, 0, "what is gone is counted no more");
    // Over its shards: what one wrote may be taken from another.
    let below = "(SELECT 1 FROM integration_counts GROUP BY span, starts_at, action, status, error_class \
                 HAVING SUM(count) < 0) AS below";
    assert_eq!(rows(&hub.database, below).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_a_webhook_says_nothing_of_the_integration() {
    let hub = setup().set("OUTBOUND_ALLOWED_NETWORKS", "127.0.0.0/8").start().await;
    let admin = hub.admin().await;
    let id = Wanted::at("xendit", calls()[1].credentials.clone()).add(&hub.database).await;
    let webhook = v1::CreateIntegrationWebhookRequest {
        integration_id: id.to_string(),
        webhook_url: "http://127.0.0.1:9/".into(),
        events: vec!["payment.success".into()],
        ..Default::default()
    };
    let mut webhooks = admin.integration_webhooks();
    let made = webhooks.create_integration_webhook(webhook).await.unwrap().into_inner().webhook.unwrap();
    webhooks.send_test_event(v1::SendTestEventRequest { webhook_id: made.id, event: None }).await.unwrap();
    let tried = "integration_logs WHERE delivery_id IS NOT NULL AND status = 'failed'";
    eventually("it was tried", async || rows(&hub.database, tried).await == 1).await;
    let request = v1::GetIntegrationHealthRequest { integration_id: id.to_string(), hours: None };
    let seen = admin.integrations().get_integration_health(request).await.unwrap().into_inner().health.unwrap();
    assert_eq!((seen.health_status(), seen.metrics.unwrap().total_requests), (v1::IntegrationHealthStatus::Unknown, 0));
}
