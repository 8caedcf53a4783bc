//! A hub that is killed, and a database that is away, lose nothing that was answered.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::harness::{HubProcess, PostgresServer, eventually, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_has_stored_what_it_answered_and_takes_the_rest_once() {
    const SENDERS: usize = 8;
    let database = TestDatabase::new().await;
    let start = || {
        let mut command = HubProcess::command(&database);
        HubProcess::run(command.env("ENCRYPTION_KEY", ENCRYPTION_KEY))
    };
    let hub = start();
    let id = Wanted::at("midtrans", json!({ "serverKey": MIDTRANS_KEY })).add(&database).await;
    let url = hub.url(&format!("/api/webhooks/integrations/{id}"));
    let answered = Arc::new(AtomicUsize::new(0));
    let sending: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (url, answered) = (url.clone(), answered.clone());
            tokio::spawn(async move {
                let http = reqwest::Client::new();
                let (mut sent, mut receipts) = (0, Vec::new());
                loop {
                    let body = midtrans_body(&format!("LMS-{sender}-{sent}"), "settlement", "200");
                    sent += 1;
                    let Ok(answer) = http.post(&url).body(body).send().await else { return (sender, sent, receipts) };
                    let Ok(answer) = answer.json::<Value>().await else { return (sender, sent, receipts) };
                    receipts.push(answer["data"]["event_id"].as_str().expect("a receipt").to_owned());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    within(Duration::from_secs(60), "callbacks are taken", async || answered.load(Ordering::Relaxed) >= 200).await;
    hub.kill();
    let mut seen = Vec::new();
    for sender in sending {
        seen.push(sender.await.expect("it ended"));
    }
    let hub = start();
    let http = reqwest::Client::new();
    let url = hub.url(&format!("/api/webhooks/integrations/{id}"));
    let mut all = BTreeSet::new();
    for (sender, sent, receipts) in &seen {
        for at in 0..*sent {
            let body = midtrans_body(&format!("LMS-{sender}-{at}"), "settlement", "200");
            let (code, answer) = harness::json(http.post(&url).body(body)).await;
            assert_eq!(code, 200, "{answer}");
            let event = answer["data"]["event_id"].as_str().expect("a receipt").to_owned();
            if let Some(receipt) = receipts.get(at) {
                assert_eq!(
                    (&event, &answer["data"]["duplicate"]),
                    (receipt, &json!(true)),
                    "what was answered is there"
                );
            }
            all.insert(event);
        }
    }
    let sent: usize = seen.iter().map(|(_, sent, _)| sent).sum();
    assert_eq!(all.len(), sent, "each is one");
    for table in [RECEIPTS, "webhook_logs", "integration_logs WHERE action = 'transaction'"] {
        assert_eq!(rows(&database, table).await, sent as i64, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_providers_are_asked_to_come_again() {
    let Some(server) = PostgresServer::start() else { return };
    let hub = setup().start_on(server.database()).await;
    let call = &calls()[0];
    let id = Wanted::at(call.provider, call.credentials.clone()).add(&hub.database).await;
    let path = call.path(id);
    deliver(&hub, &path, &json_only("", b""), midtrans_body("LMS-before", "settlement", "200")).await;
    server.restart("immediate");
    // Connections that a crash has cut are found out by using them.
    let mut codes = BTreeSet::new();
    eventually("it is taken", async || {
        let (code, _) = send(&hub, &path, &json_only("", b""), call.body.clone()).await;
        codes.insert(code);
        code == 200
    })
    .await;
    assert!(codes.is_subset(&BTreeSet::from([200, 503])), "{codes:?}");
    assert_eq!(rows(&hub.database, RECEIPTS).await, 2);
}
