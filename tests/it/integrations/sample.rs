//! `upbridge seed sample-integrations`: something to look at, made once.

use std::process::{Command, Output};

use serde_json::Value;
use upbridge_client::v1;

use crate::harness::{HubProcess, Setup, TestDatabase};

fn seed(database: &TestDatabase, arguments: &[&str]) -> Output {
    let mut command: Command = HubProcess::command(database);
    command.env("LOG_DIR", "off").arg("seed").args(arguments).output().expect("it runs")
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_one_of_every_provider_and_seeding_again_changes_nothing() {
    let database = TestDatabase::new().await;
    let first = lines(&seed(&database, &["sample-integrations", "--json"]));
    assert_eq!(first.len(), 9, "a partner, seven integrations and a webhook: {first:?}");
    assert!(first.iter().all(|one| one["new"] == true));
    let again = lines(&seed(&database, &["20260221-sample-integrations", "--json"]));
    assert!(again.iter().all(|one| one["new"] == false));
    let ids = |lines: &[Value]| lines.iter().map(|one| one["id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&again), ids(&first));
    let table = seed(&database, &["sample-integrations"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.lines().count() == 10 && table.contains("was there") && !table.contains("added"), "{table}");

    let hub = Setup::default().start_on(database).await;
    let admin = hub.admin().await;
    let partner_id = first[0]["id"].as_str().unwrap().to_owned();
    let list = v1::ListIntegrationsRequest { partner_id, ..Default::default() };
    let listed = admin.integrations().list_integrations(list).await.unwrap().into_inner().integrations;
    let mut providers: Vec<i32> = listed.iter().map(|one| one.provider).collect();
    providers.sort_unstable();
    assert_eq!(providers, [1, 2, 3, 4, 5, 6, 7]);
    assert!(listed.iter().all(|one| !one.is_active), "nobody is called with credentials that are none");
    let midtrans = listed.iter().find(|one| one.provider == 1).unwrap().id.clone();
    let list = v1::ListIntegrationWebhooksRequest { integration_id: midtrans };
    let webhooks = admin.integration_webhooks().list_integration_webhooks(list).await.unwrap().into_inner().webhooks;
    assert_eq!((webhooks.len(), webhooks[0].is_active), (1, false));
    assert_eq!(webhooks[0].events, ["payment.success", "payment.failed"]);
}
