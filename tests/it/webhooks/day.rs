//! Bad days: the database is gone, the hub is killed.

use serde_json::{Value, json};
use upbridge_client::Credentials;

use super::{USAGE, batch, key, records, send, signed};
use crate::harness::{self, HubProcess, SERVICE_KEY, TestDatabase, TestHub, eventually, register, total};

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_cannot_be_stored_is_refused_and_counts_once_when_it_is_sent_again() {
    let hub = TestHub::start().await;
    let member = hub.subscriber(2).await;
    let body = batch(&member.id, "patient").to_string();
    let holder = hub.database.connect().await;
    use sea_orm::ConnectionTrait;
    let operator = match std::env::var("TEST_POSTGRES_URL") {
        Ok(server) => Some(sea_orm::Database::connect(&server).await.unwrap()),
        Err(_) => None,
    };
    let name = hub.database.url.rsplit('/').next().unwrap().to_owned();
    match &operator {
        // Nobody gets in, and whoever was in is out.
        Some(operator) => {
            operator.execute_unprepared(&format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await.unwrap();
            let out = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
            operator.execute_unprepared(&out).await.unwrap();
        }
        None => {
            holder.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
        }
    }
    let (code, answer) = send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await;
    assert_eq!((code, &answer["error"]["reason"]), (503, &json!("STORE_UNAVAILABLE")), "{answer}");
    let (connection, undo) = match &operator {
        Some(operator) => (operator, format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")),
        None => (&holder, "ROLLBACK".to_owned()),
    };
    connection.execute_unprepared(&undo).await.unwrap();
    let mut taken = Value::Null;
    eventually("it is taken", async || {
        let (code, answer) = send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await;
        taken = answer;
        code == 200
    })
    .await;
    assert_eq!(taken["data"]["duplicate"], false, "what was refused is not remembered");
    eventually("it is applied", async || total(&member.client, "2024-01").await == 1).await;
    assert_eq!(send(&hub, USAGE, signed(body.as_bytes()), body.clone()).await.1["data"]["duplicate"], true);
    assert_eq!(records(&hub.database, &member).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hub_answered_before_it_was_killed_is_applied_once_after_it_starts_again() {
    let database = TestDatabase::new().await;
    let mut hub = HubProcess::start(&database);
    let member = register(&hub.client().await, Some(2)).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let calls = (0..40).map(|at| {
            let body = batch(&member.id, &format!("b{round}-{at}")).to_string();
            let request = reqwest::Client::new().post(hub.url(USAGE));
            harness::json(request.headers(signed(body.as_bytes())).body(body))
        });
        let answers = futures::future::join_all(calls).await;
        hub.kill();
        for (code, answer) in answers {
            assert_eq!(code, 200, "{answer}");
            acknowledged.push(answer["data"]["event_id"].as_str().unwrap().to_owned());
        }
        hub = HubProcess::run(HubProcess::command(&database).env("QUEUE_HEARTBEAT_INTERVAL", "100"));
    }
    let client = hub.client().await;
    let member_client = client.with_bearer(&member.token);
    eventually("all are applied", async || total(&member_client, "2024-01").await == 120).await;
    let done = "SELECT COUNT(*) FROM webhook_logs WHERE status = 'processed'";
    eventually("all are processed", async || database.count(done).await == 120).await;
    assert_eq!(records(&database, &member).await, 120);
    let service = client.with_credentials(Credentials::ApiKey(SERVICE_KEY.into()));
    for event_id in acknowledged {
        let request = upbridge_client::v1::GetWebhookReceiptRequest { event_id };
        let found = service.webhooks().get_webhook_receipt(request).await.unwrap().into_inner();
        assert_eq!(found.status, i32::from(upbridge_client::v1::WebhookStatus::Processed));
    }
    // A sender that never saw an answer sends again, and finds it known.
    let body = batch(&member.id, "b0-0").to_string();
    let stamp = chrono::Utc::now().timestamp();
    let request = reqwest::Client::new().post(hub.url(USAGE)).header("x-webhook-timestamp", stamp.to_string());
    let request = request.header("x-webhook-signature", key().sign(Some(stamp), body.as_bytes()));
    assert_eq!(harness::json(request.body(body)).await.1["data"]["duplicate"], true);
}
