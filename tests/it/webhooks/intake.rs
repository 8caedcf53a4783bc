//! What is taken, in every form it may have, and that it counts once.

use std::time::Instant;

use serde_json::json;
use upbridge_client::{Code, v1};
use upbridge_server::model::signature::Key;

use super::{
    SUBSCRIPTION, USAGE, batch, counted, deliver, fate, headers, key, logged, outcome, records, send, signed,
    usage_body,
};
use crate::harness::{self, SERVICE_KEY, Setup, TestHub, at, eventually, keyed, refusal, total, usage};

/// The instant of the test hub's clock, in unix seconds.
const NOON: i64 = 1_773_576_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_taken_in_every_form_and_on_both_paths() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let key = key();
    let body = |name: &str| batch(&member.id, name).to_string().into_bytes();
    let stamp = NOON.to_string();
    let (bare, named, timed, listed) = (body("bare"), body("named"), body("timed"), body("listed"));
    let inside = key.sign_body(&body("inside")).unwrap();
    let both = key.sign_body(&body("both")).unwrap();
    let timed_both = key.sign_body(&body("timed both")).unwrap();
    let forms = [
        (signed(&bare), bare),
        (headers(&[("X-Webhook-Signature", &format!("sha256={}", key.sign(None, &named).to_uppercase()))]), named),
        (headers(&[("x-webhook-signature", &key.sign(Some(NOON), &timed)), ("x-webhook-timestamp", &stamp)]), timed),
        (
            headers(&[
                ("webhook-id", "msg_1"),
                ("webhook-timestamp", &stamp),
                ("webhook-signature", &format!("v1,AAAA {}", key.sign_standard("msg_1", NOON, &listed).unwrap())),
            ]),
            listed,
        ),
        (headers(&[]), inside),
        (signed(&both), both),
        (
            headers(&[("x-webhook-signature", &key.sign(Some(NOON), &timed_both)), ("x-webhook-timestamp", &stamp)]),
            timed_both,
        ),
    ];
    for (at, (headers, body)) in forms.into_iter().enumerate() {
        let path = if at % 2 == 0 { USAGE } else { "/api/v1/client/creatorup/webhook/usage-update" };
        let (code, answer) = send(&hub, path, headers, body.clone()).await;
        assert_eq!(code, 200, "{answer}");
        let data = answer["data"].as_object().unwrap();
        assert_eq!(data.keys().collect::<Vec<_>>(), ["received", "event_id", "duplicate"]);
        assert_eq!(data["duplicate"], false, "{answer}");
        assert_eq!(outcome(&hub, &answer["data"]).await["outcome"], "created");
    }
    assert_eq!((records(&hub.database, &member).await, total(&member.client, "2024-01").await), (7, 7));
    assert_eq!(logged(&hub.database, "processed").await, 7);
    assert_eq!(counted(&hub.database, "usage-update.processed").await, 7);
    assert_eq!(counted(&hub.database, "usage-update.received").await, 0);
    let sources = hub.database.texts("SELECT DISTINCT source FROM creatorup_usage").await;
    assert_eq!(sources, ["webhook"]);
    let events = "SELECT COUNT(*) FROM sync_events WHERE event_type = 'usage_sync'";
    assert_eq!(hub.database.count(events).await, 7, "a webhook's event is the only one of its usage");
    // A webhook is applied a moment before its job is over, and its event with it.
    let completed = format!("{events} AND status = 'completed'");
    eventually("its event is over", async || hub.database.count(&completed).await == 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_again_answers_the_first_receipt_and_counts_once() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let (key, body) = (key(), usage_body(&member.id).replace(",\n  \"signature\": \"webhook-signature\"", ""));
    let body = body.as_bytes();
    let first = deliver(&hub, USAGE, &serde_json::from_slice(body).unwrap()).await;
    assert_eq!(first["duplicate"], false);
    assert_eq!(outcome(&hub, &first).await["outcome"], "created");
    // The first went without its white space, so these bytes are another delivery of the same batch.
    let (_, again) = send(&hub, USAGE, signed(body), body).await;
    assert_eq!(again["data"]["duplicate"], false);
    assert_eq!(outcome(&hub, &again["data"]).await["outcome"], "duplicate");
    // The same bytes are the same event, however and whenever they are signed.
    let (late, stamp) = (NOON + 200, (NOON + 200).to_string());
    for (headers, sent) in [
        (signed(body), body.to_vec()),
        (
            headers(&[("x-webhook-signature", &key.sign(Some(late), body)), ("x-webhook-timestamp", &stamp)]),
            body.to_vec(),
        ),
        (headers(&[]), key.sign_body(body).unwrap()),
    ] {
        let (code, answer) = send(&hub, USAGE, headers, sent).await;
        assert_eq!((code, &answer["data"]["duplicate"]), (200, &json!(true)), "{answer}");
        assert_eq!(answer["data"]["event_id"], again["data"]["event_id"]);
    }
    assert_eq!((records(&hub.database, &member).await, total(&member.client, "2024-01").await), (1, 1));
    assert_eq!(logged(&hub.database, "processed").await, 2, "a repeated delivery leaves no second log");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_known_by_its_id_is_one_event_and_comes_with_one_content() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let standard = |body: &[u8], id: &str, at: i64| {
        let signature = key().sign_standard(id, at, body).unwrap();
        headers(&[("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &signature)])
    };
    let body = batch(&member.id, "one").to_string();
    let mut ids = Vec::new();
    for at in [NOON, NOON + 5, NOON - 300] {
        let (code, answer) = send(&hub, USAGE, standard(body.as_bytes(), "msg_a", at), body.clone()).await;
        assert_eq!(code, 200, "{answer}");
        ids.push((answer["data"]["event_id"].clone(), answer["data"]["duplicate"].clone()));
    }
    assert_eq!(
        ids,
        [(ids[0].0.clone(), json!(false)), (ids[0].0.clone(), json!(true)), (ids[0].0.clone(), json!(true))]
    );
    // The id of a delivery tells batches of one name apart that have no id of their own.
    let second = json!({ "digiup_user_id": member.id, "usage_data": { "batch_name": "one", "batch_type": "video",
        "usage_type": "local_rendering", "completed_at": "2024-01-16T10:30:00Z" } });
    let (_, answer) =
        send(&hub, USAGE, standard(second.to_string().as_bytes(), "msg_b", NOON), second.to_string()).await;
    assert_eq!(outcome(&hub, &answer["data"]).await["outcome"], "created");
    // An id that comes again with another content is a mistake, and is not swallowed.
    let (code, answer) =
        send(&hub, USAGE, standard(second.to_string().as_bytes(), "msg_a", NOON), second.to_string()).await;
    assert_eq!((code, &answer["error"]["reason"]), (409, &json!("ALREADY_EXISTS")), "{answer}");
    let own = |name: &str| {
        let mut body = batch(&member.id, name);
        body["event_id"] = json!("e-1");
        body
    };
    let first = deliver(&hub, USAGE, &own("with an id")).await;
    assert_eq!(deliver(&hub, USAGE, &own("with an id")).await["event_id"], first["event_id"]);
    let other = own("with the same id").to_string();
    assert_eq!(send(&hub, USAGE, signed(other.as_bytes()), other.clone()).await.0, 409);
    for event_id in [&ids[0].0, &first["event_id"]] {
        fate(&hub, &json!({ "event_id": event_id })).await;
    }
    assert_eq!(records(&hub.database, &member).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_at_the_same_time_are_one_event() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let bodies: Vec<String> = (0..40).map(|at| batch(&member.id, &format!("b{}", at % 4)).to_string()).collect();
    let calls = bodies.iter().map(|body| send(&hub, USAGE, signed(body.as_bytes()), body.clone()));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|(code, _)| *code == 200), "{answers:?}");
    let new = answers.iter().filter(|(_, answer)| answer["data"]["duplicate"] == false).count();
    let ids: std::collections::HashSet<&str> =
        answers.iter().map(|(_, answer)| answer["data"]["event_id"].as_str().unwrap()).collect();
    assert_eq!((new, ids.len()), (4, 4));
    eventually("four are recorded", async || records(&hub.database, &member).await == 4).await;
    assert_eq!(hub.database.count("SELECT COUNT(*) FROM webhook_receipts").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_batch_told_by_call_by_webhook_and_by_stream_counts_once() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let done = v1::UsageData { completed_at: at("2024-01-15T10:30:00Z"), ..usage("batch-001") };
    member.client.usage().record_usage(keyed("run-1", done.clone())).await.unwrap();
    let mut told = batch(&member.id, "batch-001");
    told["usage_data"]["usage_id"] = json!("run-1");
    let receipt = deliver(&hub, USAGE, &told).await;
    assert_eq!(outcome(&hub, &receipt).await["outcome"], "duplicate");
    let report =
        v1::UsageReport { usage_data: Some(done), idempotency_key: Some("run-1".into()), ..Default::default() };
    let message = v1::RecordUsageStreamRequest { reports: vec![report] };
    let answer = member.client.usage().record_usage_stream(futures::stream::iter([message])).await.unwrap();
    assert_eq!(answer.into_inner().duplicates, 1);
    assert_eq!((records(&hub.database, &member).await, total(&member.client, "2024-01").await), (1, 1));
    // The creation is told without a key or a completion, the webhook completes it.
    member.client.usage().record_usage(harness::record(usage("batch-002"))).await.unwrap();
    let receipt = deliver(&hub, USAGE, &batch(&member.id, "batch-002")).await;
    assert_eq!(outcome(&hub, &receipt).await["outcome"], "amended");
    assert_eq!((records(&hub.database, &member).await, total(&member.client, "2024-01").await), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_done_is_recorded_beyond_the_plan_and_what_is_asked_for_next_is_refused() {
    let hub = TestHub::start().await;
    let (starter, nobody) = (hub.subscriber(1).await, hub.member().await);
    for member in [&starter, &nobody] {
        let mut told = batch(&member.id, "large");
        told["usage_data"]["usage_amount"] = json!(150);
        told["usage_data"]["completed_at"] = json!("2026-03-14T10:00:00Z");
        let receipt = deliver(&hub, USAGE, &told).await;
        assert_eq!(outcome(&hub, &receipt).await["outcome"], "created");
        assert_eq!(total(&member.client, "2026-03").await, 150);
    }
    let (code, reason) = refusal(starter.client.usage().record_usage(harness::record(usage("more"))).await);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_the_contract_does_not_know_are_passed_over_and_kept_in_the_log() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut told = batch(&member.id, "extended");
    told["version"] = json!({ "signature": 5, "nul": "a\u{0}b" });
    told["usage_data"]["worker"] = json!("w-7");
    let receipt = deliver(&hub, USAGE, &told).await;
    assert_eq!(outcome(&hub, &receipt).await["outcome"], "created");
    // Names are understood in both spellings, here as everywhere.
    let camel = json!({ "digiupUserId": member.id, "usageData": { "batchName": "camel", "batchType": "video",
        "usageType": "local_rendering", "monthYear": "2024-01" }, "eventId": "camel-1" });
    let receipt_of_camel = deliver(&hub, USAGE, &camel).await;
    assert_eq!(outcome(&hub, &receipt_of_camel).await["month_year"], "2024-01");

    let admin = hub.admin().await;
    let id = receipt["event_id"].as_str().unwrap().to_owned();
    let log = admin.webhooks().get_webhook_log(v1::GetWebhookLogRequest { log_id: id.clone() }).await.unwrap();
    let log = log.into_inner().log.unwrap();
    assert_eq!(
        (log.id.as_str(), log.event_type.as_str(), log.source.as_str()),
        (id.as_str(), "usage-update", "creatorup")
    );
    assert_eq!((log.user_id.as_deref(), log.ip_address.as_str()), (Some(member.id.as_str()), "127.0.0.1"));
    assert_eq!(log.signature.unwrap().len(), 64);
    let payload = log.payload.unwrap();
    assert!(payload.fields.contains_key("version") && payload.fields.contains_key("usage_data"), "{payload:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_secrets_are_good_while_they_are_changed() {
    let hub = Setup::default()
        .set("WEBHOOK_SECRET", "the-new-secret-0123456789abcdef-0123456789")
        .set("WEBHOOK_SECRET_PREVIOUS", super::super::harness::WEBHOOK_SECRET)
        .start()
        .await;
    let member = hub.subscriber(2).await;
    let new = Key::parse("the-new-secret-0123456789abcdef-0123456789").unwrap();
    let (one, two) = (batch(&member.id, "one").to_string(), batch(&member.id, "two").to_string());
    assert_eq!(
        send(&hub, USAGE, headers(&[("x-webhook-signature", &new.sign(None, one.as_bytes()))]), one.clone()).await.0,
        200
    );
    assert_eq!(send(&hub, USAGE, signed(two.as_bytes()), two.clone()).await.0, 200, "with the one before");
    let (_, again) = send(&hub, USAGE, signed(one.as_bytes()), one.clone()).await;
    assert_eq!(again["data"]["duplicate"], true, "whatever it is signed with");
    // A secret that is no whsec_ one signs no Standard Webhooks; the one before does.
    let list = key().sign_standard("msg_1", NOON, one.as_bytes()).unwrap();
    let standard =
        headers(&[("webhook-id", "msg_1"), ("webhook-timestamp", &NOON.to_string()), ("webhook-signature", &list)]);
    assert_eq!(send(&hub, USAGE, standard, one).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rpcs_are_called_with_the_api_key_and_no_signature() {
    let hub = TestHub::start().await;
    let (member, service) = (hub.subscriber(2).await, hub.service().await);
    let told = v1::HandleUsageWebhookRequest {
        digiup_user_id: member.id.clone(),
        usage_data: Some(v1::UsageData { completed_at: at("2024-01-15T10:30:00Z"), ..usage("typed") }),
        ..Default::default()
    };
    let first = service.webhooks().handle_usage_webhook(told.clone()).await.unwrap().into_inner();
    let again = service.webhooks().handle_usage_webhook(told.clone()).await.unwrap().into_inner();
    assert_eq!((first.received, first.duplicate, again.duplicate), (true, false, true));
    assert_eq!(first.event_id, again.event_id);
    assert_eq!(outcome(&hub, &json!({ "event_id": first.event_id })).await["outcome"], "created");
    let changed = v1::HandleSubscriptionWebhookRequest {
        digiup_user_id: member.id.clone(),
        subscription_data: Some(v1::SubscriptionData {
            plan: "business".into(),
            status: "active".into(),
            end_date: at("2026-05-01T00:00:00Z"),
        }),
        ..Default::default()
    };
    let receipt = service.webhooks().handle_subscription_webhook(changed).await.unwrap().into_inner();
    assert_eq!(outcome(&hub, &json!({ "event_id": receipt.event_id })).await["plan"], "Business");

    let (code, reason) = refusal(hub.client().await.webhooks().handle_usage_webhook(told.clone()).await);
    assert_eq!((code, reason.as_str()), (Code::Unauthenticated, "MISSING_CREDENTIALS"));
    let (code, _) = refusal(member.client.webhooks().handle_usage_webhook(told).await);
    assert_eq!(code, Code::PermissionDenied, "a user is not CreatorUp");
    // Over HTTP too, and a signature that comes with the key has to be good all the same.
    let body = batch(&member.id, "by key").to_string();
    let with_key = headers(&[("x-api-key", SERVICE_KEY)]);
    assert_eq!(send(&hub, USAGE, with_key, body.clone()).await.0, 200);
    let with_both = headers(&[("x-api-key", SERVICE_KEY), ("x-webhook-signature", &"0".repeat(64))]);
    assert_eq!(send(&hub, USAGE, with_both, body.clone()).await.0, 401);
    let mut with_bad_key = signed(body.as_bytes());
    with_bad_key.extend(headers(&[("x-api-key", "not-the-key")]));
    assert_eq!(send(&hub, USAGE, with_bad_key, body).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_seen_in_the_totals_within_a_second() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let mut fastest = f64::MAX;
    // An idle hub is meant, and this machine may be anything but.
    for at in 0..5 {
        let begun = Instant::now();
        deliver(&hub, USAGE, &batch(&member.id, &format!("b{at}"))).await;
        eventually("it is in the month's total", async || total(&member.client, "2024-01").await == at + 1).await;
        fastest = fastest.min(begun.elapsed().as_secs_f64());
    }
    assert!(fastest < 1.0, "{fastest} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_webhooks_are_listed_while_they_wait_and_afterwards() {
    let hub = TestHub::start().await;
    let (member, other, admin) = (hub.subscriber(2).await, hub.subscriber(2).await, hub.admin().await);
    let applied = deliver(&hub, USAGE, &batch(&member.id, "b0")).await;
    fate(&hub, &applied).await;
    let kind = v1::JobKind::UsageSync.into();
    admin.queue().pause_kind(v1::PauseKindRequest { kind }).await.unwrap();
    let mut sent = vec![applied];
    for at in 1..3 {
        sent.push(deliver(&hub, USAGE, &batch(&member.id, &format!("b{at}"))).await);
        deliver(&hub, USAGE, &batch(&other.id, &format!("b{at}"))).await;
    }
    sent.reverse();
    let receipts: Vec<String> = sent.iter().map(|receipt| receipt["event_id"].as_str().unwrap().to_owned()).collect();
    let list = async |request: v1::ListWebhookLogsRequest| {
        let request = v1::ListWebhookLogsRequest { user_id: Some(member.id.clone()), ..request };
        admin.webhooks().list_webhook_logs(request).await.unwrap().into_inner()
    };
    let ids = |answer: &v1::ListWebhookLogsResponse| answer.logs.iter().map(|log| log.id.clone()).collect::<Vec<_>>();
    let page = v1::ListWebhookLogsRequest { page_size: Some(2), ..Default::default() };
    let newest = list(page.clone()).await;
    assert_eq!(ids(&newest), receipts[..2]);
    let rest = list(v1::ListWebhookLogsRequest { page_token: Some(newest.next_page_token), ..page }).await;
    assert_eq!((ids(&rest), rest.next_page_token.as_str()), (receipts[2..].to_vec(), ""));
    for (status, expected) in
        [(v1::WebhookStatus::Received, &receipts[..2]), (v1::WebhookStatus::Processed, &receipts[2..])]
    {
        let answer = list(v1::ListWebhookLogsRequest { status: Some(status.into()), ..Default::default() }).await;
        assert_eq!(ids(&answer), expected);
    }
    admin.queue().resume_kind(v1::ResumeKindRequest { kind }).await.unwrap();
    for receipt in &sent {
        fate(&hub, receipt).await;
    }
    assert_eq!(ids(&list(Default::default()).await), receipts);
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_look_webhooks_up_and_nobody_else_does() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    for at in 0..5 {
        fate(&hub, &deliver(&hub, USAGE, &batch(&member.id, &format!("b{at}"))).await).await;
    }
    let stranger = uuid::Uuid::now_v7().to_string();
    let unknown = batch(&stranger, "nobody's").to_string();
    assert_eq!(send(&hub, USAGE, signed(unknown.as_bytes()), unknown.clone()).await.0, 404);
    let changed = json!({ "digiup_user_id": member.id, "subscription_data": { "plan": "Pro", "status": "active" } });
    fate(&hub, &deliver(&hub, SUBSCRIPTION, &changed).await).await;

    let admin = hub.admin().await;
    let list = async |request: v1::ListWebhookLogsRequest| {
        admin.webhooks().list_webhook_logs(request).await.unwrap().into_inner()
    };
    let mut seen = Vec::new();
    let mut page = v1::ListWebhookLogsRequest { page_size: Some(3), ..Default::default() };
    loop {
        let answer = list(page.clone()).await;
        assert!(answer.logs.iter().all(|log| log.payload.is_none()), "a list holds no bodies");
        seen.extend(answer.logs.into_iter().map(|log| (log.event_type, log.status)));
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = Some(answer.next_page_token);
    }
    assert_eq!(seen.len(), 7);
    assert_eq!(seen[0], ("subscription-update".to_owned(), v1::WebhookStatus::Processed.into()));
    assert_eq!(seen[1], ("usage-update".to_owned(), v1::WebhookStatus::Failed.into()));
    let failed = v1::ListWebhookLogsRequest { status: Some(v1::WebhookStatus::Failed.into()), ..Default::default() };
    let failed = list(failed).await.logs;
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].user_id.as_deref(), failed[0].error_message.as_deref()),
        (Some(stranger.as_str()), Some("there is no such user"))
    );
    for (filter, count) in [
        (v1::ListWebhookLogsRequest { user_id: Some(member.id.clone()), ..Default::default() }, 6),
        (v1::ListWebhookLogsRequest { event_type: Some("subscription-update".into()), ..Default::default() }, 1),
        (v1::ListWebhookLogsRequest { source: Some("elsewhere".into()), ..Default::default() }, 0),
    ] {
        assert_eq!(list(filter).await.logs.len(), count);
    }
    let nothing = v1::GetWebhookReceiptRequest { event_id: stranger.clone() };
    assert_eq!(refusal(admin.webhooks().get_webhook_receipt(nothing.clone()).await).0, Code::NotFound);
    assert_eq!(refusal(member.client.webhooks().get_webhook_receipt(nothing).await).0, Code::PermissionDenied);
    let (code, _) =
        refusal(hub.service().await.webhooks().list_webhook_logs(v1::ListWebhookLogsRequest::default()).await);
    assert_eq!(code, Code::PermissionDenied);
    let log = v1::GetWebhookLogRequest { log_id: stranger };
    assert_eq!(refusal(admin.webhooks().get_webhook_log(log).await).0, Code::NotFound);
}
