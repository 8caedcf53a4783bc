//! Webhooks as an administrator manages them, through both faces.

use serde_json::{Value, json};
use upbridge_client::{Code, v1};
use upbridge_server::model::integration::Provider;
use uuid::Uuid;

use super::desk::{everywhere, integration, told};
use crate::harness::{Setup, TestHub, eventually, fault, json as http, refusal};
use crate::peer::{HttpPeer, Reply};

async fn hub() -> TestHub {
    everywhere().fold(Setup::default(), |setup, (name, value)| setup.set(name, value)).start().await
}

/// Calls over HTTP as the administrator.
struct Hand {
    client: reqwest::Client,
    token: String,
    base: String,
}

impl Hand {
    async fn of(hub: &TestHub) -> Hand {
        let login = json!({ "email": crate::harness::ADMIN_EMAIL, "password": crate::harness::ADMIN_PASSWORD });
        let client = reqwest::Client::new();
        let (_, answer) = http(client.post(hub.url("/api/v1/client/auth/login")).json(&login)).await;
        let token = answer["token"].as_str().or(answer["data"]["token"].as_str()).expect("a token").to_owned();
        Hand { client, token, base: hub.url("") }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        http(if body.is_null() { request } else { request.json(&body) }).await
    }
}

#[tokio::test]
async fn the_short_form_makes_a_webhook_with_the_defaults_and_a_secret_that_is_shown_once() {
    let hub = hub().await;
    let hand = Hand::of(&hub).await;
    let integration_id = integration(&hub.database, Provider::Midtrans).await;
    let path = format!("/api/admin/integrations/{integration_id}/webhooks");
    let short =
        json!({ "webhookUrl": "https://receiver.example/hook", "events": ["payment.success", "payment.failed"] });
    let (status, answer) = hand.call("POST", &path, short).await;
    assert_eq!((status, &answer["success"]), (201, &Value::Bool(true)), "{answer}");
    let made = &answer["data"];
    assert!(made["webhookSecret"].as_str().is_some_and(|secret| secret.starts_with("whsec_") && secret.len() > 40));
    assert_eq!((&made["isActive"], &made["retryAttempts"], &made["retryDelay"]), (&true.into(), &3.into(), &60.into()));
    assert_eq!((&made["failureCount"], &made["lastStatus"]), (&0.into(), &Value::Null));
    let (status, answer) = hand.call("GET", &path, Value::Null).await;
    assert_eq!((status, answer["data"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
    let listed = &answer["data"][0];
    assert_eq!(listed["id"], made["id"]);
    assert!(listed["webhookSecret"].as_str().is_some_and(|secret| secret.starts_with("••••")), "{listed}");
    // What was shown may be sent back; another secret is another call's.
    let path = format!("/api/admin/webhooks/{}", made["id"].as_str().expect("an id"));
    let mut change = json!({ "retryDelay": 5 });
    for shown in ["webhookUrl", "webhookSecret", "events", "isActive", "retryAttempts"] {
        change[shown] = listed[shown].clone();
    }
    let (status, answer) = hand.call("PUT", &path, change).await;
    assert_eq!((status, &answer["data"]["retryDelay"]), (200, &5.into()), "{answer}");
    let (status, _) = hand.call("PUT", &path, json!({ "webhookSecret": "another secret" })).await;
    assert_eq!(status, 400);
    let (status, answer) = hand.call("DELETE", &path, Value::Null).await;
    assert_eq!((status, &answer["success"]), (200, &Value::Bool(true)), "{answer}");
    assert_eq!(hand.call("GET", &path, Value::Null).await.0, 404);
    let noted = "SELECT COUNT(*) FROM integration_logs WHERE action = 'config_change' AND status = 'success'";
    assert_eq!(hub.database.count(noted).await, 3);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM audit_log WHERE action LIKE 'webhook.%'").await, 3);
}

fn create(integration_id: Uuid) -> v1::CreateIntegrationWebhookRequest {
    v1::CreateIntegrationWebhookRequest {
        integration_id: integration_id.to_string(),
        webhook_url: "https://receiver.example/hook".into(),
        events: vec!["payment.success".into()],
        ..Default::default()
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_webhook_is_said_by_field() {
    let hub = hub().await;
    let hooks = hub.admin().await.integration_webhooks();
    let payments = integration(&hub.database, Provider::Xendit).await;
    let messages = integration(&hub.database, Provider::Twilio).await;
    let request = || create(payments);
    for (wrong, field) in [
        (v1::CreateIntegrationWebhookRequest { webhook_url: String::new(), ..request() }, "webhook_url"),
        (v1::CreateIntegrationWebhookRequest { webhook_url: "http://10.0.0.1/".into(), ..request() }, "webhook_url"),
        (
            v1::CreateIntegrationWebhookRequest { webhook_url: "http://[::ffff:a00:1]/".into(), ..request() },
            "webhook_url",
        ),
        (
            v1::CreateIntegrationWebhookRequest { webhook_url: "https://user:pw@a.example/".into(), ..request() },
            "webhook_url",
        ),
        (v1::CreateIntegrationWebhookRequest { webhook_secret: Some("short".into()), ..request() }, "webhook_secret"),
        (
            v1::CreateIntegrationWebhookRequest { webhook_secret: Some("whsec_short".into()), ..request() },
            "webhook_secret",
        ),
        (v1::CreateIntegrationWebhookRequest { events: vec!["payment.lost".into()], ..request() }, "events"),
        (v1::CreateIntegrationWebhookRequest { events: vec!["message.sent".into()], ..request() }, "events"),
        (v1::CreateIntegrationWebhookRequest { events: vec!["payment.success".into()], ..create(messages) }, "events"),
        (v1::CreateIntegrationWebhookRequest { retry_attempts: Some(0), ..request() }, "retry_attempts"),
        (v1::CreateIntegrationWebhookRequest { retry_delay: Some(36_001), ..request() }, "retry_delay"),
    ] {
        assert_eq!(fault(hooks.clone().create_integration_webhook(wrong.clone()).await), field, "{wrong:?}");
    }
    let nobodys = hooks.clone().create_integration_webhook(create(Uuid::now_v7())).await;
    assert_eq!(refusal(nobodys), (Code::NotFound, "NOT_FOUND".to_owned()));
    let unknown = v1::ListIntegrationWebhooksRequest { integration_id: Uuid::now_v7().to_string() };
    assert_eq!(refusal(hooks.clone().list_integration_webhooks(unknown).await).0, Code::NotFound);
    for _ in 0..98 {
        hooks.clone().create_integration_webhook(request()).await.expect("one of a hundred");
    }
    let last = (0..6).map(|_| {
        let hooks = hooks.clone();
        async move { hooks.clone().create_integration_webhook(request()).await.is_ok() }
    });
    let made = futures::future::join_all(last).await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 2);
    assert_eq!(refusal(hooks.clone().create_integration_webhook(request()).await).0, Code::FailedPrecondition);
}

#[tokio::test]
async fn a_test_event_is_sent_and_seen_with_its_try() {
    let (hub, peer) = (hub().await, HttpPeer::start().await);
    peer.always(Reply::json(200, r#"{"received":true}"#));
    let hooks = hub.admin().await.integration_webhooks();
    let integration_id = integration(&hub.database, Provider::Fonnte).await;
    let request =
        v1::CreateIntegrationWebhookRequest { webhook_url: peer.url(), events: vec![], ..create(integration_id) };
    let made = hooks.clone().create_integration_webhook(request).await.expect("made").into_inner().webhook.unwrap();
    let test = v1::SendTestEventRequest { webhook_id: made.id.clone(), event: None };
    let sent = hooks.clone().send_test_event(test).await.expect("sent").into_inner().delivery.unwrap();
    assert_eq!((sent.event.as_str(), sent.is_test), ("message.sent", true));
    let noted = "SELECT COUNT(*) FROM audit_log WHERE action = 'webhook.tested'";
    assert_eq!(hub.database.count(noted).await, 1);
    assert_eq!(told(&peer, 1).await[0].header("webhook-id"), sent.id);
    let get = || v1::GetWebhookDeliveryRequest { delivery_id: sent.id.clone() };
    let mut seen = None;
    eventually("it is received", async || {
        let found = hooks.clone().get_webhook_delivery(get()).await.expect("a delivery").into_inner();
        let status = found.delivery.as_ref().map(|delivery| delivery.status());
        seen = Some(found);
        status == Some(v1::WebhookDeliveryStatus::Success)
    })
    .await;
    let seen = seen.unwrap();
    let [attempt] = seen.attempts.as_slice() else { panic!("{seen:?}") };
    assert_eq!((attempt.attempt, attempt.response_status), (1, Some(200)));
    assert_eq!(attempt.response_body.as_deref(), Some(r#"{"received":true}"#));
    assert!(seen.delivery.unwrap().payload.is_some_and(|payload| payload.fields.contains_key("data")));
    // In lists it is without its body, page by page.
    for _ in 0..2 {
        let test = v1::SendTestEventRequest { webhook_id: made.id.clone(), event: Some("message.failed".into()) };
        hooks.clone().send_test_event(test).await.expect("sent");
    }
    let page = |page_token| v1::ListWebhookDeliveriesRequest {
        webhook_id: made.id.clone(),
        event: Some("message.failed".into()),
        page_size: Some(1),
        page_token,
        ..Default::default()
    };
    let first = hooks.clone().list_webhook_deliveries(page(None)).await.expect("a page").into_inner();
    assert!(first.deliveries.len() == 1 && first.deliveries[0].payload.is_none() && !first.next_page_token.is_empty());
    let second = hooks.clone().list_webhook_deliveries(page(Some(first.next_page_token))).await.expect("a page");
    let second = second.into_inner();
    assert!(second.deliveries.len() == 1 && second.next_page_token.is_empty());
    assert!(second.deliveries[0].id < first.deliveries[0].id);
    let state = v1::GetIntegrationWebhookRequest { webhook_id: made.id.clone() };
    let state = hooks.clone().get_integration_webhook(state).await.expect("a webhook").into_inner().state.unwrap();
    assert_eq!((state.held, state.disabled_at), (0, None));
    assert!(state.created_by.is_some());
}

#[tokio::test]
async fn what_a_webhook_missed_while_it_was_off_is_listed_and_replayed() {
    let (hub, peer) = (hub().await, HttpPeer::start().await);
    let hooks = hub.admin().await.integration_webhooks();
    let integration_id = integration(&hub.database, Provider::Smtp).await;
    let request = v1::CreateIntegrationWebhookRequest {
        webhook_url: peer.url(),
        events: vec!["email.sent".into(), "email.sent".into()],
        rate_limit: Some(100),
        ..create(integration_id)
    };
    let made = hooks.clone().create_integration_webhook(request).await.expect("made").into_inner().webhook.unwrap();
    assert_eq!(made.events, ["email.sent"], "each once");
    let change = |is_active| v1::UpdateIntegrationWebhookRequest {
        webhook_id: made.id.clone(),
        is_active: Some(is_active),
        events: vec!["email.bounced".into(), "email.sent".into()],
        rate_limit: Some(0),
        ..Default::default()
    };
    let off = hooks.clone().update_integration_webhook(change(false)).await.expect("off").into_inner().webhook.unwrap();
    assert_eq!((off.is_active, off.events.len()), (false, 2));
    let test = v1::SendTestEventRequest { webhook_id: made.id.clone(), event: None };
    let sent = hooks.clone().send_test_event(test).await.expect("sent").into_inner().delivery.unwrap();
    told(&peer, 1).await;
    let resend = || v1::ResendWebhookDeliveryRequest { delivery_id: sent.id.clone() };
    assert_eq!(refusal(hooks.clone().resend_webhook_delivery(resend()).await).0, Code::FailedPrecondition);
    let replay = || v1::ReplayWebhookDeliveriesRequest { webhook_id: made.id.clone(), ..Default::default() };
    assert_eq!(refusal(hooks.clone().replay_webhook_deliveries(replay()).await).0, Code::FailedPrecondition);
    hooks.clone().update_integration_webhook(change(true)).await.expect("on");
    eventually("it can be sent again", async || hooks.clone().resend_webhook_delivery(resend()).await.is_ok()).await;
    assert_eq!(told(&peer, 2).await[1].header("webhook-id"), sent.id);
    let replayed = hooks.clone().replay_webhook_deliveries(replay()).await.expect("nothing to replay").into_inner();
    assert_eq!((replayed.replayed, replayed.more), (0, false), "what was made up is not missed");
    let wrong =
        v1::ReplayWebhookDeliveriesRequest { status: Some(v1::WebhookDeliveryStatus::Success.into()), ..replay() };
    assert_eq!(fault(hooks.clone().replay_webhook_deliveries(wrong).await), "status");
    let rotate = v1::RotateWebhookSecretRequest { webhook_id: made.id.clone(), ..Default::default() };
    let rotated = hooks.clone().rotate_webhook_secret(rotate).await.expect("rotated").into_inner();
    assert!(rotated.webhook_secret != made.webhook_secret && rotated.previous_secret_expires_at.is_some());
    let list = v1::ListIntegrationWebhooksRequest { integration_id: integration_id.to_string() };
    let listed = hooks.clone().list_integration_webhooks(list).await.expect("a list").into_inner().webhooks;
    assert!(
        listed.len() == 1
            && listed[0].webhook_secret.ends_with(&rotated.webhook_secret[rotated.webhook_secret.len() - 4..])
    );
    let delete = || v1::DeleteIntegrationWebhookRequest { webhook_id: made.id.clone() };
    hooks.clone().delete_integration_webhook(delete()).await.expect("deleted");
    assert_eq!(refusal(hooks.clone().delete_integration_webhook(delete()).await).0, Code::NotFound);
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM webhook_deliveries").await, 0);
}

#[tokio::test]
async fn a_rare_event_among_many_is_looked_for_page_by_page() {
    let hub = hub().await;
    let hooks = hub.admin().await.integration_webhooks();
    let integration_id = integration(&hub.database, Provider::Midtrans).await;
    let request = v1::CreateIntegrationWebhookRequest {
        integration_id: integration_id.to_string(),
        webhook_url: "https://receiver.example/hook".into(),
        events: vec!["payment.success".into()],
        ..Default::default()
    };
    let hook = hooks.clone().create_integration_webhook(request).await.expect("made").into_inner().webhook.unwrap();
    let id = match hub.database.is_postgres() {
        true => "lpad(to_hex(n), 32, '0')::uuid",
        false => "unhex(printf('%032x', n))",
    };
    let many = format!(
        "INSERT INTO webhook_deliveries (id, webhook_id, integration_id, event, payload, status) \
         WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20500) \
         SELECT {id}, (SELECT id FROM integration_webhooks), (SELECT integration_id FROM integration_webhooks), \
         CASE WHEN n IN (3, 15000) THEN 'payment.failed' ELSE 'payment.success' END, '{{}}', \
         CASE WHEN n IN (7, 8) THEN 'held' ELSE 'success' END FROM numbers"
    );
    hub.database.execute(&many).await;
    let pages = async |status: Option<v1::WebhookDeliveryStatus>, event: Option<&str>, size: i32| {
        let mut request = v1::ListWebhookDeliveriesRequest {
            webhook_id: hook.id.clone(),
            status: status.map(Into::into),
            event: event.map(str::to_owned),
            page_size: Some(size),
            page_token: None,
        };
        let mut pages = Vec::new();
        loop {
            let page = hooks.clone().list_webhook_deliveries(request.clone()).await.expect("a page").into_inner();
            let found: Vec<String> = page.deliveries.iter().map(|one| one.id[32..].to_owned()).collect();
            pages.push(found.join(" "));
            if page.next_page_token.is_empty() || pages.len() > 5 {
                return pages;
            }
            request.page_token = Some(page.next_page_token);
        }
    };
    use v1::WebhookDeliveryStatus::{Failed, Held, Pending, Success};
    assert_eq!(pages(None, Some("payment.failed"), 50).await, ["3a98", "", "0003"]);
    assert_eq!(pages(Some(Success), Some("payment.failed"), 1).await, ["3a98", "", "0003"]);
    assert_eq!(pages(Some(Pending), None, 50).await, ["", "", ""]);
    // What an index parts from the rest is looked for nowhere else.
    assert_eq!(pages(Some(Held), None, 50).await, ["0008 0007"]);
    assert_eq!(pages(Some(Held), None, 1).await, ["0008", "0007"]);
    assert_eq!(pages(Some(Failed), None, 50).await, [""]);
}
